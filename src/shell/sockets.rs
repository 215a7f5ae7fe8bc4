//! The system's side of the loop, as the driver uses it: open sockets, listeners, watched descriptors.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
#[cfg(feature = "tls")]
use std::rc::Rc;
use std::time::Instant;

use log::info;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use socket2::{SockRef, Type};

use crate::context::detached::FreedSocket;
use crate::context::loop_state::{NewWatch, Order};
use crate::context::mailbox::Returns;
use crate::context::watch_orders::WatchOrder;
#[cfg(feature = "client")]
use crate::core::dial_orders::{DialOrder, Dialled};
use crate::core::sockets::{Accept, Sockets};
use crate::core::{Core, Disposal};
use crate::structures::places::place_at;
use crate::structures::slab::RESERVED_MAX;
use crate::transport::channel::Channel;
#[cfg(all(feature = "client", feature = "tls"))]
use crate::transport::tls::connector::TlsStart;
#[cfg(feature = "tls")]
use crate::transport::{
    secured::{Secured, buffer_bytes},
    tls::acceptor::Acceptor,
};
use crate::words::bounds::LARGEST_SIZE;
use crate::words::limits::Limits;
#[cfg(feature = "tls")]
use crate::words::limits::TLS_CONNECTION_BYTES;
use crate::words::network::ClientKey;
use crate::words::time::Time;

#[cfg(feature = "client")]
use super::dialling::Dialling;
use super::listen::{ListenerCertificates, Opened};
use super::listener::{AcceptOutcome, Listener, Reserve};
use super::slow::{Slow, SlowWatch};
use super::socket::{Socket, write_blocking};
use super::watches::{Watches, log_unwatchable};
#[cfg(feature = "tls")]
use super::{certificate_watch::watch_certificates, certificates::CertificateCare};

/// Connections have their slot as token; everything else counts down from the top. These are the loop's
/// own.
pub(super) const OWN_TOKENS: [Token; 2] = [Token(usize::MAX - 1), Token(usize::MAX - 2)];
const LISTENERS_TOP: usize = usize::MAX - 3;
/// More listeners than anybody has; below their tokens all are connections.
const LISTENERS_MAX: usize = 1024;
/// The application's descriptors come below.
const WATCHES_TOP: usize = LISTENERS_TOP - LISTENERS_MAX - 1;
/// And above those of connections that are being made.
const WATCHES_END: usize = SLOTS_END + (1 << 20);

/// What wakes the loop when names are resolved.
#[cfg(feature = "client")]
const RESOLVER: Token = Token(LISTENERS_TOP - LISTENERS_MAX);
/// Connections that are being made.
#[cfg(feature = "client")]
const CONNECTS: std::ops::Range<usize> = SLOTS_END..SLOTS_END + (1 << 20);

/// What rustls boxes for a connection at rest, measured: two expanded keys of 560 bytes, its state, queues.
#[cfg(feature = "tls")]
const RUSTLS_BOXED_BYTES: usize = 2_560;

// The ceiling that Limits promises counts on it.
#[cfg(feature = "tls")]
const _: () =
    assert!(size_of::<Secured<Socket>>() + RUSTLS_BOXED_BYTES + 16 <= TLS_CONNECTION_BYTES);

/// Slots, which are the tokens of connections, are below; all other tokens above.
pub(super) const SLOTS_END: usize = 2 * LARGEST_SIZE;

/// What a loop begins with.
#[derive(Debug)]
pub(crate) struct Beginnings {
    pub(crate) listeners: Vec<Opened>,
    pub(crate) certificates: ListenerCertificates,
    pub(crate) clock: Clock,
    /// It is the only loop, or the one that accepts.
    pub(crate) is_first: bool,
}

impl Beginnings {
    pub(crate) fn of(listeners: Vec<Opened>) -> Self {
        let certificates = ListenerCertificates::of(&listeners);
        Self { listeners, certificates, clock: Clock::start(), is_first: true }
    }

    /// Those of a further loop of the same server.
    pub(crate) fn of_another(&self) -> Self {
        let (certificates, clock) = (self.certificates.clone(), self.clock);
        Self { listeners: Vec::new(), certificates, clock, is_first: false }
    }
}

