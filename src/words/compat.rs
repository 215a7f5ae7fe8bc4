//! The switches for parity with Ktor where RFC 6455 says otherwise.

/// What a server or a route allows for parity with Ktor, although RFC 6455 forbids it. All are off by
/// default; a route's value replaces what is installed.
///
/// ```
/// use wirewheel::WebSockets;
/// use wirewheel::compat::Compat;
/// let compat = Compat::new().masking(false).accept_unmasked_frames(true).lenient_rsv(true);
/// let options = WebSockets::new().compat(compat);
/// # drop(options);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    pub(crate) masking: bool,
    pub(crate) accept_unmasked_frames: bool,
    pub(crate) lenient_rsv: bool,
}

impl Compat {
    /// All off: what RFC 6455 says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Masks outgoing frames (Ktor's `masking`). RFC 6455 section 5.1 forbids it to a server, and
    /// conforming clients hang up. Default false.
    #[must_use]
    pub fn masking(self, masking: bool) -> Self {
        Self { masking, ..self }
    }

    /// Takes client frames without a mask, as Ktor does. Default false: 1002.
    #[must_use]
    pub fn accept_unmasked_frames(self, accept_unmasked_frames: bool) -> Self {
        Self { accept_unmasked_frames, ..self }
    }

    /// Takes reserved bits that no extension owns, as Ktor does, and shows them in
    /// [`Message::rsv`](crate::Message::rsv). Default false: 1002.
    #[must_use]
    pub fn lenient_rsv(self, lenient_rsv: bool) -> Self {
        Self { lenient_rsv, ..self }
    }
}
