//! The order of a turn of the loop: what is called on the [`Core`], when, and what follows from it.
//!
//! Whoever owns sockets implements [`Sockets`] and keeps to what is written here. The shell does it
//! over mio; the network in memory of the tests does it too, so that what is tested is the order that
//! runs in production.
//!
//! # A turn
//!
//! 1. Wait until something happens, at most until [`Driver::next_turn`] says.
//! 2. Hand over what happened, in any order: [`Driver::event`] for a connection, [`Driver::take_orders`] for
//!    other threads, [`Driver::run`] for code of the application, [`Driver::stop`] for a stop from outside.
//! 3. Call [`Driver::turn`] once, even if nothing happened. It does, in this order:
//!
//! ```text
//!   listed sockets --> accept --> due timers --> cut --> flush --> resume --> watches, stop
//!   (left over from    (up to     (deadlines     (grace   (flows,   (held
//!    earlier turns)     a budget)  and timers)    over)    commands) input)
//! ```
//!
//! 4. If [`Core::is_drained`], the stop is complete and nothing need be called again.
//!
//! # What may be called when
//!
//! - `now` never goes back, and is the same for all calls of a turn.
//! - Spurious events do nothing: a readable socket that has nothing, a writable one nobody waits for, an
//!   event for a slot that is empty. A slot that was taken again gets the events of its predecessor as
//!   spurious ones.
//! - An event need be told only once (edge-triggered). Whatever is left to be read or written afterwards is
//!   in the driver's list, and [`Driver::next_turn`] says so.
//! - Where more has happened than was handed over, [`Sockets::has_more_events`] says so for the turn.
//! - A turn may be entered at any time: none is needed for a result to be right, only for it to be soon.
//!
//! # What must follow
//!
//! - Whatever [`Driver::next_turn`] says: it counts the core's deadlines, its unfinished work, listed
//!   sockets, and connections that can be accepted.
//! - A socket is gone when [`Sockets::dispose`] returns. It is called before its slot is given to another.
//! - The core's `handle_*` are called from here and nowhere else; each is followed by
//!   [`Driver::end_and_drop`], which ends whoever holds too much and drops what is over.
//!
//! # What is bounded
//!
//! - One connection reads at most `read_budget_bytes` at a time and then waits behind all others; one that
//!   has more to write than it may at once comes back in the next turn ([`Reading::Again`]).
//! - A connection causes at most as much work as it may read: requests, bytes inflated, compressed and
//!   produced ([`Work`](crate::context::work::Work)). The rest of its input waits for the next turn; a
//!   single message or answer is done whole.
//! - Those who were left over get together `SHARES_PER_TURN` such shares a turn, each when it is the
//!   longest that waits. Those with new events are served before them, and once they have taken as much
//!   together, each further one gets a small part of a share. So whoever says little waits for one turn,
//!   however many flood the server.
//! - One that is left over when its deadline has come gets a share first, so that no peer is out of time
//!   for what waits here.
//! - A turn accepts at most `accept_budget` connections, and writes to so many sessions in a flush.
//! - The driver holds one read buffer, and lists each socket at most once.

use std::collections::VecDeque;

use crate::app::application::Built;
use crate::context::commands::StopRequest;
use crate::context::loop_state::{Order, ServerRef};
use crate::context::mailbox::Inbox;
use crate::structures::slab::RESERVED_MAX;
use crate::structures::wire::Wire;
use crate::words::time::Time;

use crate::core::connection::Disposal;
use crate::core::handover::hand_over;
use crate::core::shared_flows::SharedFlows;
use crate::core::shares::Shares;
use crate::core::sockets::{Notes, PlainSocket, Readiness, Socket, Sockets};
#[cfg(feature = "tls")]
use crate::core::tls::TlsEvents;
use crate::core::turn::Reading;
use crate::core::turns::Core;
use crate::transport::stream::ReadOutcome;

/// The core, the sockets, and what is left over from one turn for the next.
pub(crate) struct Driver<S> {
    pub(crate) core: Core,
    pub(crate) sockets: S,
    /// Slots of sockets to be served without a new event: their budget ran out before they were drained,
    /// their event came while they were not read, or they have more to write.
    ready: VecDeque<u32>,
    /// The one read buffer.
    pub(super) rx: Box<[u8]>,
    /// The same for sockets with TLS; of no size where there are none.
    #[cfg(feature = "tls")]
    pub(super) records: Box<[u8]>,
    pub(super) shares: Shares,
    /// How many connections a turn accepts.
    pub(super) accept_budget: usize,
}

