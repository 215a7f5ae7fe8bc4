//! What a server that is played was asked for.

/// What a server was asked for.
#[derive(Debug)]
pub(super) struct Request {
    /// The accept key of a handshake; `None` for a proxy that is to make a tunnel.
    pub(super) accept: Option<String>,
    /// The first extension on offer.
    pub(super) offer: Option<String>,
    /// The 101 has begun; this is left of it.
    pub(super) rest: Vec<u8>,
}
