//! Owns what sessions, timers and other threads ask of the server as a whole: commands to sessions,
//! timers of the application, a stop, descriptors to watch.

use log::Level;

use crate::context::commands::{Command, StopRequest};
use crate::context::loop_state::{NewWatch, ServerRef};
use crate::context::warnings::Target;
use crate::structures::slab::Key;
use crate::structures::wire::NoWire;
use crate::words::error::{HandlerError, SendError};
use crate::words::time::Time;

use super::Core;
use crate::core::connection::Stage;
use crate::core::panics::{Panicked, caught};
use crate::core::turn::Turn;

/// Marks the tokens of the wheel that are timers of the application.
const APP_TIMER: u32 = 1 << 31;

/// What a message for another session takes beside its bytes until it is written, about.
const COPY_BYTES: usize = 256;

impl Core {
    /// Runs code of the application that belongs to no session. A panic in it is logged, and ends
    /// nothing but that code.
    pub(crate) fn with_server<R>(
        &mut self,
        now: Time,
        what: &str,
        act: impl FnOnce(&mut ServerRef<'_>) -> R,
    ) -> Option<R> {
        self.shared.now = now;
        let outcome = caught(|| act(&mut ServerRef { shared: &mut self.shared }));
        self.shared.has_deferred_work = true;
        self.after_turn(now);
        outcome
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
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "each command was counted when it was queued"
    )]
    fn do_deferred_work(&mut self, now: Time) {
        // Hooks of those who get a command may ask for more, which comes behind it.
        while let Some(command) = self.shared.commands.pop_front() {
            let key = command.to();
            if let Command::Send { message, .. } = &command {
                let bytes = message.as_message().bytes().len();
                self.shared.command_bytes -= bytes;
                self.shared.copied_bytes += bytes + COPY_BYTES;
            }
            if self.is_session(key) {
                self.shared.command_stamp = command.stamp();
                self.turn(now, key.index, &mut NoWire, |turn| turn.command(command));
                self.shared.command_stamp = None;
            }
        }
        while let Some(key) = self.shared.timers.pop_stale() {
            self.wheel.cancel(key);
        }
        self.wheel.give_back();
        let wheel = &mut self.wheel;
        self.shared.timers.arm_fresh(|slot, at| wheel.arm(slot | APP_TIMER, at));
        self.shared.has_deferred_work = false;
    }

    fn is_session(&self, key: Key) -> bool {
        let connection = self.connections.get(key);
        connection.is_some_and(|connection| matches!(connection.stage, Stage::Session(_)))
    }

    /// A token of the wheel is due: runs it if it is a timer of the application.
    pub(super) fn run_timer(&mut self, now: Time, token: u32) -> bool {
        if token & APP_TIMER == 0 {
            return false;
        }
        if let Some((id, action)) = self.shared.timers.fire(token & !APP_TIMER) {
            let done = self.with_server(now, "timer", |server| server.run_timer(id, action));
            if done.is_none() {
                self.shared.timers.cancel(id);
            }
        }
        true
    }

    /// A stop that was asked for.
    pub(crate) fn poll_stop(&mut self) -> Option<StopRequest> {
        self.shared.stop_request.take()
    }

    /// A descriptor that is to be watched from now on.
    pub(crate) fn poll_watch(&mut self) -> Option<NewWatch> {
        self.shared.new_watches.pop()
    }
}

impl Command {
    fn to(&self) -> Key {
        match self {
            Self::Send { to, .. } | Self::Close { to, .. } => *to,
            Self::Pause(to) | Self::Resume(to) => *to,
        }
    }

    fn stamp(&self) -> Option<u64> {
        match self {
            Self::Send { stamp, .. } | Self::Close { stamp, .. } => Some(*stamp),
            Self::Pause(_) | Self::Resume(_) => None,
        }
    }
}

impl Turn<'_> {
    /// Does to this session what another part of the loop asked for.
    fn command(&mut self, command: Command) {
        let mut session = self.session();
        let result = match command {
            Command::Send { message, .. } => session.send(&message),
            Command::Close { reason, .. } => session.close(reason),
            Command::Pause(_) => {
                session.pause();
                Ok(())
            }
            Command::Resume(_) => {
                session.resume();
                Ok(())
            }
        };
        // Who sent it is not there any more: a message that is not taken is counted. What else follows
        // is for the outbox's policy, which has acted by now.
        let refused = match result {
            Err(HandlerError::Send(SendError::Closing)) => true,
            Err(HandlerError::Send(_)) => {
                session.out.note_dropped();
                true
            }
            _ => false,
        };
        self.after_hook(if refused { Ok(()) } else { result });
    }
}