/// What happens, and the turn that ends with it.
impl<S: Sockets> Driver<S> {
    pub(crate) fn new(built: Built, sockets: S) -> Self {
        let room = built.limits.read_buffer_bytes;
        Self {
            rx: vec![0; room].into_boxed_slice(),
            #[cfg(feature = "tls")]
            records: vec![0; sockets.tls_buffer_bytes(room)].into_boxed_slice(),
            shares: Shares::new(built.limits.read_budget_bytes, room),
            accept_budget: built.limits.accept_budget,
            sockets,
            // Reserved at once: what grew behind the sessions would keep the allocator from giving them back.
            ready: VecDeque::with_capacity(built.limits.max_connections.min(RESERVED_MAX)),
            core: Core::new(built),
        }
    }

    /// When the next turn has to be, whether anything happens or not: [`Time::ZERO`] for at once, `None`
    /// for not before something happens.
    pub(crate) fn next_turn(&mut self) -> Option<Time> {
        if self.has_work() {
            return Some(Time::ZERO);
        }
        let check_at = self.sockets.next_certificate_check();
        let due_at = Time::earlier(self.core.poll_timeout(), check_at);
        let adopt_at = self.core.has_adopted().then_some(Time::ZERO);
        match adopt_at.or_else(|| self.sockets.next_accept()) {
            Some(waited_at) => Time::earlier(due_at, self.accepts_from(waited_at)),
            None => due_at,
        }
    }

    /// Whether something is left over that no event and no deadline will announce.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.core.has_work()
    }

    /// A connection is ready for something.
    #[inline]
    pub(crate) fn event(&mut self, now: Time, slot: u32, ready: Readiness) {
        if ready.ended {
            self.note_end(slot);
        }
        match self.sockets.event_begins(now, slot) {
            None => self.serve(now, slot, ready),
            Some(began) => self.serve_measured(now, slot, ready, began),
        }
    }

    /// Code of the application runs on the loop; `None` if it panicked.
    pub(crate) fn run<R>(
        &mut self,
        now: Time,
        what: &str,
        act: impl FnOnce(&mut ServerRef<'_>) -> R,
    ) -> Option<R> {
        let result = self.core.with_server(now, what, act);
        self.end_and_drop();
        result
    }

    /// What other threads have sent: orders, connections that they give back, a stop.
    pub(crate) fn take_orders(&mut self, now: Time, inbox: &Inbox<Order>) {
        let orders = inbox.turn();
        // Asked for before these orders are run, which may take long.
        let stop = inbox.take_stop();
        for parcel in inbox.take_parcels() {
            SharedFlows { core: &mut self.core }.receive(now, parcel);
        }
        inbox.take_returned().into_iter().for_each(|client| self.core.release_detached(client));
        orders.for_each(|action| _ = self.run(now, "order", action));
        #[cfg(feature = "tls")]
        if inbox.take_certificates() {
            self.core.request_reload();
        }
        if let Some(request) = stop {
            self.stop(now, &request);
        }
    }

    /// The server begins to stop: everybody is told.
    pub(crate) fn stop(&mut self, now: Time, request: &StopRequest) {
        self.core.stop_other_loops(now, request);
        self.core.begin_drain(now, request.code, request.grace);
        // Whoever shares a listener goes on with it; new connections are its business.
        self.sockets.release_listeners();
        self.for_each(|core, slot, wire| core.handle_drain(now, slot, wire));
        self.end_and_drop(); // whom a hook's last message was too much for
    }

    /// What follows from the events of a turn, and what is due.
    #[inline]
    pub(crate) fn turn(&mut self, now: Time) {
        self.core.note_turn();
        self.serve_listed(now);
        self.accept(now);
        while let Some(slot) = self.core.poll_due(now) {
            self.measured(now, slot, |this| {
                this.read_before_timeout(now, slot);
                this.with_wire(slot, |core, wire| core.handle_timeout(now, slot, wire));
            });
        }
        // After the timers: whoever was due anyway gets its own reason.
        if self.core.is_grace_over(now) {
            self.for_each(|core, slot, wire| core.handle_grace_end(now, slot, wire));
        }
        self.flush(now);
        if self.core.has_waiting_bridges() {
            SharedFlows { core: &mut self.core }.go_on();
            self.end_and_drop(); // what was published may be more than there is room for
        }
        self.do_deferred_work(now);
        #[cfg(feature = "client")]
        while super::dial_step::dial_step(now, &mut self.core, &mut self.sockets) {
            self.end_and_drop();
        }
        self.core.note_turn_end(now);
        self.begin_shares();
    }
}

