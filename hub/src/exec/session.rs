//! A session with its program.

use std::rc::Rc;

use wirewheel::{Call, CloseInfo, Handler, HandlerResult, Message, Session};

use super::Processes;

#[derive(Debug)]
pub(crate) struct Attached {
    processes: Rc<Processes>,
    /// The number of its program, once it was started.
    number: Option<u64>,
}

impl Attached {
    pub(super) fn new(processes: Rc<Processes>) -> Self {
        Self { processes, number: None }
    }
}

impl Handler for Attached {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let (number, lines) = self.processes.start(session.id(), call)?;
        self.number = Some(number);
        session.collect(&lines)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let Some(number) = self.number else { return Ok(()) };
        if !self.processes.message(number, message.bytes()) {
            // It does not read: neither is the peer read, until it does.
            session.pause();
        }
        Ok(())
    }

    fn on_drain(&mut self, _session: &mut Session<'_>) -> HandlerResult {
        if let Some(number) = self.number {
            self.processes.drained(number);
        }
        Ok(())
    }

    fn on_close(&mut self, _session: &mut Session<'_>, _close: &CloseInfo) {
        if let Some(number) = self.number {
            self.processes.peer_left(number);
        }
    }
}
