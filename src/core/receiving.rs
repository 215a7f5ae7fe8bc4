//! A request whose head was let in and whose body is on its way.

use std::fmt;
use std::time::Duration;

use crate::app::body_intake::BodyIntake;
use crate::app::call::Call;
use crate::protocol::framing::BodyFraming;
use crate::structures::ids::BodyId;
use crate::structures::progress::{Least, Window};
use crate::words::time::Time;

use crate::core::answer_terms::AnswerTerms;

/// A body on its way in.
pub(crate) struct Receiving {
    pub(super) intake: Box<dyn BodyIntake>,
    pub(super) call: Call,
    pub(super) terms: AnswerTerms,
    pub(super) id: BodyId,
    /// Its sender waits to be asked for it (RFC 9110 section 10.1.1).
    pub(super) owes_continue: bool,
    /// In which its bytes have to move.
    pub(super) window: Window,
    /// Since when the application does not want more of it.
    pub(super) paused_since: Option<Time>,
    /// It was paused, and the application wants more.
    pub(super) resumed: bool,
    /// When its sender was seen to be gone, while it is paused.
    pub(super) peer_ended: Option<Time>,
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").field("call", &self.call).finish_non_exhaustive()
    }
}

impl Receiving {
    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>().saturating_add(self.intake.memory()).saturating_add(self.call.memory())
    }

    /// The bytes that came, and those that have to come: of a chunked body, any number may.
    pub(super) fn position(&self) -> (u32, u32) {
        #[allow(clippy::cast_possible_truncation, reason = "positions are modulo 2^32")]
        let came = self.intake.received() as u32;
        match self.intake.rest() {
            BodyFraming::None => (came, 0),
            BodyFraming::Length(rest) => (came, u32::try_from(rest).unwrap_or(u32::MAX)),
            BodyFraming::Chunked => (came, u32::MAX),
        }
    }

    /// When something has to be done although nothing comes.
    pub(super) fn deadline(&self, least: Least, times: PauseTimes) -> Option<Time> {
        // While the application does not want its bytes, nobody owes any.
        let Some(since) = self.paused_since else {
            return Some(self.window.since().after(least.window));
        };
        let pause = times.pause.map(|pause| since.after(pause));
        let gone = self.peer_ended.map(|ended| ended.after(times.gone));
        Time::earlier(pause, gone)
    }
}

/// How long the application may take, and once the sender is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct PauseTimes {
    pub(super) pause: Option<Duration>,
    pub(super) gone: Duration,
}