/// One connection's events.
impl<S: Sockets> Driver<S> {
    /// Acts on an event of a connection; measured by itself while a slow one is hunted.
    #[inline]
    fn measured(&mut self, now: Time, slot: u32, act: impl FnOnce(&mut Self)) {
        let began = self.sockets.event_begins(now, slot);
        act(self);
        if let Some(began) = began {
            self.sockets.event_ended(&mut self.core, began);
        }
    }

    /// The same of one that is ready for something: apart, so that no other looks at the time twice.
    #[cold]
    fn serve_measured(&mut self, now: Time, slot: u32, ready: Readiness, began: Time) {
        self.serve(now, slot, ready);
        self.sockets.event_ended(&mut self.core, began);
    }

    /// Does for a connection what it is ready for: writes, then reads until it is drained or its share of
    /// the turn is spent. One that is listed has its share later in the turn, or in a later one.
    #[inline]
    fn serve(&mut self, now: Time, slot: u32, ready: Readiness) {
        if let Some(n) = self.serve_once(now, slot, ready) {
            self.read_on(now, slot, ready, n);
        }
    }

    /// Reads on after so many bytes, which were not all. Apart, so that the read that is all of an event
    /// does without a loop.
    #[inline(never)]
    fn read_on(&mut self, now: Time, slot: u32, ready: Readiness, first: usize) {
        let ready = Readiness { writable: false, ..ready }; // that has been acted on
        let mut came = first;
        let share = self.shares.each;
        while came < share && self.core.work_done() < share && !self.shares.is_late() {
            let Some(n) = self.serve_once(now, slot, ready) else { return };
            came = came.saturating_add(n);
        }
        self.list(slot);
    }

    /// The same with one read: how many bytes came, if there may be more to read now.
    ///
    /// A short read drains it, so no second one is made to be told so; unless its end is announced,
    /// which only a further read shows.
    #[inline(never)]
    fn serve_once(&mut self, now: Time, slot: u32, ready: Readiness) -> Option<usize> {
        let Some(mut socket) = self.sockets.plain(slot) else {
            #[cfg(feature = "tls")]
            return self.serve_other(now, slot, ready);
            #[cfg(not(feature = "tls"))]
            return self.leave(now, slot, ready); // which is cold: a way that the compiler need not keep short
        };
        let mut room = self.shares.room(Reading::Continue);
        if !(ready.readable && socket.notes().are_quiet()) {
            room = self.room_after(now, slot, ready)?;
            socket = self.sockets.plain(slot)?;
        }
        let buffer = self.rx.get_mut(..room)?;
        let n = match socket.read(buffer) {
            ReadOutcome::Bytes(n) => n,
            outcome => return self.read_end(now, slot, outcome),
        };
        let bytes = buffer.get_mut(..n)?;
        let reading = self.core.handle_input(now, slot, bytes, socket.wire());
        socket.notes().reading = reading;
        self.note_work(n);
        self.end_and_drop();
        if reading == Reading::Again {
            self.list_to_write(slot);
            return self.leave(now, slot, ready);
        }
        (n == room || ready.ended).then_some(n)
    }

    /// Does what comes before reading where there is more than to read: how much may be read then.
    #[inline(never)]
    pub(super) fn room_after(&mut self, now: Time, slot: u32, ready: Readiness) -> Option<usize> {
        let mut socket = self.sockets.socket(slot)?;
        if socket.notes().listed {
            return None;
        }
        if ready.writable && std::mem::take(&mut socket.notes().blocked) {
            self.write_on(now, slot);
            socket = self.sockets.socket(slot)?;
        }
        match socket.notes().reading {
            _ if !ready.readable => None,
            reading if reading.reads() => Some(self.shares.room(reading)),
            _ => self.leave(now, slot, ready),
        }
    }

    #[cold]
    fn note_end(&mut self, slot: u32) {
        if let Some(socket) = self.sockets.socket(slot) {
            socket.notes().ended = true;
        }
    }

    /// Reads nothing of a socket now.
    #[cold]
    pub(super) fn leave(&mut self, now: Time, slot: u32, ready: Readiness) -> Option<usize> {
        if ready.ended {
            self.report_end(now, slot);
        }
        None
    }

