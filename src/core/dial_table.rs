//! The dialers of a loop, and how far each has come.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::app::connector::Connector;
use crate::context::dialers::DialerCell;
use crate::protocol::client_url::{ClientUrl, Place};
use crate::structures::backoff::Backoff;
use crate::structures::wheel::TimerKey;
use crate::words::connect::{ConnectStep, DialerState};
use crate::words::time::Time;

use crate::core::dial_orders::{Attempt, DialOrder, Remote};

/// All dialers.
#[derive(Default)]
pub(super) struct DialTable {
    /// By the slot of their key.
    pub(super) dials: Vec<Option<Dial>>,
    /// What the owner of the sockets is to do.
    pub(super) orders: VecDeque<DialOrder>,
    /// Whose connections these are, while they are no sessions yet: dialers by slot.
    pub(super) by_slot: BTreeMap<u32, u32>,
    /// Dialers of which something is due.
    pub(super) due: Vec<u32>,
    /// Dialers whose connection is gone before it was a session.
    pub(super) gone: Vec<u32>,
    /// Connections that are there and are to speak TLS.
    #[cfg(feature = "tls")]
    pub(super) to_secure: Vec<u32>,
}

/// One dialer. Waiting, or while there is a session, this is all it costs here.
pub(super) struct Dial {
    pub(super) cell: Rc<DialerCell>,
    pub(super) connector: Connector,
    pub(super) route: u16,
    /// Counts the attempts: what is said of an earlier one is not looked at.
    pub(super) round: u32,
    pub(super) backoff: Backoff,
    pub(super) timer: Option<TimerKey>,
    /// When the session began.
    pub(super) since: Time,
    /// When the last attempt failed.
    pub(super) failed: Option<Time>,
    /// An attempt is wanted as soon as the session, which is being closed, is over.
    pub(super) restarts: bool,
    pub(super) progress: Option<Box<Progress>>,
}

/// How far an attempt has come.
pub(super) struct Progress {
    /// When it has to have become a session.
    pub(super) deadline: Time,
    pub(super) step: ConnectStep,
    /// Where to, which redirects change.
    pub(super) url: Rc<ClientUrl>,
    pub(super) redirects_left: u8,
    /// A redirect has led to another server, which is told no credentials.
    pub(super) is_elsewhere: bool,
    /// Addresses that were not tried yet.
    pub(super) addresses: VecDeque<SocketAddr>,
    /// Connections that are being made.
    pub(super) connecting: usize,
    /// When the next address is tried beside those.
    pub(super) race_at: Option<Time>,
    /// The connection, once there is one.
    pub(super) slot: Option<u32>,
}

impl DialTable {
    pub(super) fn dial(&mut self, index: u32) -> Option<&mut Dial> {
        self.dials.get_mut(index as usize)?.as_mut()
    }

    /// The application has stopped it, and the loop is to act on that in this turn.
    pub(super) fn is_to_stop(&self, index: u32) -> bool {
        let dial = self.dials.get(index as usize).and_then(Option::as_ref);
        dial.is_some_and(|dial| dial.cell.is_to_stop())
    }

    pub(super) fn progress(&mut self, index: u32) -> Option<&mut Progress> {
        self.dial(index)?.progress.as_deref_mut()
    }

    /// The attempt that something is said of, if it is the present one.
    pub(super) fn attempt(&mut self, attempt: Attempt) -> Option<&mut Progress> {
        let dial = self.dial(attempt.dial).filter(|dial| dial.round == attempt.round)?;
        dial.progress.as_deref_mut()
    }

    pub(super) fn attempt_of(&mut self, index: u32) -> Option<Attempt> {
        self.dial(index).map(|dial| Attempt { dial: index, round: dial.round })
    }

    pub(super) fn set_step(&mut self, index: u32, step: ConnectStep) -> Option<Attempt> {
        let dial = self.dial(index)?;
        dial.progress.as_deref_mut()?.step = step;
        dial.cell.set_state(DialerState::Connecting(step));
        Some(Attempt { dial: index, round: dial.round })
    }

    pub(super) fn order_connect(&mut self, index: u32, attempt: Attempt, remote: Remote) {
        let Some(progress) = self.progress(index) else { return };
        progress.connecting = progress.connecting.saturating_add(1);
        self.orders.push_back(DialOrder::Connect { attempt, remote });
    }

    /// The host whose name is resolved: the proxy's, where there is one.
    pub(super) fn host_of(&mut self, index: u32) -> String {
        let Some(dial) = self.dial(index) else { return String::new() };
        let url = dial.progress.as_deref().map_or(&dial.connector.url, |progress| &progress.url);
        match dial.connector.proxy.as_ref().map_or(&url.place, |proxy| &proxy.place) {
            Place::Tcp { host, .. } => host.to_string(),
            Place::Unix(path) => path.to_string(),
        }
    }

    /// Whether the server that an attempt leads to is spoken to over TLS.
    pub(super) fn is_secure(&mut self, index: u32) -> bool {
        self.progress(index).is_some_and(|progress| progress.url.secure)
    }

    /// Whether something is to be done, or to be told to whoever owns the sockets.
    pub(super) fn has_work(&self) -> bool {
        #[cfg(feature = "tls")]
        if !self.to_secure.is_empty() {
            return true;
        }
        !self.orders.is_empty() || !self.due.is_empty() || !self.gone.is_empty()
    }

    /// The wheel has popped the entry of a dialer, which is looked at in this turn.
    pub(super) fn fired(&mut self, index: u32) {
        let Some(dial) = self.dial(index) else { return };
        dial.timer = None;
        self.due.push(index);
    }

    /// The connection in a slot is gone.
    pub(super) fn note_gone(&mut self, slot: u32) {
        // At once: from here the slot may be another's.
        let Some(index) = self.by_slot.remove(&slot) else { return };
        if let Some(progress) = self.progress(index) {
            progress.slot = None;
        }
        self.gone.push(index);
    }

    /// Whether each of them has what belongs to its state, and no more: who waits has a timer and nothing
    /// else.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(super) fn check(&self) -> Result<(), String> {
        for (index, dial) in (0..).zip(&self.dials) {
            let Some(dial) = dial else { continue };
            let (state, slot) = (dial.cell.state(), dial.progress.as_deref().map(|it| it.slot));
            let has = (slot.is_some(), dial.timer.is_some(), dial.cell.session.get().is_some());
            let is_right = match state {
                DialerState::Connecting(_) => has == (true, true, false),
                DialerState::Open => has == (false, false, true),
                DialerState::Waiting => has == (false, true, false),
                DialerState::Stopped => !has.0 && !has.1, // its session may be closing
            };
            if !is_right {
                return Err(format!("dialer {index} is {state:?} and has {has:?}"));
            }
            let listed = self.by_slot.iter().find(|(_, dialer)| **dialer == index);
            if listed.map(|(slot, _)| *slot) != slot.flatten() {
                return Err(format!("dialer {index} has slot {slot:?}, and {listed:?} is listed"));
            }
        }
        Ok(())
    }

    /// How many of them are on the wheel.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(super) fn armed(&self) -> usize {
        self.dials.iter().flatten().filter(|dial| dial.timer.is_some()).count()
    }
}
