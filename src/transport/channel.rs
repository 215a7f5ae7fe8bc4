//! One connection's socket with what lies between it and the core.

use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
#[cfg(feature = "tls")]
use std::rc::Rc;

use crate::structures::wire::Wire;

#[cfg(feature = "tls")]
use super::{secured::Secured, tls::acceptor::Acceptor};

/// A socket as its owner has it: it gives and takes bytes as they are, without waiting.
pub(crate) trait Stream: Wire {
    /// Reads what is there, at most a buffer full. Less than that means that nothing more is there, but
    /// perhaps the end.
    fn receive(&mut self, buffer: &mut [u8]) -> Received;

    /// Has the socket written to at the next event.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS alone defers what is written"))]
    fn note_blocked(&mut self);
}

/// What a socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes(usize),
    Drained,
    Eof,
    Failed(ErrorKind),
}

/// What a read gave to the core.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// Bytes, or at least work that has been done for some.
    Input(Input),
    Drained,
    /// The peer has ended its side.
    Eof,
    /// The connection has ended behind no close_notify: more may have been meant to come (RFC 8446
    /// section 6.1).
    #[cfg(feature = "tls")]
    Truncated,
    /// What came first is no TLS; from here the connection is plain.
    #[cfg(feature = "tls")]
    NotTls,
    /// The peer broke TLS, or could not agree on anything. The alert is out.
    #[cfg(feature = "tls")]
    TlsFailed(Box<str>),
    /// Nothing was read: a handshake would take more than is left of this turn.
    #[cfg(feature = "tls")]
    Later,
    Failed(ErrorKind),
}

/// Bytes for the core, and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    /// How many lie at the start of the buffer.
    pub(crate) bytes: usize,
    /// How many were read for them, and the work that they made.
    pub(crate) work: usize,
    /// Whether there may be more now.
    pub(crate) more: bool,
}

/// What has changed below the core.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Bytes that are held for the connection.
    pub(crate) held: usize,
    /// A handshake is complete since this was asked last.
    pub(crate) handshake: Option<Handshake>,
}

/// How a handshake went.
#[cfg(feature = "tls")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// With certificate and signature.
    Full,
    /// By a ticket of an earlier one.
    Resumed,
}

/// A socket, plain or with TLS.
#[derive(Debug)]
pub(crate) enum Channel<S> {
    Plain(S),
    #[cfg(feature = "tls")]
    Secured(Box<Secured<S>>),
}

/// The socket itself.
impl<S> Deref for Channel<S> {
    type Target = S;

    #[inline]
    fn deref(&self) -> &S {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Secured(secured) => &secured.stream,
        }
    }
}

impl<S> DerefMut for Channel<S> {
    #[inline]
    fn deref_mut(&mut self) -> &mut S {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Secured(secured) => &mut secured.stream,
        }
    }
}

impl<S: Stream> Channel<S> {
    /// A socket of a listener, with its TLS if it has any. A PROXY header may come before that. Where no
    /// TLS can be had, the socket comes back as an error.
    #[cfg(feature = "tls")]
    pub(crate) fn new(
        stream: S,
        acceptor: Option<Rc<Acceptor>>,
        proxy_header: bool,
    ) -> Result<Self, Self> {
        let Some(acceptor) = acceptor else { return Ok(Self::Plain(stream)) };
        let Some(engine) = acceptor.engine() else { return Err(Self::Plain(stream)) };
        Ok(Self::Secured(Box::new(Secured::new(stream, engine, acceptor, proxy_header))))
    }

    /// The way to the peer.
    #[inline]
    pub(crate) fn wire(&mut self) -> &mut dyn Wire {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Secured(secured) => &mut **secured,
        }
    }

    /// Reads once, at most `room` bytes of the socket. What is for the core lies at the start of
    /// `buffer`. In a turn that is late no handshake is made.
    #[inline]
    #[cfg_attr(
        not(feature = "tls"),
        allow(unused_variables, reason = "plain reads are never late")
    )]
    pub(crate) fn read(&mut self, buffer: &mut [u8], room: usize, late: bool) -> ReadOutcome {
        let stream = match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Secured(secured) => return secured.read(buffer, room, late),
        };
        let Some(buffer) = buffer.get_mut(..room) else { return ReadOutcome::Drained };
        match stream.receive(buffer) {
            Received::Bytes(n) => ReadOutcome::Input(Input { bytes: n, work: n, more: n == room }),
            Received::Drained => ReadOutcome::Drained,
            Received::Eof => ReadOutcome::Eof,
            Received::Failed(kind) => ReadOutcome::Failed(kind),
        }
    }

    /// Sends what was accepted and has not gone out: whether all of it has now.
    #[cfg(feature = "tls")]
    pub(crate) fn flush(&mut self) -> std::io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Secured(secured) => secured.flush(),
        }
    }

    /// What has changed since this was asked last.
    #[cfg(feature = "tls")]
    #[inline]
    pub(crate) fn take_changes(&mut self) -> Option<Changes> {
        match self {
            Self::Plain(_) => None,
            Self::Secured(secured) => secured.take_changes(),
        }
    }

    /// The socket, which is to be dropped. A peer whose connection ends in order is told so.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "TLS alone has such an end"))]
    pub(crate) fn into_stream(self, in_order: bool) -> S {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Secured(mut secured) => {
                if in_order {
                    secured.say_end();
                }
                secured.stream
            }
        }
    }
}
