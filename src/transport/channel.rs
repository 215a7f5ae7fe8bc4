//! One connection's socket with what lies between it and the core.

#[cfg(feature = "tls")]
use std::io;
use std::ops::{Deref, DerefMut};
#[cfg(feature = "tls")]
use std::rc::Rc;

use crate::structures::wire::Wire;

use super::stream::Stream;

#[cfg(all(feature = "tls", feature = "client"))]
use super::tls::connector::TlsStart;
#[cfg(feature = "tls")]
use super::{secured::Secured, tls::acceptor::Acceptor};

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
    /// TLS can be had, the connection must not be used.
    #[cfg(feature = "tls")]
    pub(crate) fn new(
        stream: S,
        acceptor: Option<Rc<Acceptor>>,
        proxy_header: bool,
    ) -> (Self, io::Result<()>) {
        let Some(acceptor) = acceptor else { return (Self::Plain(stream), Ok(())) };
        let Some(engine) = acceptor.engine() else {
            return (Self::Plain(stream), Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let secured = Secured::new(stream, engine, acceptor.shared(), proxy_header);
        (Self::Secured(Box::new(secured)), Ok(()))
    }

    /// The same connection with the TLS of a dialer from here on. Where no handshake can begin, it must not
    /// be used.
    #[cfg(all(feature = "tls", feature = "client"))]
    pub(crate) fn secure(self, tls: &TlsStart) -> (Self, io::Result<()>) {
        let Self::Plain(stream) = self else { return (self, Ok(())) };
        let Some(engine) = tls.engine(stream.since_1970()) else {
            return (Self::Plain(stream), Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let (secured, begun) = Secured::of_client(stream, engine, tls.shared());
        (Self::Secured(Box::new(secured)), begun)
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

    /// Its TLS.
    #[cfg(feature = "tls")]
    #[inline]
    pub(crate) fn secured(&mut self) -> Option<&mut Secured<S>> {
        match self {
            Self::Plain(_) => None,
            Self::Secured(secured) => Some(secured),
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
