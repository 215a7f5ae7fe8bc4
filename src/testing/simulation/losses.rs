//! The reasons for which what was accepted did not arrive, and the faults that end a session.

use crate::words::error::SessionError;
use crate::words::time::Time;

/// Why something that was accepted did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LossCause {
    /// The outbox was full, and its policy drops or closes.
    Overflow,
    /// `process_bytes` was spent.
    OverBudget,
    /// The grace of a stop was over.
    Stopped,
    /// The peer took nothing, or too little, or its program has not read in time what its system had.
    Stalled,
    /// The peer ended, or the connection broke, or it was silent.
    Gone,
    /// The application wanted it.
    Aborted,
}

/// How often each was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LossCounts(pub(crate) [usize; 6]);

impl LossCounts {
    pub(crate) fn count(&mut self, loss: LossCause) {
        if let Some(count) = self.0.get_mut(loss as usize) {
            *count += 1;
        }
    }
}

impl std::ops::AddAssign for LossCounts {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }
}

/// What ended a session, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Time,
    pub(crate) kind: FaultKind,
}

impl Fault {
    /// Whether it says that the peer took too little in the time that it had.
    pub(super) fn is_of_progress(self) -> bool {
        matches!(self.kind, FaultKind::WriteTimeout | FaultKind::PingTimeout)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    WriteTimeout,
    PingTimeout,
    IdleTimeout,
    Overloaded,
    Network,
    /// Of what the peer sent, or of the application: no reason to lose anything.
    Other,
}

impl From<&SessionError> for FaultKind {
    fn from(error: &SessionError) -> Self {
        match error {
            SessionError::WriteTimeout => Self::WriteTimeout,
            SessionError::PingTimeout => Self::PingTimeout,
            SessionError::IdleTimeout => Self::IdleTimeout,
            SessionError::Overloaded => Self::Overloaded,
            SessionError::Network(_) => Self::Network,
            _ => Self::Other,
        }
    }
}

/// A body that was not taken to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenUp {
    pub(super) at: Time,
    pub(super) paused_at: Time,
}
