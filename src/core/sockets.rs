//! Sockets as the driver sees them: what it asks of whoever owns them, and what it is told.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::context::detached::FreedSocket;
use crate::context::loop_state::NewWatch;
use crate::context::watch_orders::WatchOrder;
use crate::structures::wire::Wire;
use crate::words::network::ClientKey;
use crate::words::time::Time;

use crate::core::connection::Disposal;
#[cfg(feature = "client")]
use crate::core::dial_orders::{DialOrder, Dialled};
use crate::core::turn::Reading;
use crate::core::turns::Core;
#[cfg(feature = "tls")]
use crate::transport::secured::{Changes, SecuredRead};
use crate::transport::stream::ReadOutcome;
#[cfg(all(feature = "client", feature = "tls"))]
use crate::transport::tls::connector::TlsStart;

/// What the driver needs of whoever owns the sockets. They are told apart by slot, the index that the
/// core gives to each connection.
pub(crate) trait Sockets {
    /// One connection's socket.
    type Socket: Socket;
    /// A connection that was accepted and has no slot yet.
    type Accepted;

    /// The socket in a slot; `None` if it is empty.
    fn socket(&mut self, slot: u32) -> Option<&mut Self::Socket>;

    /// The socket in a slot, if it has no TLS. Told apart once for all that is done to it, since a message
    /// costs few instructions more than that.
    fn plain(&mut self, slot: u32) -> Option<&mut <Self::Socket as Socket>::Plain>;

    /// The next connection that waits.
    fn accept(&mut self, now: Time) -> Accept<Self::Accepted>;

    /// When `accept` has to be asked although no event comes; [`Time::ZERO`] for at once.
    fn next_accept(&self) -> Option<Time>;

    /// Puts a connection into its slot. It is there even if that fails; then it is broken. A PROXY
    /// header may have to come before everything else.
    fn adopt(&mut self, slot: u32, accepted: Self::Accepted, proxy_header: bool) -> io::Result<()>;

    /// A connection that somebody else has accepted, as if it had been accepted here; by the listener of
    /// that number, if it was another loop.
    fn take_over(&mut self, _fd: OwnedFd, _listener: Option<usize>) -> io::Result<Self::Accepted> {
        Err(ErrorKind::Unsupported.into())
    }

    /// A connection that was accepted here is for another loop: its socket, and the number of its listener.
    fn give_up(&mut self, _accepted: Self::Accepted) -> io::Result<(OwnedFd, Option<usize>)> {
        Err(ErrorKind::Unsupported.into())
    }

    /// The size of the buffer that its sockets with TLS need, where so much is read at once; 0 if it has
    /// none.
    #[cfg(feature = "tls")]
    fn tls_buffer_bytes(&self, read_bytes: usize) -> usize;

    /// Hangs up on a connection that gets no slot.
    fn refuse(&mut self, accepted: Self::Accepted);

    /// Drops the socket in a slot.
    fn dispose(&mut self, slot: u32, disposal: Disposal);

    /// Gives up the socket in a slot, which is the application's from here, and says how to tell that it
    /// is over. Whatever comes of it, the slot is empty.
    fn detach(&mut self, slot: u32, _client: Option<ClientKey>) -> io::Result<FreedSocket> {
        self.dispose(slot, Disposal::Close);
        Err(ErrorKind::Unsupported.into())
    }

    /// Watches a descriptor of the application, or one for something else. Its callback runs by
    /// [`Driver::run`](crate::core::driver::Driver::run), or as it does.
    fn watch(&mut self, order: WatchOrder<NewWatch>);

    /// When the certificates have to be looked at, whether anything happens or not.
    fn next_certificate_check(&self) -> Option<Time> {
        None
    }

    /// That time has come.
    #[cfg(feature = "tls")]
    fn check_certificates(&mut self, _core: &mut Core, _now: Time) {}

    /// Reads the certificates of all listeners again.
    #[cfg(feature = "tls")]
    fn reload_certificates(&mut self, _core: &mut Core, _now: Time) {}

    /// Another loop has read them.
    #[cfg(feature = "tls-client-auth")]
    fn certificates_changed(&mut self) {}

    /// Some of those whose certificate is refused since a reload, and are to go for that.
    #[cfg(feature = "tls-client-auth")]
    fn take_refused(&mut self) -> Vec<u32> {
        Vec::new()
    }

