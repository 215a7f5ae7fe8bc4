//! A network in memory: links whose far ends are scripts, a clock that is told, and between them the
//! core with the driver that runs it in production.

mod fake_socket;
#[cfg(feature = "client")]
pub(crate) mod far_servers;
mod hosts;
mod link;
mod links;
#[cfg(feature = "client")]
mod pipes;
#[cfg(all(repository, test))]
pub(crate) mod several;
#[cfg(feature = "tls")]
pub(crate) mod tls_peer;
mod transit;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::app::application::Built;
use crate::context::commands::StopRequest;
use crate::context::loop_state::{Order, ServerRef};
use crate::context::mailbox::Inbox;
#[cfg(all(repository, any(test, fuzzing)))]
use crate::core::audit::Audit;
use crate::core::driver::Driver;
use crate::core::sockets::Readiness;
use crate::words::close::CloseCode;
use crate::words::time::Time;

pub(crate) use fake_socket::FakeSocket;
pub(crate) use hosts::Hosts;
pub(crate) use link::{HostId, Link, LinkId, PeerEnd};
pub(crate) use links::Links;
#[cfg(all(repository, any(test, fuzzing)))]
pub(crate) use transit::{Buffers, Pace, Transit};

/// Turns of the loop at one moment of the clock in which nothing happens but what is due: a reaction to
/// what was due may be due at once, but not for ever.
const ROUNDS_MAX: usize = 100;

thread_local! {
    /// What is left to chance is the same each time a test runs, and another for each of its applications.
    static NEXT_CHANCE: Cell<u64> = const { Cell::new(1) };
}

/// The core, its clock, and everybody who is connected to it.
pub(crate) struct Network {
    driver: Driver<Links>,
    pub(crate) now: Time,
    /// What other threads send, and hooks by their handles.
    inbox: Option<Inbox<Order>>,
    /// Which panics of the application are part of the test, by what they say.
    pub(crate) tolerates: fn(&str) -> bool,
    /// A stop has begun and is complete.
    pub(crate) stopped: bool,
    /// Its process was killed.
    halted: bool,
    /// When it began, by the clock that all applications have together.
    began: Time,
    /// The system hands over so many events at once, and the others with the next turns.
    pub(crate) events_per_turn: usize,
    later_events: VecDeque<(u32, Readiness)>,
}

/// What is asked of the core is asked of a network.
impl Deref for Network {
    type Target = Driver<Links>;

    fn deref(&self) -> &Driver<Links> {
        &self.driver
    }
}

impl DerefMut for Network {
    fn deref_mut(&mut self) -> &mut Driver<Links> {
        &mut self.driver
    }
}

/// What peers do.
impl Network {
    pub(crate) fn new(built: Built) -> Self {
        let mut driver = Driver::new(built, Links::default());
        driver.core.repeat_chance(NEXT_CHANCE.replace(NEXT_CHANCE.get() + 1));
        Self {
            driver,
            now: Time::ZERO,
            inbox: None,
            tolerates: |_| false,
            stopped: false,
            halted: false,
            began: Time::ZERO,
            events_per_turn: usize::MAX,
            later_events: VecDeque::new(),
        }
    }

    /// The process is killed: nothing of the application runs any more, and its system ends the connections.
    #[cfg(feature = "client")]
    fn halt(&mut self) {
        (self.stopped, self.halted) = (true, true);
        self.driver.sockets.halt();
    }

    /// What is sent to this side of a mailbox is done as soon as the network does anything.
    pub(crate) fn accept_orders(&mut self, inbox: Inbox<Order>) {
        inbox.register(Box::new(|| ()));
        self.inbox = Some(inbox);
    }

    /// A peer connects. While the server is full it waits in the backlog.
    pub(crate) fn connect(&mut self, address: SocketAddr) -> LinkId {
        let id = self.driver.sockets.connect(address);
        self.pump();
        id
    }

    /// Who connects from now on speaks TLS, and so does the listener.
    #[cfg(feature = "tls")]
    pub(crate) fn use_tls(&mut self) {
        self.use_tls_of(tls_peer::BothEnds::new(8 << 10));
    }

    #[cfg(feature = "tls")]
    pub(crate) fn use_tls_of(&mut self, ends: tls_peer::BothEnds) {
        self.driver.sockets.tls = Some(ends);
    }

