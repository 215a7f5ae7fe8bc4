//! What dialling wants of whoever owns the sockets, and what it is told.

use std::io;
use std::net::SocketAddr;

/// One attempt of a dialer to connect: another one has another round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Attempt {
    pub(crate) dial: u32,
    pub(crate) round: u32,
}

/// Who is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    Tcp(SocketAddr),
    /// A path, or `@` and a name in Linux's abstract namespace.
    Unix(Box<str>),
}

/// What dialling wants of whoever owns the sockets. How it ends is said by `next_dialled`, also where it
/// cannot begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DialOrder {
    LookUp {
        attempt: Attempt,
        host: Box<str>,
        port: u16,
    },
    Connect {
        attempt: Attempt,
        remote: Remote,
    },
    /// Nothing of it is waited for any longer.
    Abandon(Attempt),
}

/// How something that was ordered has ended.
#[derive(Debug)]
pub(crate) enum Dialled<A> {
    Resolved(Attempt, io::Result<Vec<SocketAddr>>),
    /// No thread could be made to ask.
    NoThread(Attempt, io::Error),
    Connected(Attempt, SocketAddr, A),
    NotConnected(Attempt, SocketAddr, io::Error),
}

impl<A> Dialled<A> {
    /// The same with what a connection is to its owner.
    pub(crate) fn map<B>(self, of: impl FnOnce(A) -> B) -> Dialled<B> {
        match self {
            Self::Resolved(attempt, result) => Dialled::Resolved(attempt, result),
            Self::NoThread(attempt, error) => Dialled::NoThread(attempt, error),
            Self::Connected(attempt, peer, connection) => {
                Dialled::Connected(attempt, peer, of(connection))
            }
            Self::NotConnected(attempt, peer, error) => Dialled::NotConnected(attempt, peer, error),
        }
    }
}
