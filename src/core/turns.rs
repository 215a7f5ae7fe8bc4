//! The whole server, and the turn of one of its connections: what is lent to it, and what follows.

use std::fmt;
use std::rc::Rc;

use log::Level;

use crate::app::application::Built;
use crate::app::route_table::RouteTable;
use crate::context::commands::Command;
use crate::context::loop_state::LoopState;
use crate::context::loop_state::ServerRef;
use crate::context::readers::Readers;
use crate::context::warnings::Target;
use crate::flow::inner::FlowInner;
use crate::structures::ids::BodyId;
use crate::structures::slab::Key;
use crate::structures::wire::{NoWire, Wire};
use crate::words::close::CloseReason;
use crate::words::time::Time;

use crate::core::connection::Stage;
use crate::core::connections::Connections;
use crate::core::deferred_turn::DeferredTurn;
#[cfg(feature = "client")]
use crate::core::dial_table::DialTable;
use crate::core::panics::{Panicked, caught, drop_caught};
use crate::core::pending::client_of;
use crate::core::rounds::Rounds;
use crate::core::turn::{Reading, Turn};

/// Marks the tokens of the wheel that are timers of the application.
const APP_TIMER: u32 = 1 << 31;
/// And with this bit those of dialers.
#[cfg(feature = "client")]
pub(super) const DIAL_TIMER: u32 = APP_TIMER | 1 << 30;

/// What a message for another session takes beside its bytes until it is written, about.
const COPY_BYTES: usize = 256;

/// The whole server.
pub(crate) struct Core {
    pub(super) shared: LoopState,
    pub(super) routes: RouteTable,
    pub(super) connections: Connections,
    /// Connections that are to be written to and were not handled yet.
    pub(super) rounds: Rounds,
    /// How many this flush has come to.
    pub(super) flushed: usize,
    /// At the beginning of the last flush input waited for copies to be written.
    pub(super) has_input_waited: bool,
    /// Flows that were offered to all sessions, and whose readers follow.
    pub(super) read_by_readers: Vec<Rc<FlowInner>>,
    /// Flows that were offered to everybody.
    pub(super) unsettled: Vec<Rc<FlowInner>>,
    /// Connections that may be read again.
    pub(super) resuming: Vec<u32>,
    pub(super) draining: Option<Drain>,
    #[cfg(feature = "client")]
    pub(super) dial_table: DialTable,
}

/// A stop that has begun.
pub(super) struct Drain {
    pub(super) reason: CloseReason,
    pub(super) deadline: Time,
    pub(super) is_over: bool,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.connections.slab.len();
        f.debug_struct("Core").field("connections", &connections).finish_non_exhaustive()
    }
}

/// Flows know the server whose sessions collect them, and it lists those that changed: the circle has
/// to be opened.
impl Drop for Core {
    fn drop(&mut self) {
        self.connections.drop_all(); // leaving, they change flows once more
        // Likewise: readers are subscribers too.
        self.shared.readers = Readers::default();
        self.shared.flows.take_touched();
    }
}

impl Core {
    pub(crate) fn new(built: Built) -> Self {
        let mut core = Self {
            connections: Connections::new(&built.limits, built.proxies, &built.on_loop),
            shared: LoopState::new(built.limits, built.on_loop),
            routes: built.routes,
            rounds: Rounds::default(),
            flushed: 0,
            has_input_waited: false,
            read_by_readers: Vec::new(),
            unsettled: Vec::new(),
            resuming: Vec::new(),
            draining: None,
            #[cfg(feature = "client")]
            dial_table: DialTable::default(),
        };
        core.after_turn(Time::ZERO); // the application's timers begin
        core
    }
}