/// All that is registered with the poll, and the clock.
pub(crate) struct OpenSockets {
    pub(super) poll: Poll,
    /// It has told as much as it may at once.
    pub(super) has_more_events: bool,
    /// By slot.
    sockets: Vec<Option<Channel<Socket>>>,
    listeners: Vec<Listener>,
    /// Which is asked next.
    next_listener: usize,
    reserve: Reserve,
    watches: Watches,
    /// The TLS of each listener, by number: also where another loop listens.
    #[cfg(feature = "tls")]
    acceptors: Vec<Option<Rc<Acceptor>>>,
    /// `None` where no listener has any.
    #[cfg(feature = "tls")]
    certificates: Option<CertificateCare>,
    /// How other threads give detached connections back.
    returns: Returns<Order>,
    #[cfg(feature = "client")]
    dialling: Dialling,
    pub(super) clock: Clock,
    slow: SlowWatch,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    stream: TcpStream,
    /// The number of its listener, where it has one.
    listener: Option<usize>,
    /// The TLS of its listener.
    #[cfg(feature = "tls")]
    tls: Option<Rc<Acceptor>>,
}

impl Accepted {
    /// One that speaks no TLS.
    fn plain(stream: TcpStream) -> Self {
        Self {
            stream,
            listener: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// The only reader of the system's clock. The loops of a server have the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the one place where time comes in")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Time {
        let since = self.0.elapsed();
        // Twice in each turn, hence without asking whether it is over: that takes 584,000 years.
        let micros = since.as_secs().wrapping_mul(1_000_000);
        Time::from_micros(micros.wrapping_add(u64::from(since.subsec_micros())))
    }

    /// The same for others; `None` for what this system cannot say, which is centuries away.
    pub(super) fn instant(&self, time: Time) -> Option<Instant> {
        self.0.checked_add(time.since(Time::ZERO))
    }
}

impl OpenSockets {
    pub(super) fn new(
        limits: &Limits,
        beginnings: Beginnings,
        returns: Returns<Order>,
    ) -> io::Result<Self> {
        let Beginnings { listeners, certificates, clock, is_first } = beginnings;
        let poll = Poll::new()?;
        let mut registered = Vec::with_capacity(listeners.len());
        for (number, opened) in listeners.into_iter().enumerate().take(LISTENERS_MAX) {
            info!(target: "wirewheel::server", "bound to {opened}");
            let token = Token(LISTENERS_TOP - number);
            registered.push(Listener::new(opened, poll.registry(), token)?);
        }
        let watches = Watches::new(WATCHES_END..=WATCHES_TOP);
        #[cfg(feature = "tls")]
        let acceptors = certificates.acceptors(limits.max_head_bytes);
        #[cfg(feature = "tls")]
        let watches = match is_first {
            true => watch_certificates(watches, poll.registry(), &acceptors),
            false => watches,
        };
        #[cfg(feature = "tls")]
        let has_tls = acceptors.iter().any(Option::is_some);
        #[cfg(not(feature = "tls"))]
        let _ = (certificates, is_first);
        Ok(Self {
            poll,
            has_more_events: false,
            // Reserved, as in the slab: it outlives the connections.
            sockets: Vec::with_capacity(limits.max_connections.min(RESERVED_MAX)),
            #[cfg(feature = "tls")]
            // Looked at once they are watched: between `bind` and this nobody has seen a change.
            certificates: has_tls.then(|| {
                let are_old = is_first && acceptors.iter().flatten().any(|it| it.is_outdated());
                CertificateCare::new(is_first, are_old)
            }),
            #[cfg(feature = "tls")]
            acceptors,
            listeners: registered,
            next_listener: 0,
            reserve: Reserve::new(),
            watches,
            returns,
            #[cfg(feature = "client")]
            dialling: Dialling::new(RESOLVER, CONNECTS),
            clock,
            slow: SlowWatch::new(limits.slow_callback),
        })
    }

    /// An event that is neither a connection's nor the loop's own.
    pub(super) fn other_event(&mut self, core: &mut Core, now: Time, event: &Event) {
        let token = event.token();
        #[cfg(feature = "client")]
        if self.dialling.ready(self.poll.registry(), token) {
            return;
        }
        if self.watches.has(token) {
            return self.watches.ready(self.poll.registry(), core, now, event);
        }
        let number = LISTENERS_TOP.checked_sub(token.0);
        if let Some(listener) = number.and_then(|number| self.listeners.get_mut(number)) {
            listener.waiting = !listener.released;
        }
    }

    /// Nobody is served any more, and nobody comes.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.sockets.clear();
    }

    /// Whether a listener is there after this process: those who are told to leave may come back.
    pub(super) fn has_handed_over(&self) -> bool {
        self.listeners.iter().any(|listener| listener.handed_over)
    }

    /// The TLS of those listeners that have any.
    #[cfg(feature = "tls")]
    fn acceptors(&self) -> Vec<Rc<Acceptor>> {
        self.acceptors.iter().flatten().cloned().collect()
    }

