//! Deferred answers in a simulation: given on the loop or from elsewhere, late, never, or to nobody; and the
//! books of them.

use std::cell::RefCell;
use std::rc::Rc;

use crate::app::call::Call;
use crate::app::response::{Accept, Response};
use crate::core::audit::Audit;
use crate::deferring::Pending;
use crate::testing::network::{LinkId, Network};

use super::actors::PLANNED;
use super::choices::Choices;
use super::world::{Mood, World};

/// The header by which a client asks for an answer that is deferred.
const HEADER: &str = "X-Defer: 1\r\n";

/// What the application has of them, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Deferrals {
    open: Vec<Deferral>,
    begun: u64,
    refused: u64,
}

#[derive(Debug)]
pub(super) struct Deferral {
    link: LinkId,
    is_upgrade: bool,
    pending: Pending,
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

/// What an upgrade hook says.
pub(super) fn admit(world: &Rc<RefCell<World>>, call: &Call) -> Result<Accept, Response> {
    match begin(world, call, true) {
        Some(response) => Err(response),
        None => Ok(Accept::new()),
    }
}

/// What a request gets that asks for a deferred answer; `None` for the others.
pub(super) fn begin(world: &Rc<RefCell<World>>, call: &Call, is_upgrade: bool) -> Option<Response> {
    call.header("x-defer")?;
    let link = call.header("x-link")?.parse().ok()?;
    let pending = call.defer();
    let World { choices, deferrals, .. } = &mut *world.borrow_mut();
    if pending.is_cancelled() {
        deferrals.refused += 1;
        return Some(Response::deferred());
    }
    deferrals.begun += 1;
    match choices.below(10) {
        0 => drop(pending),
        1 => return Some(Response::text("after all").status(403)),
        _ => deferrals.open.push(Deferral { link, is_upgrade, pending }),
    }
    Some(Response::deferred())
}

impl Deferrals {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// One of them, and what is to become of it.
    pub(super) fn draw(&mut self, choices: &mut Choices, mood: Mood) -> (Deferral, Fate) {
        let which = choices.size_below(self.open.len());
        let fate = match choices.below(10) {
            0..=3 => Fate::OnLoop,
            4 | 5 => Fate::Elsewhere,
            6 => Fate::Refused,
            7 if mood.panics => Fate::Panics,
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

impl Deferral {
    pub(super) fn link(&self) -> LinkId {
        self.link
    }

    /// Settles it, as its fate is.
    pub(super) fn meet(self, fate: Fate, world: &Rc<RefCell<World>>, network: &mut Network) {
        let Self { link, is_upgrade, pending } = self;
        match fate {
            Fate::OnLoop if is_upgrade => pending.accept(Accept::new()),
            Fate::OnLoop => {
                let world = Rc::clone(world);
                let page = Response::with_server(move |_call, _server| {
                    *world.borrow_mut().pages.entry(link).or_default() += 1;
                    "made on the loop"
                });
                network.run(move |server| pending.answer_on(server, page));
            }
            Fate::Elsewhere if is_upgrade => pending.accept_with(|call| {
                call.attach(1_u8);
                Ok(Accept::new().header("X-Attached", "1"))
            }),
            Fate::Elsewhere => {
                pending.answer_with(|call, _server| Response::text(call.path()).status(203));
            }
            Fate::Refused => pending.answer(Response::new(401)),
            Fate::Panics => {
                pending.answer_with(|_call, _server| -> Response { panic!("{PLANNED}") })
            }
            Fate::Dropped => drop(pending),
        }
    }
}
