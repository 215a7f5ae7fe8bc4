//! The state of a loop that all its sessions share while one of them runs, and the callbacks that it
//! keeps. These are lent the state as a [`ServerRef`], so the types stand together.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::protocol::server_sent_events::EventId;
use crate::structures::ids::SessionId;
use crate::structures::slab::{GenerationBits, Key};
use crate::structures::wire::Wire;
use crate::words::error::AskError;
use crate::words::limits::{Limits, OVER_LIMIT_MAX};
use crate::words::message::Message;
use crate::words::time::Time;

use crate::context::bridges::Bridges;
use crate::context::commands::{Command, Drained, StopRequest};
use crate::context::date_line::DateLine;
use crate::context::deferrals::Deferrals;
use crate::context::detached::Handover;
#[cfg(feature = "client")]
use crate::context::dialers::Dialers;
use crate::context::loops::Place;
use crate::context::mailbox::Mailbox;
use crate::context::mask_source::MaskSource;
use crate::context::names::Names;
use crate::context::open_sessions::OpenSessions;
use crate::context::questions::Questions;
use crate::context::readers::Readers;
use crate::context::spare::Spare;
use crate::context::stats::{Counters, Stats};
use crate::context::timers::Timers;
use crate::context::warnings::Warnings;
use crate::context::watch::{Ready, Watch};
use crate::context::watch_orders::WatchOrders;
use crate::context::work::Work;
use crate::flow::inner::Flows;
use crate::flow::key::FlowNames;
use crate::flow::reader::{Batch, Taken};
#[cfg(feature = "json")]
use crate::protocol::content::Converter;