    /// What the wall clock shows to whoever connects from now on.
    #[cfg(feature = "client")]
    pub(crate) fn set_wall_clock(&mut self, since_1970: Duration) {
        self.driver.sockets.since_1970 = Some(since_1970);
    }

    /// A peer connects, and so many bytes of its ClientHello are all that comes.
    #[cfg(feature = "tls")]
    #[track_caller]
    pub(crate) fn connect_in_part(&mut self, bytes: usize) -> LinkId {
        assert!(self.driver.sockets.tls.is_some(), "the application is not over_tls");
        let id = self.driver.sockets.connect(SocketAddr::from(([127, 0, 0, 1], 9_999)));
        self.link(id).keep_first(bytes);
        self.pump();
        id
    }

    /// The peer sends bytes beside its TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn send_raw(&mut self, id: LinkId, bytes: &[u8]) {
        self.link(id).send_raw(bytes);
        self.pump();
    }

    pub(crate) fn link(&mut self, id: LinkId) -> &mut Link {
        &mut self.driver.sockets.all[id]
    }

    /// How many links there ever were.
    pub(crate) fn link_count(&self) -> usize {
        self.driver.sockets.all.len()
    }

    /// The peer sends bytes.
    pub(crate) fn send(&mut self, id: LinkId, bytes: &[u8]) {
        self.link(id).send(bytes);
        self.pump();
    }

    /// The peer ends its side.
    pub(crate) fn end(&mut self, id: LinkId, end: PeerEnd) {
        self.link(id).end(end);
        self.pump();
    }

    /// Lets a peer that acts of its own see what has arrived.
    pub(crate) fn react(&mut self, id: LinkId) {
        self.link(id).react();
    }

    /// The peer's system takes so many bytes of what waits for it, and its program has them.
    #[cfg(all(repository, test))]
    pub(crate) fn acknowledge(&mut self, id: LinkId, bytes: usize) {
        self.link(id).socket.acknowledge(bytes);
        self.pump();
    }

    /// The clock moves, from deadline to deadline.
    #[cfg(all(repository, test))]
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        loop {
            self.pump();
            let next = self.next_event().filter(|&next| next <= end);
            let Some(next) = next else { break };
            self.set_now(self.now.max(next));
        }
        self.set_now(end);
    }

    /// The clock jumps without stopping at what becomes due on the way, as after a suspended machine.
    #[cfg(all(repository, test))]
    pub(crate) fn jump(&mut self, by: Duration) {
        self.set_now(self.now.after(by));
        self.pump();
    }

    fn set_now(&mut self, now: Time) {
        self.now = now;
        #[cfg(all(feature = "client", repository, any(test, fuzzing)))]
        self.driver.sockets.far.clock.set(now);
    }

    /// When something happens next of its own.
    pub(crate) fn next_event(&mut self) -> Option<Time> {
        let moves = self.driver.sockets.next_move();
        // Once the server has stopped, only what it has sent goes on.
        let turn = if self.stopped { None } else { self.driver.next_turn() };
        Time::earlier(turn, moves)
    }

    /// Code of the application runs on the loop.
    pub(crate) fn run<R>(&mut self, action: impl FnOnce(&mut ServerRef<'_>) -> R) -> Option<R> {
        assert!(!self.halted, "this application was killed");
        let result = self.driver.run(self.now, "action", action);
        self.after_turn();
        self.pump();
        result
    }

    /// The server begins to stop.
    pub(crate) fn shut_down(&mut self, code: CloseCode, grace: Duration) {
        self.driver.stop(self.now, &StopRequest { code, grace });
        // As the loop does, which hears of a stop within a turn.
        self.turn(Vec::new());
        self.pump();
    }
}

/// What the shell does.
impl Network {
    /// Lets everything happen that can happen at this moment: turns of the loop, until it would wait.
    pub(crate) fn pump(&mut self) {
        let mut idle_rounds = 0;
        loop {
            let events = self.take_events();
            if self.halted {
                return;
            }
            let has_orders = self.inbox.as_ref().is_some_and(Inbox::has_orders);
            let is_idle = events.is_empty() && !has_orders && !self.has_dialled();
            let is_due = self.driver.next_turn().is_some_and(|next| next <= self.now);
            if is_idle && (self.stopped || !is_due) {
                return;
            }
            idle_rounds = if is_idle && !self.driver.has_work() { idle_rounds + 1 } else { 0 };
            assert!(
                idle_rounds <= ROUNDS_MAX,
                "the loop would spin: something is due whatever is done"
            );
            self.turn(events);
        }
    }