    /// Says that its end was announced where the core leaves the socket unread, so that no read will tell.
    #[cold]
    fn report_end(&mut self, now: Time, slot: u32) {
        let Some(socket) = self.sockets.socket(slot) else { return };
        if socket.notes().ended && !socket.notes().reading.reads() {
            let failure = socket.take_failure();
            self.with_wire(slot, |core, wire| core.handle_hang_up(now, slot, failure, wire));
        }
    }

    /// Acts on a read that gave nothing: there is no more now.
    #[inline(never)]
    pub(super) fn read_end(&mut self, now: Time, slot: u32, outcome: ReadOutcome) -> Option<usize> {
        self.with_wire(slot, |core, wire| match outcome {
            ReadOutcome::Eof => core.handle_eof(now, slot, wire),
            ReadOutcome::Failed(kind) => core.handle_error(now, slot, kind, wire),
            ReadOutcome::Drained | ReadOutcome::Bytes(_) => {}
        });
        None
    }

    #[inline(never)]
    pub(super) fn write_on(&mut self, now: Time, slot: u32) {
        #[cfg(feature = "tls")]
        if !self.flush_backlog(now, slot) {
            return;
        }
        let Some(socket) = self.sockets.socket(slot) else { return };
        let reading = self.core.handle_writable(now, slot, socket.wire());
        let resumed = !socket.notes().reading.reads() && reading.reads();
        socket.notes().reading = reading;
        #[cfg(feature = "tls")]
        TlsEvents { core: &mut self.core }.follow(slot, socket);
        self.note_work(0);
        self.end_and_drop();
        self.list_to_go_on(now, slot, reading, resumed);
    }

    /// Lists a socket whose connection has more to write than a share of a turn, or that is read again;
    /// says of one that is not read whether its end has come.
    fn list_to_go_on(&mut self, now: Time, slot: u32, reading: Reading, is_read_again: bool) {
        match reading {
            Reading::Again => self.list_to_write(slot),
            // Edge-triggered: its event may have come and gone while it was paused.
            _ if is_read_again => self.list(slot),
            // So may its end, which what the core waits for by now has not been told.
            Reading::Paused => self.report_end(now, slot),
            _ => {}
        }
    }

    /// Has a socket written to in the next turn as if an event had come.
    pub(super) fn list_to_write(&mut self, slot: u32) {
        if let Some(socket) = self.sockets.socket(slot) {
            socket.notes().blocked = true;
        }
        self.list(slot);
    }

    /// Has a socket served in the next turn, whether an event comes or not.
    pub(super) fn list(&mut self, slot: u32) {
        let Some(socket) = self.sockets.socket(slot) else { return };
        if !std::mem::replace(&mut socket.notes().listed, true) {
            self.ready.push_back(slot);
        }
    }

    /// What a peer sent may still wait for its turn, here or in the socket, after a hook that took long or
    /// while the machine was suspended: that is taken before a deadline is held against it.
    #[cold]
    fn read_before_timeout(&mut self, now: Time, slot: u32) {
        if self.core.is_waiting_for_its_turn(slot) {
            self.resume(now, slot);
        }
        let has_more_events = self.sockets.has_more_events();
        let Some(socket) = self.sockets.socket(slot) else { return };
        match *socket.notes() {
            // Its event may be among those that are still to come. A whole share, since what TLS keeps above
            // the socket has no event of its own.
            Notes { listed: false, .. } if has_more_events => {
                self.serve(now, slot, Readiness::READABLE);
            }
            Notes { listed: false, .. } => {}
            // It reads nothing before its output goes on.
            Notes { reading: Reading::Again, .. } => self.write_on(now, slot),
            Notes { .. } => {
                socket.notes().listed = false; // for this one read; its entry in the list is kept
                self.serve_once(now, slot, Readiness::READABLE);
                let Some(socket) = self.sockets.socket(slot) else { return };
                if std::mem::replace(&mut socket.notes().listed, true) {
                    self.ready.pop_back(); // it was put there once more
                }
            }
        }
    }

    /// What the core did just now, and what was read for it.
    #[inline]
    pub(super) fn note_work(&mut self, read: usize) {
        if let Some(share) = self.shares.note(read.wrapping_add(self.core.work_done())) {
            self.core.set_share(share);
        }
    }

