//! How far the messages of a session have come at the other side.

use super::content::NEWS_KEYS;

/// How far the messages of one session have come at the other side.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// The number of the next message of the session, and how many arrived.
    pub(crate) received: usize,
    pub(crate) arrived: usize,
    pub(super) next_of_flow: usize,
    /// By key, the number of the newest of the news; one more than that.
    #[cfg_attr(
        not(feature = "client"),
        allow(dead_code, reason = "for sessions that are dialled")
    )]
    pub(crate) news: [usize; NEWS_KEYS],
}

/// What of a message has come that is taken in pieces.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    pub(super) bytes: Vec<u8>,
    pub(super) pieces: usize,
    pub(super) is_text: bool,
}