/// What other threads send to be run on the loop.
pub(crate) type Order = Box<dyn FnOnce(&mut ServerRef<'_>) + Send>;

/// The place of a loop among several of one server.
pub(crate) type LoopPlace = Place<Order>;

/// What the application does with the answer to a question.
pub(crate) type Then = Box<dyn FnOnce(&mut ServerRef<'_>, Result<Message<'_>, AskError>)>;

/// What a reader of a flow does with what it is offered.
pub(crate) type ReadFlow = Box<dyn FnMut(&mut ServerRef<'_>, &mut Batch<'_>) -> Taken>;

/// What an application sets up on the loop beside its routes.
#[derive(Debug, Default)]
pub(crate) struct OnLoop {
    /// What its ids have, so that no other loop or server of the process has the same.
    pub(crate) bits: GenerationBits,
    pub(crate) timers: Timers<TimerAction>,
    pub(crate) watches: WatchOrders<NewWatch>,
    pub(crate) flow_names: FlowNames,
    pub(crate) readers: Readers<ReadFlow>,
    pub(crate) stop_hooks: StopHooks,
    /// How other threads reach the loop, and where it listens, which their handles say.
    pub(crate) mailbox: Mailbox<Order>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// `None` where there is but one loop.
    pub(crate) place: Option<LoopPlace>,
    /// The flows that it shares with other loops.
    pub(crate) bridges: Bridges,
    #[cfg(feature = "client")]
    pub(crate) dialers: Rc<Dialers>,
    #[cfg(feature = "json")]
    pub(crate) converters: Converters,
}

/// What turns values into messages, for each route.
#[cfg(feature = "json")]
#[derive(Debug, Default)]
pub(crate) struct Converters {
    pub(crate) of_routes: Vec<Converter>,
    /// Those of dialled sessions, by their route.
    #[cfg(feature = "client")]
    pub(crate) of_dialled: std::collections::BTreeMap<u16, Converter>,
}

/// The loop's own: the present time, the buffer of the turn, the limits, the account of memory.
#[derive(Debug)]
pub(crate) struct LoopState {
    /// The time of this turn.
    pub(crate) now: Time,
    /// What the session that runs now sends. Invariant: empty between turns.
    pub(crate) tx: Vec<u8>,
    /// How many bytes at the start of `tx` are no frames but an HTTP answer.
    pub(crate) opaque_prefix: usize,
    /// `tx` is written as soon as it is this long.
    pub(crate) tx_flush_bytes: usize,
    /// What every answer says of the time.
    pub(crate) date: DateLine,
    pub(crate) limits: Limits,
    /// Bytes held by all connections in partial messages and outboxes, by names and by open questions.
    pub(crate) bytes_held: usize,
    /// Buffers of large messages that are kept for the next ones.
    pub(crate) spare: Spare,
    pub(crate) sessions: OpenSessions,
    pub(crate) names: Names,
    pub(crate) questions: Questions<Then>,
    /// The answers that come later, and how other threads reach the loop.
    pub(crate) deferrals: Rc<Deferrals<Order>>,
    /// Something was asked of others or of the wheel: it is done after the turn.
    pub(crate) has_deferred_work: bool,
    /// What hooks and timers asked of sessions that are not their own, in order.
    pub(crate) commands: VecDeque<Command>,
    /// The place in the order of what is sent that the present command had when it was asked for.
    pub(crate) command_stamp: Option<u64>,
    /// What commands have copied for others since these were last written to.
    pub(crate) copied_bytes: usize,
    /// What the connection whose turn it is has caused in it.
    pub(crate) work: Work,
    /// Bytes of the messages in `commands`.
    pub(crate) command_bytes: usize,
    /// Sessions with something to write that nothing else would have written, by slot.
    pub(crate) to_flush: Vec<u32>,
    /// Sessions that may be read again, by slot.
    pub(crate) to_resume: Vec<u32>,
    /// What was done in this turn to hand on flow messages, beside the ordinary: a session to which
    /// one message goes.
    pub(crate) pull_work: usize,
    pub(crate) flows: Rc<Flows>,
    pub(crate) flow_names: FlowNames,
    pub(crate) readers: Readers<ReadFlow>,
    pub(crate) timers: Timers<TimerAction>,
    pub(crate) stop_request: Option<StopRequest>,
    /// Certificates are to be read again.
    #[cfg(feature = "tls")]
    pub(crate) reload_requested: bool,
    /// Empty once a stop has begun.
    pub(crate) stop_hooks: StopHooks,
    /// The server stops: requests are refused.
    pub(crate) draining: bool,
    /// How sessions ended since a stop began.
    pub(crate) drained: Drained,
    pub(crate) watches: WatchOrders<NewWatch>,
    /// Connections that are over here, and whose sockets the application is to have.
    pub(crate) handovers: Vec<Handover>,
    pub(crate) masks: MaskSource,
    pub(crate) addresses: Vec<SocketAddr>,
    /// `None` where there is but one loop.
    pub(crate) place: Option<LoopPlace>,
    /// The flows that it shares with other loops.
    pub(crate) bridges: Bridges,
    #[cfg(feature = "client")]
    pub(crate) dialers: Rc<Dialers>,
    /// Slots of connections that were dialled, and on which something has arrived.
    #[cfg(feature = "client")]
    pub(crate) dial_input: Vec<u32>,
    pub(crate) warnings: Warnings,
    /// What the client of an event stream had last, while that stream begins.
    pub(crate) last_event: Option<(SessionId, EventId)>,
    /// What was counted; [`LoopState::snapshot`] fills in what is looked up.
    pub(crate) stats: Counters,
    #[cfg(feature = "json")]
    pub(crate) converters: Converters,
}

impl OnLoop {
    /// One whose ids have these bits; before anything is in it.
    pub(crate) fn begin_at(&mut self, bits: GenerationBits) {
        self.bits = bits;
        self.timers = Timers::of_loop(bits);
        self.watches = WatchOrders::of_loop(bits);
        self.flow_names = FlowNames::of_loop(bits);
        self.readers = Readers::of_loop(bits);
        #[cfg(feature = "client")]
        (self.dialers = Rc::new(Dialers::of_loop(bits)));
    }

    /// The pool of this server, to which the flows belong that have a name.
    fn pool(&mut self, process_bytes: usize) -> Rc<Flows> {
        let pool = Rc::new(Flows::new(process_bytes));
        self.flow_names.flows().for_each(|flow| flow.belong_to(&pool));
        self.readers.begin(&pool);
        pool
    }
}

impl LoopState {
    pub(crate) fn new(limits: Limits, mut on_loop: OnLoop) -> Self {
        Self {
            now: Time::ZERO,
            // Reserved at once: what grew behind the sessions would keep the allocator from giving them back.
            tx: Vec::with_capacity(limits.read_buffer_bytes),
            opaque_prefix: 0,
            date: DateLine::default(),
            tx_flush_bytes: limits.read_buffer_bytes,
            flows: on_loop.pool(limits.process_bytes),
            sessions: OpenSessions::for_slots(limits.max_connections + 64), // and for those that are refused
            work: Work::new(limits.read_budget_bytes),
            spare: Spare::new(limits.process_bytes),
            deferrals: Rc::new(Deferrals::new(limits.max_deferred, on_loop.mailbox)),
            limits,
            names: Names::default(),
            place: on_loop.place,
            bridges: on_loop.bridges,
            questions: Questions::default(),
            bytes_held: 0,
            has_deferred_work: true, // the application's timers are not on the wheel yet
            commands: VecDeque::new(),
            command_stamp: None,
            copied_bytes: 0,
            command_bytes: 0,
            to_flush: Vec::new(),
            to_resume: Vec::new(),
            pull_work: 0,
            flow_names: on_loop.flow_names,
            readers: on_loop.readers,
            timers: on_loop.timers,
            stop_request: None,
            #[cfg(feature = "tls")]
            reload_requested: false,
            stop_hooks: on_loop.stop_hooks,
            draining: false,
            drained: Drained::default(),
            watches: on_loop.watches,
            handovers: Vec::new(),
            masks: MaskSource::default(),
            addresses: on_loop.addresses,
            #[cfg(feature = "client")]
            dialers: on_loop.dialers,
            #[cfg(feature = "client")]
            dial_input: Vec::new(),
            warnings: Warnings::default(),
            last_event: None,
            stats: Counters::default(),
            #[cfg(feature = "json")]
            converters: on_loop.converters,
        }
    }

    /// Bytes that connections and flows hold.
    pub(crate) fn memory(&self) -> usize {
        self.bytes_held + self.flows.bytes()
    }

    /// Whether the rest of a session's input has to wait for the others: so much was copied for them
    /// that they are to be written to before further messages bring further copies, or this session
    /// has had its share of the turn.
    #[inline]
    pub(crate) fn must_yield(&self) -> bool {
        self.copies_wait() || self.work.is_spent()
    }

    /// The same where the connection's share cannot be spent yet.
    #[inline]
    pub(crate) fn copies_wait(&self) -> bool {
        self.copied_bytes >= self.tx_flush_bytes
    }

    /// Counts work of the present connection. Once its share is spent, its input is looked at no
    /// further in this turn.
    pub(crate) fn spend(&mut self, work: usize) {
        if self.work.add(work) {
            self.has_deferred_work = true; // what every loop over input stops at
        }
    }

    /// The converter of a route.
    #[cfg(feature = "json")]
    pub(crate) fn converter_of(&self, route: u16) -> Option<&Converter> {
        let converter = self.converters.of_routes.get(usize::from(route));
        #[cfg(feature = "client")]
        let converter = converter.or_else(|| self.converters.of_dialled.get(&route));
        converter
    }

    /// How many commands may be pending: room for two to each session.
    pub(crate) fn commands_max(&self) -> usize {
        self.limits.max_connections.saturating_mul(2).max(1024)
    }

    /// Has the session in this slot flushed after the turn; `listed` is its flag.
    pub(crate) fn list_for_flush(&mut self, index: u32, listed: &mut bool) {
        if !*listed {
            *listed = true;
            self.to_flush.push(index);
        }
    }

    /// Accounts for a connection that held `before` bytes and now holds `after`.
    pub(crate) fn account(&mut self, before: usize, after: usize) {
        self.bytes_held = self.bytes_held.saturating_sub(before).saturating_add(after);
        self.flows.note_connections(self.bytes_held);
    }

    /// Changes names or questions. What they take counts as what connections hold does: peers have a say in
    /// it.
    pub(crate) fn with_names_and_questions<R>(
        &mut self,
        change: impl FnOnce(&mut Names, &mut Questions<Then>) -> R,
    ) -> R {
        let before = self.names.bytes().saturating_add(self.questions.bytes());
        let result = change(&mut self.names, &mut self.questions);
        self.account(before, self.names.bytes().saturating_add(self.questions.bytes()));
        result
    }

    /// A session is over: it is among the open ones no longer, nor has a name, nor answers anything.
    pub(crate) fn session_ended(&mut self, session: Key) {
        self.sessions.remove(session);
        let name = self.with_names_and_questions(|names, _| names.remove(session));
        if let (Some(name), Some(place)) = (name, &self.place) {
            place.drop_name(&name, session);
        }
        while let Some(timer) =
            self.with_names_and_questions(|_, questions| questions.settle_ended(session))
        {
            self.timers.cancel(timer);
            self.has_deferred_work = true;
        }
    }

    /// Writes what the turn has gathered. If all went out, nothing is left to do; else how much did,
    /// and what was gathered is still there.
    pub(crate) fn write_out(&mut self, wire: &mut dyn Wire) -> Option<io::Result<usize>> {
        let outcome = self.write_short_out(wire);
        if outcome.is_none() {
            self.shrink_out();
        }
        outcome
    }

    /// The same of what cannot have made the buffer large.
    #[inline]
    pub(crate) fn write_short_out(&mut self, wire: &mut dyn Wire) -> Option<io::Result<usize>> {
        let offered = self.tx.len();
        if offered == 0 {
            return None;
        }
        match write_counted(&mut self.stats, wire, &self.tx) {
            Ok(written) if written == offered => {
                self.forget_gathered();
                None
            }
            outcome => Some(outcome),
        }
    }

    /// Forgets what the turn has gathered.
    #[inline]
    pub(crate) fn forget_gathered(&mut self) {
        self.tx.clear();
        self.opaque_prefix = 0;
    }

    /// The same where that may have made the buffer large.
    pub(crate) fn clear_out(&mut self) {
        self.forget_gathered();
        self.shrink_out();
    }

    /// One large answer must not be paid for ever.
    fn shrink_out(&mut self) {
        if self.tx.capacity() > 4 * self.tx_flush_bytes {
            let large = std::mem::take(&mut self.tx);
            self.keep_buffer(large);
        }
    }

    /// A connection that was accepted is over: the loop that accepts may have waited for its place.
    #[inline]
    pub(crate) fn note_connection_ended(&self) {
        if let Some(place) = &self.place {
            let limit = self.limits.max_connections.saturating_add(OVER_LIMIT_MAX);
            place.connection_ended(place.number(), limit);
        }
    }

    /// The statistics of all loops: of this one as of now, of others as of their last turn.
    pub(crate) fn snapshot(&self) -> Stats {
        let mut stats = self.own_snapshot();
        if let Some(place) = &self.place {
            place.add_others(&mut stats);
        }
        stats
    }

    /// Says what was counted, where other loops want to know.
    #[inline]
    pub(crate) fn publish_stats(&self) {
        if let Some(place) = &self.place {
            place.publish(self.own_snapshot());
        }
    }

    /// Those of this loop.
    pub(crate) fn own_snapshot(&self) -> Stats {
        let stats = Stats {
            bytes_held: (self.memory() + self.spare.bytes()) as u64,
            given_up: self.flows.given_up(),
            deferred_open: self.deferrals.open(),
            deferred_cancelled: self.deferrals.cancelled(),
            ..self.stats.snapshot()
        };
        #[cfg(feature = "client")]
        let stats = self.dialers.counted_in(stats);
        stats
    }
}

/// Writes one buffer to the wire and counts what it took: the turn's, or a frame that sessions share. One
/// of the three places that write to a wire, beside `Outbox::write_to` and `Outgoing::write_uncopied`.
#[inline]
pub(crate) fn write_counted(
    stats: &mut Counters,
    wire: &mut dyn Wire,
    bytes: &[u8],
) -> io::Result<usize> {
    let written = wire.write(bytes)?;
    stats.bytes_out += written as u64;
    Ok(written)
}

/// The server, lent to code that runs on its loop: by [`Session::server`](crate::Session::server)
/// in a hook, as an argument to timers and to what [`Handle::defer`](crate::Handle::defer) sends.
///
/// What it asks of other sessions is queued and done after the present hook, in order and before
/// the next message is delivered; no hook runs inside another.
///
/// ```
/// use wirewheel::{HandlerResult, Message, Session};
/// fn whisper(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
///     let me = session.id();
///     let mut server = session.server();
///     for id in server.sessions().filter(|id| *id != me) {
///         server.send_to(id, message)?;
///     }
///     Ok(())
/// }
/// ```
///
/// What it can do:
///
/// ```
/// use std::net::UdpSocket;
/// use std::time::Duration;
/// use wirewheel::error::ConfigError;
/// use wirewheel::flow::{FlowKey, SharedFlow};
/// use wirewheel::watch::{Ready, Watch};
/// use wirewheel::{CloseCode, ServerRef};
///
/// fn tend(server: &mut ServerRef<'_>, news: FlowKey<str>, socket: UdpSocket) -> Result<(), ConfigError> {
///     println!("{} sessions, {} bytes held", server.session_count(), server.stats().bytes_held);
///     for id in server.sessions() {
///         let _ = server.pause(id); // not read from until
///         let _ = server.resume(id);
///     }
///     let reminder = server.after(Duration::from_secs(60), |server| {
///         for id in server.sessions() {
///             let _ = server.close(id, CloseCode::GOING_AWAY);
///         }
///         server.shutdown(Duration::from_secs(5)); // or shutdown_for_restart, with 1012
///     })?;
///     server.cancel_timer(reminder);
///     server.every(Duration::from_secs(1), move |server| {
///         if let Some(news) = server.find_flow(news) {
///             let _ = news.emit("still there");
///         }
///     })?;
///     let packets: SharedFlow<[u8]> = SharedFlow::new();
///     let name: FlowKey<[u8]> = server.flow_key(&packets); // for Handle::emit
///     server.watch(socket, Ready::READABLE, move |_server, socket, _ready| {
///         let mut packet = [0; 1500];
///         match socket.recv(&mut packet) {
///             Ok(length) => drop(packets.emit(&packet[..length])),
///             Err(_) => return Watch::Stop,
///         }
///         Watch::For(Ready::READABLE)
///     });
///     let _ = name;
///     Ok(())
/// }
/// ```
pub struct ServerRef<'a> {
    pub(crate) shared: &'a mut LoopState,
}

