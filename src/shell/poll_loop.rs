//! Owns the event loop: the one place that waits, and the one that reads the clock.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::info;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::core::{Core, Reading};
use crate::domain::application::Built;
use crate::domain::server_ref::{Drained, StopRequest};
use crate::structures::slab::RESERVED_MAX;
use crate::words::close::CloseCode;
use crate::words::options::{LARGEST_SIZE, Limits};
use crate::words::time::Time;

use super::listen::Opened;
use super::listener::{AcceptOutcome, Listener, Reserve};
use super::mailbox::Inbox;
use super::slow::{Slow, SlowWatch};
use super::socket::{ReadOutcome, Socket};
use super::watches::{Watches, log_unwatchable};

/// Connections have their place in the slab as token; everything else counts down from the top.
const WAKER: Token = Token(usize::MAX - 1);
const SIGNALS: Token = Token(usize::MAX - 2);
const LISTENERS_TOP: usize = usize::MAX - 3;
/// More listeners than anybody has; below their tokens all are connections.
const LISTENERS_MAX: usize = 1024;
/// The application's descriptors come below.
const WATCHES_TOP: usize = LISTENERS_TOP - LISTENERS_MAX;

/// Places in the slab, which are the tokens of connections, are below; all other tokens above.
const PLACES_END: usize = 2 * LARGEST_SIZE;

/// Events taken from the system at once.
const EVENTS_PER_TURN: usize = 512;

/// The loop, and all that it owns.
pub(crate) struct PollLoop {
    poll: Poll,
    core: Core,
    limits: Limits,
    /// By place in the slab.
    sockets: Vec<Option<Socket>>,
    listeners: Vec<Listener>,
    reserve: Reserve,
    /// Sockets to be read without a new event: their budget ran out before they were drained.
    ready: VecDeque<u32>,
    /// The one read buffer.
    rx: Box<[u8]>,
    clock: Clock,
    slow: SlowWatch,
    inbox: Option<Inbox>,
    watches: Watches,
    signals: Option<Signals>,
}

/// What a connection is ready for.
#[derive(Clone, Copy, Debug)]
struct Ready {
    writable: bool,
    readable: bool,
    /// Its end is announced.
    ended: bool,
}

/// The only reader of the system's clock.
struct Clock(Instant);

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "the one place where time comes in")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.0.elapsed())
    }
}

impl PollLoop {
    pub(crate) fn new(built: Built, listeners: Vec<Opened>) -> io::Result<Self> {
        let limits = built.limits.clone();
        let poll = Poll::new()?;
        let mut registered = Vec::with_capacity(listeners.len());
        for (number, opened) in listeners.into_iter().enumerate().take(LISTENERS_MAX) {
            info!(target: "wirewheel::server", "bound to {opened}");
            let token = Token(LISTENERS_TOP - number);
            registered.push(Listener::new(opened, poll.registry(), token)?);
        }
        Ok(Self {
            poll,
            core: Core::new(built),
            // Reserved, as in the slab: it outlives the connections.
            sockets: Vec::with_capacity(limits.max_connections.min(RESERVED_MAX)),
            listeners: registered,
            reserve: Reserve::new(),
            ready: VecDeque::new(),
            rx: vec![0; limits.read_buffer_bytes].into_boxed_slice(),
            slow: SlowWatch::new(limits.slow_callback),
            limits,
            clock: Clock::start(),
            inbox: None,
            watches: Watches::new(WATCHES_TOP),
            signals: None,
        })
    }

    /// Lets other threads send orders.
    pub(crate) fn accept_orders(&mut self, inbox: Inbox) -> io::Result<()> {
        inbox.register(self.poll.registry(), WAKER)?;
        self.inbox = Some(inbox);
        Ok(())
    }

