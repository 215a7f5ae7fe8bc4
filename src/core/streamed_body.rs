//! An answer with a long body, which is sent piece by piece as the peer takes them.

use crate::app::long_body::LongBody;

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct StreamedAnswer {
    pub(super) body: LongBody,
    pub(super) sent: u64,
    /// The connection ends behind it.
    pub(crate) is_last: bool,
}

impl StreamedAnswer {
    pub(crate) fn new(body: LongBody, is_last: bool) -> Self {
        Self { body, sent: 0, is_last }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>().saturating_add(self.body.memory())
    }
}
