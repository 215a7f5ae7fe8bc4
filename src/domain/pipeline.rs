//! Owns what a session has that looks below messages: the frames in progress, and whether its handler
//! is raw.

use crate::protocol::pieces::{Assembly, Progress};

/// Present in a raw session, absent in one that needs nothing but messages.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) raw: bool,
    pub(crate) progress: Option<Box<Progress>>,
}

impl Pipeline {
    /// What a new session needs of it.
    pub(crate) fn for_session(raw: bool) -> Option<Box<Self>> {
        raw.then(|| Box::new(Self { raw, progress: None }))
    }

    /// Which frames are put together before they are looked at.
    pub(crate) fn assembly(&self) -> Assembly {
        if self.raw { Assembly::EveryFrame } else { Assembly::ControlOnly }
    }

    /// Bytes held for what is unfinished.
    pub(crate) fn memory(&self) -> usize {
        self.progress.as_deref().map_or(0, Progress::memory)
    }
}