    /// Stops cleanly at SIGINT and SIGTERM; a second one stops at once.
    pub(crate) fn accept_signals(&mut self) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        self.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        self.signals = Some(signals);
        Ok(())
    }

    /// Runs until a stop is complete.
    pub(crate) fn run(&mut self) -> io::Result<Drained> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut ended = self.clock.now();
        loop {
            let timeout = self.timeout(ended);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = self.clock.now();
            self.core.note_turn();
            for event in &events {
                self.dispatch(now, event);
            }
            self.read_ready(now);
            self.accept(now);
            while let Some(index) = self.core.poll_due(now) {
                self.timed(now, index, |this| {
                    this.with_socket(index, |core, socket| {
                        core.handle_timeout(now, index, &mut socket.wire());
                    });
                });
            }
            if self.core.is_grace_over(now) {
                self.for_each(|core, index, socket| {
                    core.handle_cut(now, index, &mut socket.wire())
                });
            }
            self.flush(now);
            self.do_what_was_asked(now);
            if self.core.is_drained() {
                return Ok(self.core.drained());
            }
            ended = self.clock.now();
            let slow = self.slow.turn_ended(now, ended);
            self.note_slow(ended, slow);
        }
    }

    /// How long nothing has to be done; for ever if nothing is due.
    fn timeout(&self, now: Time) -> Option<Duration> {
        let can_accept = self.core.has_room();
        let accept_at = self.listeners.iter().filter(|listener| listener.waiting && can_accept);
        let accept_at = accept_at.map(|listener| listener.retry_at.unwrap_or(Time::ZERO)).min();
        let at_once = accept_at == Some(Time::ZERO) || self.core.has_work();
        if !self.ready.is_empty() || at_once {
            return Some(Duration::ZERO);
        }
        let next = [self.core.poll_timeout(), accept_at].into_iter().flatten().min()?;
        // The hooks of the last turn took time; the wait is from now on.
        Some(next.since(now))
    }

    /// Acts on an event of a connection; measured by itself while a slow one is hunted.
    #[inline]
    fn timed(&mut self, now: Time, index: u32, act: impl FnOnce(&mut Self)) {
        let began = self.slow.event_begins(now, index).then(|| self.clock.now());
        act(self);
        if let Some(began) = began {
            let ended = self.clock.now();
            let slow = self.slow.event_ended(began, ended);
            self.note_slow(ended, slow);
        }
    }

    #[inline]
    fn note_slow(&mut self, now: Time, slow: Option<Slow>) {
        if let Some(Slow { took, culprit }) = slow {
            self.core.note_slow(now, took, culprit);
        }
    }

    fn dispatch(&mut self, now: Time, event: &Event) {
        match event.token() {
            // First, since nearly every event is one of these.
            Token(token) if token < PLACES_END => {
                let Ok(index) = u32::try_from(token) else { return };
                let ended = event.is_read_closed() || event.is_error();
                let ready = Ready {
                    writable: event.is_writable(),
                    readable: ended || event.is_readable(),
                    ended,
                };
                self.timed(now, index, |this| this.serve(now, index, ready));
            }
            WAKER => self.take_orders(now),
            SIGNALS => self.take_signals(now),
            token if self.watches.has(token) => {
                self.watches.ready(self.poll.registry(), &mut self.core, now, event);
                self.drop_closed();
            }
            Token(token) => {
                let listener = LISTENERS_TOP.checked_sub(token);
                if let Some(listener) = listener.and_then(|number| self.listeners.get_mut(number)) {
                    listener.waiting = !listener.released;
                }
            }
        }
    }

    /// Does for a connection what it is ready for: writes, then reads until it is drained or its budget
    /// is spent.
    ///
    /// A short read drains it, so no second one is made to be told so; unless its end is announced,
    /// which only a further read shows.
    #[inline(never)]
    fn serve(&mut self, now: Time, index: u32, ready: Ready) {
        if ready.writable {
            self.write(now, index);
        }
        if !ready.readable {
            return;
        }
        let mut came = 0;
        while let Some(n) = self.read_once(now, index, ready.ended) {
            came += n;
            if came >= self.limits.read_budget_bytes {
                return self.list(index);
            }
        }
    }

    /// How many bytes came, if there may be more to read now.
    #[inline]
    fn read_once(&mut self, now: Time, index: u32, end_announced: bool) -> Option<usize> {
        let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { return None };
        let room = match socket.reading {
            Reading::Continue => self.rx.len(),
            Reading::Sparing => self.rx.len() / 2,
            Reading::Paused | Reading::Again => return None,
        };
        let n = match socket.read(self.rx.get_mut(..room).unwrap_or_default()) {
            ReadOutcome::Bytes(n) => n,
            outcome => {
                self.read_end(now, index, &outcome);
                return None;
            }
        };
        let bytes = self.rx.get_mut(..n).unwrap_or_default();
        let reading = self.core.handle_input(now, index, bytes, &mut socket.wire());
        socket.reading = reading;
        self.drop_closed();
        if reading == Reading::Again {
            self.list_to_write(index);
            return None;
        }
        (n == room || end_announced).then_some(n)
    }

    /// Acts on a read that gave nothing.
    #[inline(never)]
    fn read_end(&mut self, now: Time, index: u32, outcome: &ReadOutcome) {
        self.with_socket(index, |core, socket| match *outcome {
            ReadOutcome::Eof => core.handle_eof(now, index, &mut socket.wire()),
            ReadOutcome::Failed(kind) => core.handle_error(now, index, kind, &mut socket.wire()),
            ReadOutcome::Drained | ReadOutcome::Bytes(_) => {}
        });
    }

    #[inline]
    fn write(&mut self, now: Time, index: u32) {
        let socket = self.sockets.get(index as usize).and_then(Option::as_ref);
        if socket.is_some_and(Socket::take_blocked) {
            self.write_on(now, index);
        }
    }

    #[inline(never)]
    fn write_on(&mut self, now: Time, index: u32) {
        let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { return };
        let reading = self.core.handle_writable(now, index, &mut socket.wire());
        let resumed = !socket.reading.reads() && reading.reads();
        socket.reading = reading;
        self.drop_closed();
        if reading == Reading::Again {
            self.list_to_write(index);
        }
        if resumed {
            self.list(index); // its event may have come and gone while it was paused
        }
    }

    /// Has a socket written to in the next turn as if an event had come.
    fn list_to_write(&mut self, index: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(index as usize) {
            socket.note_blocked();
        }
        self.list(index);
    }

    /// Has a socket read in the next turn, whether an event comes or not.
    fn list(&mut self, index: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(index as usize) {
            if !socket.listed {
                socket.listed = true;
                self.ready.push_back(index);
            }
        }
    }

    /// One budget's worth of every socket that was not drained.
    fn read_ready(&mut self, now: Time) {
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { return };
            if let Some(Some(socket)) = self.sockets.get_mut(index as usize) {
                socket.listed = false;
                let ready = Ready { writable: true, readable: true, ended: true };
                self.timed(now, index, |this| this.serve(now, index, ready));
            }
        }
    }

    /// Accepts what waits, up to the budget of a turn.
    fn accept(&mut self, now: Time) {
        let mut budget = self.limits.accept_budget;
        for number in 0..self.listeners.len() {
            while budget > 0 && self.core.has_room() {
                let Some(listener) = self.listeners.get_mut(number) else { return };
                if !listener.is_due(now) {
                    break;
                }
                budget -= 1;
                match listener.accept(now, &mut self.reserve) {
                    AcceptOutcome::Connection(stream, peer) => {
                        let local = listener.address;
                        self.adopt(now, stream, peer, local);
                    }
                    AcceptOutcome::Again => {}
                    AcceptOutcome::Drained => break,
                    AcceptOutcome::Exhausted(error) => {
                        self.core.note_exhausted(now, &error);
                        break;
                    }
                }
            }
        }
    }

    fn adopt(&mut self, now: Time, stream: TcpStream, peer: SocketAddr, local: Option<SocketAddr>) {
        let Ok(index) = self.core.handle_accept(now, peer) else { return };
        self.core.note_local_addr(index, local);
        let mut socket = Socket::new(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered =
            self.poll.registry().register(socket.stream(), Token(index as usize), interest);
        let place = index as usize;
        if place >= self.sockets.len() {
            self.sockets.resize_with(place + 1, || None);
        }
        if let Err(error) = registered {
            self.core.handle_error(now, index, error.kind(), &mut socket.wire());
        } else if let Some(slot) = self.sockets.get_mut(place) {
            *slot = Some(socket);
        }
        self.drop_closed();
    }

    /// Ends those that have to go, and drops the sockets of connections that are over before their
    /// places are used again.
    #[inline]
    fn drop_closed(&mut self) {
        if self.core.has_ends() {
            self.end_and_drop();
        }
    }

    #[inline(never)]
    fn end_and_drop(&mut self) {
        while let Some(index) = self.core.poll_offender() {
            let Some(Some(socket)) = self.sockets.get(index as usize) else { break };
            self.core.handle_offender(index, &mut socket.wire());
        }
        while let Some((index, disposal)) = self.core.poll_closed() {
            if let Some(socket) = self.sockets.get_mut(index as usize).and_then(Option::take) {
                socket.dispose(disposal);
                // A descriptor is free: who waits for one need not wait for the timer.
                self.listeners.iter_mut().for_each(Listener::retry);
            }
        }
    }

    fn with_socket(&mut self, index: u32, act: impl FnOnce(&mut Core, &Socket)) {
        if let Some(Some(socket)) = self.sockets.get(index as usize) {
            act(&mut self.core, socket);
        }
        self.drop_closed();
    }

    fn for_each(&mut self, act: impl Fn(&mut Core, u32, &Socket)) {
        let mut from = 0;
        while let Some(index) = self.core.next_connection(from) {
            self.with_socket(index, |core, socket| act(core, index, socket));
            from = index + 1;
        }
    }

    /// Writes what this turn left to be written: flows, messages between sessions; and lets those
    /// go on who waited for it.
    fn flush(&mut self, now: Time) {
        self.core.begin_flush();
        while let Some(index) = self.core.poll_flush() {
            self.with_socket(index, |core, socket| {
                core.handle_flush(now, index, &mut socket.wire());
            });
        }
        self.core.end_flush();
        while let Some(index) = self.core.poll_resume() {
            self.resume(now, index);
        }
    }

    /// Has a connection take what was held, and reads it again if it is to be read.
    fn resume(&mut self, now: Time, index: u32) {
        let Some(Some(socket)) = self.sockets.get_mut(index as usize) else { return };
        let reading = self.core.handle_resume(now, index, &mut socket.wire());
        if let Some(reading) = reading {
            socket.reading = reading;
        }
        self.drop_closed();
        if reading.is_some_and(Reading::reads) {
            self.list(index); // its event may have come and gone while it was paused
        }
    }

    /// What hooks, timers and other threads asked of the loop itself.
    fn do_what_was_asked(&mut self, now: Time) {
        while let Some(watch) = self.core.poll_watch() {
            if let Err(error) = self.watches.add(self.poll.registry(), watch) {
                log_unwatchable(&error);
            }
        }
        if let Some(request) = self.core.poll_stop() {
            self.stop(now, &request);
        }
    }

    fn take_orders(&mut self, now: Time) {
        let Some(inbox) = &self.inbox else { return };
        let orders = inbox.turn();
        let stop = inbox.take_stop();
        for action in orders {
            self.core.with_server(now, "order", action);
        }
        self.drop_closed();
        if let Some(request) = stop {
            self.stop(now, &request);
        }
    }

    fn take_signals(&mut self, now: Time) {
        let Some(signals) = &mut self.signals else { return };
        let count = signals.pending().count();
        for _ in 0..count {
            let grace = if self.core.is_draining() {
                Duration::ZERO // asked twice: now
            } else {
                self.limits.grace()
            };
            // A socket that was handed over is there after this process: come back.
            let restarts = self.listeners.iter().any(|listener| listener.handed_over);
            let code = if restarts { CloseCode::SERVICE_RESTART } else { CloseCode::GOING_AWAY };
            self.stop(now, &StopRequest { code, grace });
        }
    }

    fn stop(&mut self, now: Time, request: &StopRequest) {
        self.core.begin_drain(now, request.code, request.grace);
        for listener in self.listeners.iter_mut().filter(|listener| listener.handed_over) {
            listener.release(self.poll.registry());
        }
        self.for_each(|core, index, socket| core.handle_drain(now, index, &mut socket.wire()));
        self.drop_closed(); // whom a hook's last message was too much for
    }
}