    /// Does what a dialer wants.
    #[cfg(feature = "client")]
    fn dial(&mut self, order: DialOrder);

    /// Has a connection speak TLS from here on, as a client. Where that fails it must not be used.
    #[cfg(all(feature = "client", feature = "tls"))]
    fn secure(&mut self, slot: u32, start: &TlsStart) -> io::Result<()>;

    /// The next thing that was ordered and has ended.
    #[cfg(feature = "client")]
    fn next_dialled(&mut self) -> Option<Dialled<Self::Accepted>>;

    /// A stop begins: connections on listeners that others keep are left to them.
    fn release_listeners(&mut self);

    /// Whether events of this turn are still to come: not all were handed over.
    fn has_more_events(&self) -> bool;

    /// An event of a connection is about to be acted on: the time, if it is to be measured by itself.
    #[inline]
    fn event_begins(&mut self, _now: Time, _slot: u32) -> Option<Time> {
        None
    }

    /// The event that began last is over, and is measured.
    fn event_ended(&mut self, _core: &mut Core, _began: Time) {}
}

/// One connection's socket. It takes and gives what it can without waiting.
pub(crate) trait Socket {
    /// A socket without TLS.
    type Plain: PlainSocket;

    /// The way to the peer.
    fn wire(&mut self) -> &mut dyn Wire;

    /// Reads at most `room` bytes, and puts what is plain at the start of `buffer`. In a late turn no
    /// handshake is made. Only for a socket with TLS.
    #[cfg(feature = "tls")]
    fn read_secured(&mut self, _buffer: &mut [u8], _room: usize, _late: bool) -> SecuredRead {
        SecuredRead::Drained
    }

    /// Sends the records that wait: whether all of them are out.
    #[cfg(feature = "tls")]
    fn flush_backlog(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// What has changed below the core since this was asked last.
    #[cfg(feature = "tls")]
    fn take_changes(&mut self) -> Option<Changes> {
        None
    }

    /// What the connection failed with, if it has failed and nothing has told.
    fn take_failure(&mut self) -> Option<ErrorKind>;

    /// What the driver keeps with it.
    fn notes(&mut self) -> &mut Notes;
}

/// One connection's socket without TLS.
pub(crate) trait PlainSocket: Socket {
    /// Reads what is there, at most a buffer full. Less than that means that nothing more is there, but
    /// perhaps the end.
    fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome;
}

/// What the driver notes of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    /// Whether the core wants it to be read at present.
    pub(super) reading: Reading,
    /// It stands in the list of sockets to be served without an event.
    pub(super) listed: bool,
    /// Its end was announced.
    pub(super) ended: bool,
    /// A write has taken less than it was given, or is to be made without that: a WRITABLE event is news.
    /// Without it, those events are ignored.
    pub(crate) blocked: bool,
}

impl Notes {
    /// Whether all that an event can mean is that there is something to read.
    #[inline]
    pub(super) fn are_quiet(&self) -> bool {
        // Not one after the other: they lie side by side.
        !self.listed & !self.blocked & (self.reading == Reading::Continue)
    }
}

#[cfg(all(repository, any(test, fuzzing)))]
impl Notes {
    /// Whether the socket is read.
    pub(crate) fn is_read(&self) -> bool {
        self.reading.reads()
    }

    /// Whether its connection goes on in the next turn, whatever happens.
    pub(crate) fn goes_on_by_itself(&self) -> bool {
        self.reading == Reading::Again
    }
}

impl Default for Notes {
    fn default() -> Self {
        Self { reading: Reading::Continue, listed: false, ended: false, blocked: false }
    }
}

/// What an accept gave.
pub(crate) enum Accept<A> {
    /// A connection, its peer, and the local address where that is known without asking.
    Connection(A, SocketAddr, Option<SocketAddr>),
    /// One that came to nothing; ask again.
    Again,
    /// Nobody waits.
    Drained,
    /// Descriptors or memory ran out. `next_accept` says when to ask again.
    Exhausted(io::Error),
}

/// What a connection is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub(crate) writable: bool,
    pub(crate) readable: bool,
    /// Its end is announced: the peer has shut its side, or the connection has failed.
    pub(crate) ended: bool,
}

impl Readiness {
    /// As far as anybody knows.
    pub(super) const ALL: Self = Self { writable: true, readable: true, ended: true };
    pub(super) const READABLE: Self = Self { writable: false, readable: true, ended: false };
}