    /// What the system tells at once.
    fn take_events(&mut self) -> Vec<(u32, Readiness)> {
        self.later_events.extend(self.driver.sockets.take_events(self.now));
        let most = self.later_events.len().min(self.events_per_turn);
        let events = self.later_events.drain(..most).collect();
        self.driver.sockets.has_more_events = !self.later_events.is_empty();
        events
    }

    /// Whether something has come of what was dialled, outside of a turn.
    fn has_dialled(&self) -> bool {
        #[cfg(feature = "client")]
        return !self.halted && self.driver.sockets.far.has_news();
        #[cfg(not(feature = "client"))]
        false
    }

    /// One turn of the loop, with what happened before it.
    fn turn(&mut self, events: Vec<(u32, Readiness)>) {
        for (slot, ready) in events {
            self.driver.event(self.now, slot, ready);
        }
        if let Some(inbox) = &self.inbox {
            self.driver.take_orders(self.now, inbox);
        }
        self.driver.turn(self.now);
        self.after_turn();
    }

    /// One turn of the loop, whatever is left to do behind it.
    #[cfg(all(repository, test))]
    pub(crate) fn one_turn(&mut self) {
        let events = self.take_events();
        self.turn(events);
    }

    fn after_turn(&mut self) {
        self.stopped |= self.driver.core.is_drained();
        if self.driver.core.is_over() {
            self.inbox = None; // whoever sends to it is told that it has stopped
        }
        let panic = self.driver.core.take_panic().filter(|panic| !(self.tolerates)(panic));
        if let Some(panic) = panic {
            panic!("the application panicked: {panic} (TestApplication::tolerate_panics lets it)");
        }
        self.driver.sockets.react();
    }
}

/// For the simulation.
#[cfg(all(repository, any(test, fuzzing)))]
impl Network {
    /// Whether its process was killed.
    #[cfg(feature = "client")]
    pub(crate) fn is_halted(&self) -> bool {
        self.halted
    }

    /// The slot of a link, while it has one.
    #[cfg(feature = "client")]
    pub(crate) fn slot_of(&mut self, id: LinkId) -> Option<u32> {
        self.link(id).slot
    }

    /// How many connections the server has.
    pub(crate) fn live(&self) -> usize {
        self.driver.sockets.slots.len()
    }

    /// Ends every connection at once.
    pub(crate) fn cut_all(&mut self) {
        let now = self.now;
        self.driver.for_each(|core, slot, wire| core.handle_grace_end(now, slot, wire));
        self.after_turn();
    }

    /// The books of the core agree, and each of its connections has a link.
    pub(crate) fn audit(&self) -> Result<(), String> {
        Audit(&self.driver.core).check()?;
        let mut from = 0;
        let mut count = 0;
        while let Some(slot) = self.driver.core.next_connection(from) {
            if !self.driver.sockets.slots.contains_key(&slot) {
                return Err(format!("nobody has slot {slot}"));
            }
            (from, count) = (slot + 1, count + 1);
        }
        if count == self.live() { Ok(()) } else { Err("a link without a slot".into()) }
    }

    /// Nothing more happens by itself: nobody is kept waiting who takes bytes, or who has sent some.
    pub(crate) fn check_rest(&self) -> Result<(), String> {
        if self.stopped {
            return Ok(());
        }
        let audit = Audit(&self.driver.core);
        for (&slot, &id) in &self.driver.sockets.slots {
            let link = &self.driver.sockets.all[id];
            let notes = link.driver_notes();
            let (is_read, goes_on) = (notes.is_read(), notes.goes_on_by_itself());
            if (goes_on || audit.has_more_to_write(slot)) && link.socket.is_writable() {
                return Err(format!("link {id} takes bytes, and nobody goes on with it"));
            }
            if audit.waits_for_ever(slot) {
                return Err(format!("link {id} is waited for without an end"));
            }
            if !is_read && !goes_on && !audit.may_leave_unread(slot) {
                return Err(format!("link {id} is left unread for no reason"));
            }
        }
        Ok(())
    }
}