    /// A turn is over; what blocked the loop for too long is noted.
    pub(super) fn turn_ended(&mut self, core: &mut Core, began: Time, ended: Time) {
        let slow = self.slow.turn_ended(began, ended);
        note_slow(core, ended, slow);
    }
}

#[inline]
fn note_slow(core: &mut Core, now: Time, slow: Option<Slow>) {
    if let Some(Slow { took, culprit }) = slow {
        core.note_slow(now, took, culprit);
    }
}

impl Sockets for OpenSockets {
    type Socket = Channel<Socket>;
    type Accepted = Accepted;

    #[inline]
    fn socket(&mut self, slot: u32) -> Option<&mut Channel<Socket>> {
        self.sockets.get_mut(slot as usize)?.as_mut()
    }

    #[inline]
    fn plain(&mut self, slot: u32) -> Option<&mut Socket> {
        match self.sockets.get_mut(slot as usize) {
            Some(Some(Channel::Plain(socket))) => Some(socket),
            _ => None,
        }
    }

    #[cfg(feature = "tls")]
    fn tls_buffer_bytes(&self, read_bytes: usize) -> usize {
        if self.certificates.is_some() { buffer_bytes(read_bytes) } else { 0 }
    }

    fn has_more_events(&self) -> bool {
        self.has_more_events
    }

    fn accept(&mut self, now: Time) -> Accept<Accepted> {
        for _ in 0..self.listeners.len() {
            // Each in its turn, so that a crowd at one keeps nobody out at the others.
            let number = self.next_listener;
            self.next_listener = (number + 1) % self.listeners.len();
            let due = self.listeners.get_mut(number).filter(|listener| listener.is_due(now));
            let Some(listener) = due else { continue };
            return match listener.accept(now, &mut self.reserve) {
                AcceptOutcome::Connection(stream, peer) => {
                    let accepted = Accepted {
                        stream,
                        listener: Some(number),
                        #[cfg(feature = "tls")]
                        tls: self.acceptors.get(number).cloned().flatten(),
                    };
                    Accept::Connection(accepted, peer, listener.address)
                }
                AcceptOutcome::Again => Accept::Again,
                AcceptOutcome::Exhausted(error) => Accept::Exhausted(error),
                AcceptOutcome::Drained => continue,
            };
        }
        Accept::Drained
    }