impl fmt::Debug for ServerRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerRef").field("sessions", &self.shared.sessions.len()).finish()
    }
}

/// What the application wants done before the sessions are told that the server stops.
#[derive(Default)]
pub(crate) struct StopHooks(pub(crate) Vec<Box<StopHook>>);

type StopHook = dyn FnOnce(&mut ServerRef<'_>);

impl fmt::Debug for StopHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hooks", self.0.len())
    }
}

/// What a timer of the application does.
pub(crate) enum TimerAction {
    Once(Box<dyn FnOnce(&mut ServerRef<'_>)>),
    Every(Box<dyn FnMut(&mut ServerRef<'_>)>),
}

impl fmt::Debug for TimerAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Every(_)) { "Every" } else { "Once" })
    }
}

/// A descriptor and its callback, whatever their types.
pub(crate) trait Watched {
    fn fd(&self) -> BorrowedFd<'_>;
    fn ready(&mut self, server: &mut ServerRef<'_>, ready: Ready) -> Watch;
}

/// A descriptor that the loop is to watch.
pub(crate) struct NewWatch {
    pub(crate) watched: Box<dyn Watched>,
    pub(crate) interest: Ready,
}

impl fmt::Debug for NewWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWatch").field("interest", &self.interest).finish_non_exhaustive()
    }
}
