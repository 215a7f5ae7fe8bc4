//! Topics: what one client sends to a topic, all others on it receive.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::message::MessageBuf;
use wirewheel::{
    Accept, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message, Response,
    Session,
};

use crate::config::{Config, Overflow};

/// The most topics at once. Of those that nobody is on, only the replay is left; they make room.
const TOPICS_MAX: usize = 1024;
/// The longest name, in bytes.
const NAME_MAX: usize = 128;
/// How far a client may be behind before `--overflow` applies.
const BEHIND_MAX: usize = 64;
/// How far before it holds the senders up, if that is what is to happen.
const BEHIND_HELD: usize = 2;

/// The topics by their names.
#[derive(Debug)]
pub(crate) struct Topics {
    options: FlowOptions,
    overflow: Overflow,
    flows: RefCell<HashMap<String, SharedFlow<MessageBuf>>>,
}

impl Topics {
    /// Topics as the configuration wants them.
    pub(crate) fn of(config: &Config) -> Result<Self, String> {
        let overflow = match config.overflow {
            Overflow::Suspend => BufferOverflow::Suspend,
            // Who is to be ended for having missed something misses it first.
            Overflow::DropOldest | Overflow::Close => BufferOverflow::DropOldest,
            Overflow::DropLatest => BufferOverflow::DropLatest,
            Overflow::Latest if config.replay > 0 => {
                let text =
                    "--overflow latest gives whoever joins the newest message: give no --replay";
                return Err(text.into());
            }
            Overflow::Latest => BufferOverflow::Latest,
        };
        // A sender that is to be held up has to be before the log is full: then it would be ended. The
        // room is for those who say one message each before they are held up.
        let (behind, room) = match config.overflow {
            Overflow::Suspend => (BEHIND_HELD, config.replay.saturating_add(BEHIND_MAX)),
            _ => (BEHIND_MAX, 4),
        };
        let options = FlowOptions::new()
            .replay(config.replay)
            .extra_buffer(behind)
            .on_buffer_overflow(overflow)
            .max_bytes(config.max_message.saturating_mul(room).clamp(256 << 10, 1 << 30));
        let checked = SharedFlow::<MessageBuf>::with(options);
        checked.map_err(|error| format!("--replay {}: {error}", config.replay))?;
        Ok(Self { options, overflow: config.overflow, flows: RefCell::default() })
    }

    /// Whether a client may join, and if not, why.
    pub(crate) fn admit(&self, call: &Call) -> Result<Accept, Response> {
        let name = call.parameter("name").unwrap_or_default();
        if name.is_empty() || name.len() > NAME_MAX {
            let text = format!("a topic has a name of at most {NAME_MAX} bytes\n");
            return Err(Response::text(text).status(400));
        }
        let mut flows = self.flows.borrow_mut();
        if !flows.contains_key(&*name) && flows.len() >= TOPICS_MAX {
            flows.retain(|_, flow| flow.subscription_count() > 0);
            if flows.len() >= TOPICS_MAX {
                return Err(Response::text("too many topics\n").status(503));
            }
        }
        Ok(Accept::new())
    }

    /// A client that joins the topic it asked for.
    pub(crate) fn join(self: &Rc<Self>, call: &Call) -> Member {
        let name = call.parameter("name").unwrap_or_default();
        let mut flows = self.flows.borrow_mut();
        let flow = match flows.get(&*name) {
            Some(flow) => flow.clone(),
            // The options were checked in `of`.
            None => {
                let flow = SharedFlow::with(self.options).unwrap_or_default();
                flows.insert(name.into_owned(), flow.clone());
                flow
            }
        };
        Member { flow, overflow: self.overflow }
    }
}

/// A client on a topic.
#[derive(Debug)]
pub(crate) struct Member {
    flow: SharedFlow<MessageBuf>,
    overflow: Overflow,
}

impl Member {
    /// Under `--overflow close`: ends a session that missed something. No hook runs at the moment at
    /// which it does, as it takes nothing then; the next that runs is early enough. Who never takes
    /// anything again is ended by the server, with the same code.
    fn end_if_behind(&self, session: &mut Session<'_>) -> HandlerResult {
        if self.overflow != Overflow::Close || session.missed() == 0 {
            return Ok(());
        }
        session.close(CloseReason::new(CloseCode::TRY_AGAIN_LATER, "messages missed")?)
    }
}

impl Handler for Member {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.collect_others(&self.flow)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let message = MessageBuf::from(message);
        match self.overflow {
            // One key, so that there is one newest message.
            Overflow::Latest => session.emit_latest(&self.flow, "", &message)?,
            _ => session.emit(&self.flow, &message)?,
        }
        self.end_if_behind(session)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.end_if_behind(session)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, _rtt: Duration) -> HandlerResult {
        self.end_if_behind(session)
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        if session.missed() > 0 {
            log::debug!("{} missed {} messages", session.id(), session.missed());
        }
    }
}