    fn next_accept(&self) -> Option<Time> {
        let waiting = self.listeners.iter().filter(|listener| listener.waiting);
        waiting.map(|listener| listener.retry_at.unwrap_or(Time::ZERO)).min()
    }

    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "only TLS comes behind it"))]
    fn adopt(&mut self, slot: u32, accepted: Accepted, proxy_header: bool) -> io::Result<()> {
        let index = slot as usize;
        let mut stream = accepted.stream;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut stream, Token(index), interest);
        let socket = Socket::new(stream);
        #[cfg(not(feature = "tls"))]
        let (channel, secured) = (Channel::Plain(socket), Ok(()));
        #[cfg(feature = "tls")]
        let (channel, secured) = Channel::new(socket, accepted.tls, proxy_header);
        if let Some(empty) = place_at(&mut self.sockets, index) {
            *empty = Some(channel);
        }
        registered.and(secured)
    }

    fn take_over(&mut self, fd: OwnedFd, listener: Option<usize>) -> io::Result<Accepted> {
        let socket = SockRef::from(&fd);
        // A listening one is a stream socket too, of which nothing would ever come.
        if socket.r#type()? != Type::STREAM || socket.is_listener()? {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is no stream connection"));
        }
        socket.set_nonblocking(true)?;
        // The calls made on a stream are the same for TCP and Unix, so one type serves.
        let accepted = Accepted::plain(TcpStream::from(fd));
        Ok(Accepted {
            listener,
            #[cfg(feature = "tls")]
            tls: listener.and_then(|number| self.acceptors.get(number)?.clone()),
            ..accepted
        })
    }

    fn give_up(&mut self, accepted: Accepted) -> io::Result<(OwnedFd, Option<usize>)> {
        Ok((accepted.stream.into(), accepted.listener))
    }

    fn refuse(&mut self, accepted: Accepted) {
        drop(accepted);
    }

    fn dispose(&mut self, slot: u32, disposal: Disposal) {
        if let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::take) {
            socket.into_stream(disposal == Disposal::Close).dispose(disposal);
            // A descriptor is free: who waits for one need not wait for the timer.
            self.listeners.iter_mut().for_each(Listener::retry);
        }
    }

    fn detach(&mut self, slot: u32, client: Option<ClientKey>) -> io::Result<FreedSocket> {
        let gone = || io::Error::from(ErrorKind::NotConnected);
        let socket = self.sockets.get_mut(slot as usize).and_then(Option::take).ok_or_else(gone)?;
        let returns = self.returns.clone();
        let fd = socket.into_stream(false).detach(self.poll.registry())?;
        let release = Box::new(move || returns.send(client));
        Ok(FreedSocket { fd, write_blocking, release })
    }

    fn watch(&mut self, order: WatchOrder<NewWatch>) {
        let registry = self.poll.registry();
        let done = match order {
            WatchOrder::Begin(id, watch) => self.watches.add(registry, id, watch),
            WatchOrder::Change(id, interest) => self.watches.change(registry, id, interest),
        };
        if let Err(error) = done {
            log_unwatchable(&error);
        }
    }

    #[cfg(feature = "tls")]
    fn next_certificate_check(&self) -> Option<Time> {
        self.certificates.as_ref().and_then(CertificateCare::next_check)
    }

    #[cfg(feature = "tls")]
    fn check_certificates(&mut self, core: &mut Core, now: Time) {
        let acceptors = self.acceptors();
        if let Some(certificates) = &mut self.certificates {
            certificates.check(core, now, &acceptors);
        }
    }

    #[cfg(feature = "tls")]
    fn reload_certificates(&mut self, core: &mut Core, now: Time) {
        let acceptors = self.acceptors();
        if let Some(certificates) = &mut self.certificates {
            certificates.reload(core, now, &acceptors);
        }
    }

    #[cfg(feature = "tls-client-auth")]
    fn certificates_changed(&mut self) {
        let acceptors = self.acceptors();
        if let Some(certificates) = &mut self.certificates {
            certificates.changed(&acceptors);
        }
    }

    #[cfg(feature = "tls-client-auth")]
    fn take_refused(&mut self) -> Vec<u32> {
        if !self.certificates.as_ref().is_some_and(CertificateCare::judges) {
            return Vec::new();
        }
        let acceptors = self.acceptors();
        let certificates = self.certificates.as_mut();
        certificates.map_or_else(Vec::new, |it| it.rejudge(&self.sockets, &acceptors))
    }

    #[cfg(feature = "client")]
    fn dial(&mut self, order: DialOrder) {
        self.dialling.order(self.poll.registry(), order);
    }

    #[cfg(all(feature = "client", feature = "tls"))]
    fn secure(&mut self, slot: u32, start: &TlsStart) -> io::Result<()> {
        let Some(entry) = self.sockets.get_mut(slot as usize) else { return Ok(()) };
        let Some(channel) = entry.take() else { return Ok(()) };
        let (channel, begun) = channel.secure(start);
        *entry = Some(channel);
        begun
    }

    #[cfg(feature = "client")]
    fn next_dialled(&mut self) -> Option<Dialled<Accepted>> {
        self.dialling.next().map(|dialled| dialled.map(Accepted::plain))
    }

    fn release_listeners(&mut self) {
        for listener in self.listeners.iter_mut().filter(|listener| listener.handed_over) {
            listener.release(self.poll.registry());
        }
    }

    #[inline]
    fn event_begins(&mut self, now: Time, slot: u32) -> Option<Time> {
        self.slow.event_begins(now, slot).then(|| self.clock.now())
    }

    fn event_ended(&mut self, core: &mut Core, began: Time) {
        let ended = self.clock.now();
        let slow = self.slow.event_ended(began, ended);
        note_slow(core, ended, slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::mailbox::Mailbox;
    use crate::words::listen::ListenOptions;

    #[test]
    fn who_comes_to_one_listener_is_not_behind_all_who_come_to_another() {
        let open = |_| Opened::open("127.0.0.1:0".into(), &ListenOptions::new()).unwrap().remove(0);
        let opened: Vec<Opened> = (0..2).map(open).collect();
        let [crowded, quiet] = [opened[0].address, opened[1].address];
        let returns = Mailbox::default().returns();
        let limits = Limits::new();
        let mut sockets = OpenSockets::new(&limits, Beginnings::of(opened), returns).unwrap();
        let clients = [crowded, crowded, crowded, quiet].map(std::net::TcpStream::connect);
        assert!(clients.iter().all(Result::is_ok));
        let mut accepted = || match sockets.accept(Time::ZERO) {
            Accept::Connection(_, _, local) => local,
            _ => None,
        };
        assert_eq!([accepted(), accepted(), accepted()], [crowded, quiet, crowded].map(Some));
    }
}