/// One turn and what follows from it.
impl Core {
    /// A turn that is concluded whatever is done in it.
    pub(super) fn turn<R>(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        act: impl FnOnce(&mut Turn<'_>) -> R,
    ) -> Option<R> {
        self.caught_turn(now, index, wire, |turn| {
            let result = act(turn);
            turn.conclude();
            result
        })
    }

    /// A turn whose `act` concludes it.
    #[inline(always)] // each kind of turn has a copy of its own anyway, and one caller
    pub(super) fn caught_turn<R>(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        act: impl FnOnce(&mut Turn<'_>) -> R,
    ) -> Option<R> {
        self.shared.now = now;
        // An event may be for a slot whose connection has gone in this very turn.
        let connection = self.connections.slab.at_mut(index)?;
        let was_pending = connection.is_pending();
        let client =
            (was_pending && self.connections.pending.is_crowded()).then(|| client_of(connection));
        let mut turn = Turn {
            connection,
            shared: &mut self.shared,
            admission: &mut self.connections.admission,
            spare_stages: &mut self.connections.spare_stages,
            routes: &self.routes,
            wire,
        };
        let result = match caught(|| act(&mut turn)) {
            Ok(result) => Some(result),
            Err(panic) => {
                turn.recover(panic);
                None
            }
        };
        debug_assert!(turn.shared.tx.is_empty(), "a turn leaves nothing behind");
        // Read before the borrow ends: most turns move nothing and settle nothing.
        let needs_settling = turn.connection.state.timing_changed;
        if was_pending && (client.is_some() || !turn.connection.is_pending()) {
            self.connections.update_pending(index, client);
        }
        if needs_settling {
            self.connections.settle(index, &mut self.shared, &self.routes);
        }
        result
    }

    /// Commands first, then the rest of the input that waited for them.
    #[inline]
    pub(super) fn finish_input(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        reading: Option<Reading>,
    ) -> Option<Reading> {
        if self.shared.has_deferred_work {
            self.finish_deferred(now, index, wire, reading)
        } else {
            reading
        }
    }

    #[inline(never)]
    fn finish_deferred(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
        mut reading: Option<Reading>,
    ) -> Option<Reading> {
        while self.shared.has_deferred_work {
            self.after_turn(now);
            let waits = self.connections.slab.at_mut(index).is_some_and(|connection| {
                connection.state.read_pause().is_some_and(|pause| pause.is_over())
            });
            // The flush comes first, so that the copies for others do not pile up.
            if waits && self.shared.must_yield() {
                self.shared.to_resume.push(index);
                return self.turn(now, index, wire, |turn| turn.reading());
            }
            if waits {
                reading = self.resume_turn(now, index, wire);
            }
        }
        reading
    }

    /// Goes on with input that waited: how the socket is read from here, if it concerns that.
    pub(super) fn resume_turn(
        &mut self,
        now: Time,
        index: u32,
        wire: &mut dyn Wire,
    ) -> Option<Reading> {
        let outcome = self.turn(now, index, wire, |turn| turn.resume());
        // A panic ends what was paused: the rest is read and dropped, and the end of the connection is seen.
        outcome.unwrap_or(Some(Reading::Continue))
    }
}

/// What hooks, timers and other threads ask of the server as a whole.
impl Core {
    /// Runs code of the application that belongs to no session. A panic in it is logged, and ends
    /// nothing but that code.
    pub(crate) fn with_server<R>(
        &mut self,
        now: Time,
        what: &str,
        act: impl FnOnce(&mut ServerRef<'_>) -> R,
    ) -> Option<R> {
        let outcome = self.run_caught(now, what, act);
        self.shared.has_deferred_work = true;
        self.after_turn(now);
        outcome
    }

    /// The same, whatever it asks of others.
    fn run_caught<R>(
        &mut self,
        now: Time,
        what: &str,
        act: impl FnOnce(&mut ServerRef<'_>) -> R,
    ) -> Option<R> {
        self.shared.now = now;
        caught(|| act(&mut ServerRef { shared: &mut self.shared }))
            .map_err(|Panicked(text)| {
                let line = || format!("{what} panicked: {text}");
                let kind = ("loop code panicked", 0);
                self.shared.warnings.line(Level::Error, Target::Server, kind, now, line);
            })
            .ok()
    }

    /// Does what the turn asked of others.
    #[inline]
    pub(super) fn after_turn(&mut self, now: Time) {
        if self.shared.has_deferred_work {
            self.do_deferred_work(now);
        }
    }

    #[cold]
    fn do_deferred_work(&mut self, now: Time) {
        self.do_commands(now);
        // What the application does with an answer may ask for more.
        while let Some(settled) = self.shared.questions.pop_settled() {
            self.run_caught(now, "answer", |server| server.tell(settled));
            self.do_commands(now);
        }
        // Those of timers that were cancelled; their slots may be armed anew below.
        while let Some(key) = self.shared.timers.pop_stale() {
            self.connections.wheel.cancel(key);
        }
        self.connections.wheel.give_back();
        let wheel = &mut self.connections.wheel;
        self.shared.timers.arm_fresh(|slot, at| wheel.arm(slot | APP_TIMER, at));
        self.shared.has_deferred_work = false;
    }

    #[allow(
        clippy::arithmetic_side_effects,
        reason = "each command was counted when it was queued"
    )]
    fn do_commands(&mut self, now: Time) {
        // Hooks of those who get a command may ask for more, which comes behind it.
        while let Some(command) = self.shared.commands.pop_front() {
            let key = command.to();
            let sends = match &command {
                Command::Send { message, .. } => Some(message.as_message().bytes().len()),
                Command::SendPrepared { counted, .. } => Some(*counted),
                _ => None,
            };
            if let Some(bytes) = sends {
                self.shared.command_bytes -= bytes;
                self.shared.copied_bytes += bytes + COPY_BYTES;
            }
            if let Command::ResumeBody(id) = command {
                self.resume_body(id);
            } else if let Command::Answer { to, number, settlement } = command {
                self.shared.deferrals.given_back();
                // The client may have left, and another have its slot.
                let unwanted = if self.connections.slab.get(to).is_some() {
                    let settle =
                        |turn: &mut Turn<'_>| DeferredTurn { turn }.settle(number, settlement);
                    self.turn(now, to.index, &mut NoWire, settle).flatten()
                } else {
                    Some(settlement)
                };
                drop_caught("a deferred answer", unwanted);
            } else if self.is_session(key) {
                self.shared.command_stamp = command.stamp();
                self.turn(now, key.index, &mut NoWire, |turn| turn.command(command));
                self.shared.command_stamp = None;
            }
        }
    }

    /// The application wants more of a body that it has paused.
    fn resume_body(&mut self, id: BodyId) {
        let Some(connection) = self.connections.slab.get_mut(id.key) else { return };
        // It may be over, and the slot be another connection's.
        let Stage::Http(http) = &mut connection.stage else { return };
        // The connection may have come to its next request.
        let receiving = http.receiving.as_deref_mut().filter(|it| it.id == id);
        if let Some(receiving) = receiving.filter(|it| it.paused_since.is_some() && !it.resumed) {
            receiving.resumed = true;
            self.shared.to_resume.push(id.key.index);
        }
    }

    fn is_session(&self, key: Key) -> bool {
        let connection = self.connections.slab.get(key);
        connection.is_some_and(|connection| matches!(connection.stage, Stage::Session(_)))
    }

    /// A token of the wheel is due: runs it if it is a timer of the application.
    pub(super) fn run_timer(&mut self, now: Time, token: u32) -> bool {
        if token & APP_TIMER == 0 {
            return false;
        }
        #[cfg(feature = "client")]
        if token & DIAL_TIMER == DIAL_TIMER {
            self.dial_table.fired(token & !DIAL_TIMER);
            return true;
        }
        if let Some((id, timer)) = self.shared.timers.fire(token & !APP_TIMER) {
            let done = self.with_server(now, "timer", |server| server.run_timer(id, timer));
            // A periodic one that panics would do so for ever.
            if done.is_none() {
                self.shared.timers.cancel(id);
            }
        }
        true
    }
}

impl Command {
    fn to(&self) -> Key {
        match self {
            Self::Send { to, .. } | Self::SendPrepared { to, .. } | Self::Close { to, .. } => *to,
            Self::Pause(to) | Self::Resume(to) | Self::NoteDropped(to) => *to,
            Self::ResumeBody(id) => id.key,
            Self::Answer { to, .. } => *to,
        }
    }

    fn stamp(&self) -> Option<u64> {
        match self {
            Self::Send { stamp, .. }
            | Self::SendPrepared { stamp, .. }
            | Self::Close { stamp, .. } => Some(*stamp),
            Self::NoteDropped(_)
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::ResumeBody(_)
            | Self::Answer { .. } => None,
        }
    }
}