    /// Each has a whole share again.
    #[inline]
    fn begin_shares(&mut self) {
        if let Some(share) = self.shares.begin() {
            self.core.set_share(share);
        }
    }

    /// A share for each of those who were left over, as long as the turn has some.
    fn serve_listed(&mut self, now: Time) {
        self.begin_shares(); // new events have had theirs
        for _ in 0..self.ready.len() {
            if self.shares.is_late() {
                return;
            }
            let Some(slot) = self.ready.pop_front() else { return };
            if let Some(socket) = self.sockets.socket(slot) {
                socket.notes().listed = false;
                self.measured(now, slot, |this| this.serve(now, slot, Readiness::ALL));
            }
        }
    }
}

/// What a turn does for everybody.
impl<S: Sockets> Driver<S> {
    /// Writes what this turn left to be written: flows, messages between sessions; and lets those
    /// go on who waited for it.
    #[inline]
    fn flush(&mut self, now: Time) {
        if self.core.begin_flush() {
            self.flush_rounds(now);
        } else {
            self.end_and_drop(); // whom a timer's last message was too much for
        }
    }

    #[inline(never)]
    fn flush_rounds(&mut self, now: Time) {
        while let Some(slot) = self.core.poll_flush() {
            self.with_wire(slot, |core, wire| core.handle_flush(now, slot, wire));
        }
        self.core.end_flush(now);
        self.end_and_drop();
        while let Some(slot) = self.core.poll_resume() {
            self.resume(now, slot);
        }
    }

    /// Has a connection take what was held, and reads it again if it is to be read.
    fn resume(&mut self, now: Time, slot: u32) {
        let Some(socket) = self.sockets.socket(slot) else { return };
        let outcome = self.core.handle_resume(now, slot, socket.wire());
        let reading = outcome.unwrap_or_else(|| socket.notes().reading); // none: others go first
        socket.notes().reading = reading;
        #[cfg(feature = "tls")]
        TlsEvents { core: &mut self.core }.follow(slot, socket);
        self.end_and_drop();
        self.list_to_go_on(now, slot, reading, outcome.is_some_and(Reading::reads));
    }

    /// What hooks, timers and other threads asked of the loop itself.
    fn do_deferred_work(&mut self, now: Time) {
        while let Some(order) = self.core.poll_watch() {
            self.sockets.watch(order);
        }
        #[cfg(feature = "tls")]
        self.keep_certificates(now);
        if let Some(request) = self.core.poll_stop() {
            self.stop(now, &request);
        }
    }

    /// Ends those that have to go, and drops the sockets of connections that are over before their
    /// slots are used again. To follow every call on the core that this driver did not make.
    #[inline(always)] // it is asked after every read, and almost always says no
    pub(crate) fn end_and_drop(&mut self) {
        if self.core.has_ends() {
            self.end_and_drop_now();
        }
    }

    #[inline(never)]
    fn end_and_drop_now(&mut self) {
        while let Some(slot) = self.core.poll_eviction() {
            // No slot without a socket; without this line a mistake would never end.
            if !self.act(slot, |core, wire| core.handle_eviction(slot, wire)) {
                break;
            }
        }
        while let Some((slot, disposal)) = self.core.poll_closed() {
            match disposal {
                Disposal::Detach => hand_over(&mut self.core, &mut self.sockets, slot),
                Disposal::Close | Disposal::Reset => self.sockets.dispose(slot, disposal),
            }
        }
    }

    #[inline]
    pub(super) fn with_wire(&mut self, slot: u32, act: impl FnOnce(&mut Core, &mut dyn Wire)) {
        self.act(slot, act);
        self.end_and_drop();
    }

    /// False if there is no socket in that slot.
    #[inline]
    fn act(&mut self, slot: u32, act: impl FnOnce(&mut Core, &mut dyn Wire)) -> bool {
        let Some(socket) = self.sockets.socket(slot) else { return false };
        act(&mut self.core, socket.wire());
        #[cfg(feature = "tls")]
        TlsEvents { core: &mut self.core }.follow(slot, socket);
        true
    }

    pub(crate) fn for_each(&mut self, act: impl Fn(&mut Core, u32, &mut dyn Wire)) {
        // By slot and not by an iterator: acting on one may end it, and others with it.
        let mut from = 0;
        while let Some(slot) = self.core.next_connection(from) {
            self.with_wire(slot, |core, wire| act(core, slot, wire));
            from = slot.saturating_add(1);
        }
    }
}
