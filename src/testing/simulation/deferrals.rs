//! The books of deferred answers in a simulation: each has one outcome.

use crate::core::audit::Audit;
use crate::core::deferring::Pending;
use crate::testing::network::{LinkId, Network};

use super::choices::Choices;

/// The header by which a client asks for an answer that is deferred.
const HEADER: &str = "X-Defer: 1\r\n";

/// What the application has of them, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Deferrals {
    pub(super) open: Vec<Deferral>,
    pub(super) begun: u64,
    pub(super) refused: u64,
}

#[derive(Debug)]
pub(super) struct Deferral {
    pub(super) link: LinkId,
    pub(super) is_upgrade: bool,
    pub(super) pending: Pending,
}

/// What becomes of one of them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    OnLoop,
    Elsewhere,
    Refused,
    Panics,
    Dropped,
}

/// The header of some clients.
pub(super) fn header_of(link: LinkId) -> &'static str {
    if link % 8 == 1 || link % 32 == 11 { HEADER } else { "" }
}

impl Deferrals {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One of them, and what is to become of it.
    pub(super) fn draw(&mut self, choices: &mut Choices, panics: bool) -> (Deferral, Fate) {
        let which = choices.size_below(self.open.len());
        let fate = match choices.below(10) {
            0..=3 => Fate::OnLoop,
            4 | 5 => Fate::Elsewhere,
            6 => Fate::Refused,
            7 if panics => Fate::Panics,
            _ => Fate::Dropped,
        };
        (self.open.swap_remove(which), fate)
    }

    /// What must hold of them: each is accounted for, once.
    pub(super) fn check(&self, network: &mut Network) -> Result<(), String> {
        let stats = network.core.stats();
        let waiting = Audit(&network.core).deferred();
        let settled = stats.deferred_answered
            + stats.deferred_dropped
            + stats.deferred_late
            + stats.deferred_cancelled;
        if settled + waiting != self.begun {
            let begun = self.begun;
            return Err(format!("{begun} answers were deferred, {waiting} are awaited; {stats:?}"));
        }
        if stats.deferred_refused != self.refused {
            return Err(format!("{} deferrals were refused; {stats:?}", self.refused));
        }
        let open = self.open.len() as u64;
        // Once it has stopped nobody gives it anything back.
        if !network.stopped && stats.deferred_open != open {
            return Err(format!("{open} answers are open, the server has {}", stats.deferred_open));
        }
        let lives_on = |it: &&Deferral| !it.pending.is_cancelled();
        match self.open.iter().filter(lives_on).find(|it| network.link(it.link).is_settled()) {
            Some(it) => Err(format!("link {} is over, and its answer is still wanted", it.link)),
            None => Ok(()),
        }
    }

    /// What must hold once the server is over.
    pub(super) fn check_end(&self) -> Result<(), String> {
        match self.open.iter().find(|it| !it.pending.is_cancelled()) {
            Some(it) => Err(format!("link {}: an answer is wanted by nobody", it.link)),
            None => Ok(()),
        }
    }
}
