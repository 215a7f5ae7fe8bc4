//! Flushes that take several turns: whom a turn comes to, what is published in between, and when it is
//! decided who lags.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{on_connect, on_message};
use crate::context::loop_state::ServerRef;
use crate::core::Core;
use crate::core::audit::Audit;
use crate::core::flush::FLUSH_WORK;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::shared_flow::SharedFlow;
use crate::structures::wire::scripted::ScriptedWire;
use crate::testing::frames::upgrade_request;
use crate::words::close::CloseCode;
use crate::words::limits::Limits;
use crate::words::time::Time;

/// More than are come to in two turns.
const MANY: u32 = 2_500;
/// Beyond its work a turn ends only with those who follow each other.
const PER_TURN: usize = FLUSH_WORK + 16;

/// A server whose turns are made one by one.
struct Turns {
    core: Core,
    peers: BTreeMap<u32, ScriptedWire>,
    /// How many were written to in the last turn.
    written_to: usize,
    resumed: usize,
}

impl Turns {
    /// Sessions at `/a` collect `a` and those at `/b` collect `b`; what they say is published in `b`.
    fn new(a: &SharedFlow, b: &SharedFlow) -> Self {
        let (a, b) = (a.clone(), b.clone());
        let mut application = Application::new();
        application.install(
            WebSockets::new().ping_period(None).limits(Limits::new().max_connections(9_000)),
        );
        application.routing(|route| {
            route.web_socket("/a", move |_: &Call| {
                let flow = a.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
            let said = b.clone();
            route.web_socket("/talk", move |_: &Call| {
                let said = said.clone();
                on_message(move |session, message| {
                    session.emit(&said, message.text().unwrap_or_default())
                })
            });
            route.web_socket("/b", move |_: &Call| {
                let flow = b.clone();
                on_connect(move |session, _| session.collect(&flow))
            });
        });
        let core = Core::new(application.build().unwrap());
        Self { core, peers: BTreeMap::new(), written_to: 0, resumed: 0 }
    }

    fn open(&mut self, path: &str) -> u32 {
        let peer = ([127, 0, 0, 1], 4000).into();
        let admitted = self.core.admit(Time::ZERO, peer).unwrap();
        let index = self.core.handle_accept(Time::ZERO, peer, admitted).unwrap();
        self.peers
            .insert(index, ScriptedWire { then_takes: usize::MAX, ..ScriptedWire::default() });
        self.input(index, upgrade_request(path, "").as_bytes());
        assert!(self.peer(index).out.starts_with(b"HTTP/1.1 101 "));
        self.peer(index).out.clear();
        index
    }

    fn peer(&mut self, index: u32) -> &mut ScriptedWire {
        self.peers.get_mut(&index).unwrap()
    }

    fn input(&mut self, index: u32, bytes: &[u8]) {
        let peer = self.peers.get_mut(&index).unwrap();
        self.core.handle_input(Time::ZERO, index, &mut bytes.to_vec(), peer);
    }

    fn say(&mut self, index: u32, text: &str) {
        let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.input(index, &frame);
    }

    /// The end of one turn of the loop.
    fn turn(&mut self) {
        self.written_to = 0;
        self.core.begin_flush();
        while let Some(index) = self.core.poll_flush() {
            self.written_to += 1;
            if let Some(peer) = self.peers.get_mut(&index) {
                self.core.handle_flush(Time::ZERO, index, peer);
            }
        }
        self.core.end_flush(Time::ZERO);
        while let Some(index) = self.core.poll_resume() {
            self.resumed += 1;
            self.core.handle_resume(Time::ZERO, index, self.peers.get_mut(&index).unwrap());
        }
    }

    /// Turns until nothing is left to do: how many.
    fn turns(&mut self) -> usize {
        let mut count = 0;
        while self.core.has_work() {
            self.turn();
            count += 1;
            assert!(
                self.written_to <= PER_TURN && count < 10_000,
                "{} in turn {count}",
                self.written_to
            );
        }
        count
    }

    /// The texts that it got; the frames are short ones.
    fn texts(&mut self, index: u32) -> Vec<String> {
        let got = std::mem::take(&mut self.peer(index).out);
        let mut texts = Vec::new();
        let mut rest = got.as_slice();
        while let [0x81, len, more @ ..] = rest {
            let (text, behind) = more.split_at(usize::from(*len));
            texts.push(String::from_utf8(text.to_vec()).unwrap());
            rest = behind;
        }
        assert!(rest.is_empty(), "{rest:?}");
        texts
    }
}

fn flow(options: FlowOptions) -> SharedFlow {
    SharedFlow::with(options).unwrap()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn a_message_for_many_takes_several_turns_and_others_have_theirs_in_between() {
    let (a, b) = (flow(FlowOptions::new()), flow(FlowOptions::new()));
    let mut turns = Turns::new(&a, &b);
    let many: Vec<u32> = (0..MANY).map(|_| turns.open("/a")).collect();
    let few: Vec<u32> = (0..2).map(|_| turns.open("/b")).collect();
    turns.turns();
    a.emit("to all").unwrap();
    turns.turn();
    assert!(turns.core.has_work() && turns.written_to <= PER_TURN, "{}", turns.written_to);
    b.emit("at once").unwrap();
    turns.turn();
    for &index in &few {
        assert_eq!(turns.texts(index), ["at once"], "while many still wait");
    }
    assert!(turns.core.has_work());
    turns.turns();
    for &index in &many {
        assert_eq!(turns.texts(index), ["to all"]);
    }
}

/// Whoever was not come to yet does not lag, however much is published meanwhile.
#[test]
fn what_is_published_while_many_are_offered_something_is_dropped_for_nobody() {
    for overflow in [BufferOverflow::DropOldest, BufferOverflow::DropLatest] {
        let one = FlowOptions::new().extra_buffer(1).on_buffer_overflow(overflow);
        let (a, b) = (flow(one), flow(FlowOptions::new()));
        let mut turns = Turns::new(&a, &b);
        let many: Vec<u32> = (0..MANY).map(|_| turns.open("/a")).collect();
        turns.turns();
        for n in numbers(0..8) {
            a.emit(&n).unwrap();
            turns.turn();
        }
        turns.turns();
        for &index in &many {
            assert_eq!(turns.texts(index), numbers(0..8), "{overflow:?}");
        }
        assert_eq!(a.dropped(), 0, "{overflow:?}");
    }
}

#[test]
fn who_lags_is_dropped_for_once_all_were_offered() {
    let three = FlowOptions::new().extra_buffer(3).on_buffer_overflow(BufferOverflow::DropOldest);
    let (a, b) = (flow(three), flow(FlowOptions::new()));
    let mut turns = Turns::new(&a, &b);
    let many: Vec<u32> = (0..MANY).map(|_| turns.open("/a")).collect();
    turns.turns();
    turns.peer(many[7]).then_takes = 0;
    for n in numbers(0..10) {
        a.emit(&n).unwrap();
        turns.turns();
    }
    assert_eq!(a.dropped(), 6, "one is pinned, three wait");
    let stalled = turns.peers.get_mut(&many[7]).unwrap();
    stalled.then_takes = usize::MAX;
    turns.core.handle_writable(Time::ZERO, many[7], stalled);
    assert_eq!(turns.texts(many[7]), ["0", "7", "8", "9"]);
    for &index in many.iter().filter(|&&index| index != many[7]) {
        assert_eq!(turns.texts(index), numbers(0..10));
    }
}

#[test]
fn a_publisher_waits_until_the_last_of_many_was_offered_its_message() {
    let (a, b) = (flow(FlowOptions::new()), flow(FlowOptions::new()));
    let mut turns = Turns::new(&a, &b);
    let many: Vec<u32> = (0..MANY).map(|_| turns.open("/b")).collect();
    let talker = turns.open("/talk");
    turns.turns();
    turns.resumed = 0;
    turns.say(talker, "first");
    turns.say(talker, "second");
    turns.turn();
    assert!(turns.core.has_work() && turns.resumed == 0);
    turns.turns();
    assert!(turns.resumed > 0);
    for &index in &many {
        assert_eq!(turns.texts(index), ["first", "second"]);
    }
    assert_eq!(b.dropped(), 0);
}

/// Its replay is as long as the buffer: before it was offered that, the newest would have been dropped.
#[test]
fn who_joins_while_many_are_offered_something_gets_its_replay_and_holds_nobody_up() {
    let options = FlowOptions::new().replay(3);
    for overflow in [BufferOverflow::DropOldest, BufferOverflow::DropLatest] {
        let (a, b) = (flow(options.on_buffer_overflow(overflow)), flow(FlowOptions::new()));
        let mut turns = Turns::new(&a, &b);
        let many: Vec<u32> = (0..MANY).map(|_| turns.open("/a")).collect();
        for n in numbers(0..3) {
            a.emit(&n).unwrap();
            turns.turns();
        }
        a.emit("3").unwrap();
        turns.turn();
        let late = turns.open("/a");
        a.emit("4").unwrap();
        assert!(turns.core.has_work());
        turns.turns();
        assert_eq!(turns.texts(late), numbers(1..5), "{overflow:?}");
        for &index in &many {
            assert_eq!(turns.texts(index), numbers(0..5), "{overflow:?}");
        }
        assert_eq!(a.dropped(), 0, "{overflow:?}");
    }
}

#[test]
fn a_round_ends_although_those_who_were_to_be_come_to_have_gone() {
    let (a, b) = (flow(FlowOptions::new()), flow(FlowOptions::new()));
    let mut turns = Turns::new(&a, &b);
    let many: Vec<u32> = (0..MANY).map(|_| turns.open("/a")).collect();
    turns.turns();
    a.emit("one").unwrap();
    turns.turn();
    for index in &many[..1_000] {
        let peer = turns.peers.get_mut(index).unwrap();
        turns.core.handle_error(Time::ZERO, *index, io::ErrorKind::ConnectionReset, peer);
    }
    while let Some((index, _)) = turns.core.poll_closed() {
        turns.peers.remove(&index);
    }
    let others: Vec<u32> = (0..500).map(|_| turns.open("/b")).collect();
    turns.turns();
    assert!(!a.would_suspend());
    for &index in &many[1_000..] {
        assert_eq!(turns.texts(index), ["one"]);
    }
    for &index in &others {
        assert_eq!(turns.texts(index), [""; 0], "it has the place of somebody else");
    }
}

/// However long there is always somebody to be written to.
#[test]
fn input_that_waits_for_copies_to_be_written_is_taken_in_the_midst_of_them() {
    let dropping = FlowOptions::new().extra_buffer(60);
    let a = flow(dropping.on_buffer_overflow(BufferOverflow::DropOldest));
    let b = flow(FlowOptions::new().replay(30));
    let mut turns = Turns::new(&a, &b);
    let many: Vec<u32> = (0..MANY).map(|_| turns.open("/a")).collect();
    let talker = turns.open("/talk");
    turns.turns();
    let id_of = |index: u32| turns.core.connections.slab.at(index).unwrap().state.id;
    let [one, other] = [many[0], many[1]].map(id_of);
    for round in 0..20 {
        a.emit("x").unwrap();
        let copies =
            |server: &mut ServerRef<'_>| [one, other].map(|id| server.send_to(id, vec![0; 40_000]));
        let sent = turns.core.with_server(Time::ZERO, "copies", copies);
        assert_eq!(sent, Some([Ok(()), Ok(())]), "{round}");
        turns.say(talker, &round.to_string());
        turns.turn();
        assert!(turns.core.has_work(), "there is always somebody");
        assert!(b.replay_cache().len() >= round, "{} in round {round}", b.replay_cache().len());
    }
}

/// Many messages at once for one who reads: it has its part of a turn, as others have, and misses
/// nothing for that.
#[test]
fn a_long_burst_and_a_long_replay_are_taken_in_several_turns() {
    let sixty = FlowOptions::new().extra_buffer(60).on_buffer_overflow(BufferOverflow::DropOldest);
    let (a, b) = (flow(sixty), flow(FlowOptions::new()));
    let mut turns = Turns::new(&a, &b);
    let reader = turns.open("/a");
    turns.turns();
    for n in numbers(0..5_000) {
        a.emit(&n).unwrap();
    }
    assert!(turns.turns() > 2);
    assert_eq!(turns.texts(reader), numbers(0..5_000));
    assert_eq!(a.dropped(), 0);

    let newest = FlowOptions::new().extra_buffer(5_000).max_bytes(4 << 20);
    let newest = newest.on_buffer_overflow(BufferOverflow::Latest);
    let (a, b) = (flow(newest), flow(FlowOptions::new()));
    let mut turns = Turns::new(&a, &b);
    for n in numbers(0..5_000) {
        a.emit_latest(&n, &n).unwrap();
    }
    let late = turns.open("/a");
    turns.turn();
    let first = turns.texts(late).len();
    assert!(first < 500, "{first} in one turn");
    a.emit_latest("new", "new").unwrap();
    turns.turns();
    assert_eq!(first + turns.texts(late).len(), 5_001);
    assert_eq!(a.dropped(), 0, "the key that went for the new one was taken already");
}

/// A session is heard however many messages it has yet to get.
#[test]
fn who_is_in_the_midst_of_a_long_replay_is_answered_in_its_place() {
    let newest = FlowOptions::new().extra_buffer(5_000).max_bytes(4 << 20);
    let b = flow(newest.on_buffer_overflow(BufferOverflow::Latest));
    let told = Rc::new(RefCell::new(0));
    let (joined, counted) = (b.clone(), Rc::clone(&told));
    let mut application = Application::new();
    application.install(WebSockets::new().ping_period(None));
    application.routing(|route| {
        route.web_socket("/", move |_: &Call| {
            let (flow, told) = (joined.clone(), Rc::clone(&counted));
            on_connect(move |session, _| session.collect(&flow)).on_message(move |session, _| {
                *told.borrow_mut() += 1;
                session.send("answer")
            })
        });
    });
    let core = Core::new(application.build().unwrap());
    let mut turns = Turns { core, peers: BTreeMap::new(), written_to: 0, resumed: 0 };
    for n in numbers(0..1_000) {
        b.emit_latest(&n, &n).unwrap();
    }
    let late = turns.open("/");
    turns.say(late, "question");
    assert_eq!(*told.borrow(), 1, "before it has everything");
    turns.turns();
    let texts = turns.texts(late);
    assert_eq!((texts.len(), texts.last().unwrap().as_str()), (1_001, "answer"));
}

/// The wait for the peer's Close was taken to have begun once the outbox was empty, and the wheel was not
/// told of that.
#[test]
fn a_close_that_waits_for_its_turn_behind_a_flow_is_not_out() {
    let a = flow(FlowOptions::new().extra_buffer(1_000));
    let mut turns = Turns::new(&a, &flow(FlowOptions::new()));
    let index = turns.open("/a");
    turns.peer(index).then_takes = 0;
    (0..300).for_each(|n| a.emit(&n.to_string()).unwrap());
    turns.turns();
    turns.core.with_server(Time::ZERO, "test", |server| {
        let id = server.sessions().next().unwrap();
        server.close(id, CloseCode::NORMAL).unwrap();
    });
    turns.turns();
    turns.peer(index).then_takes = usize::MAX;
    let peer = turns.peers.get_mut(&index).unwrap();
    turns.core.handle_writable(Time::ZERO, index, peer);
    let audit = |turns: &Turns| Audit(&turns.core).check();
    assert_eq!(audit(&turns), Ok(()));
    assert!(turns.core.has_work(), "others come first");
    let later = Time::from_micros(700_000);
    while let Some(due) = turns.core.poll_due(later) {
        turns.core.handle_timeout(later, due, turns.peers.get_mut(&due).unwrap());
    }
    let is_awaited = |turns: &Turns| {
        let connection = turns.core.connections.slab.at(index).unwrap();
        !connection.state.extra.as_deref().unwrap().unacknowledged
    };
    assert!(!is_awaited(&turns), "it has not got our Close");
    turns.turns();
    assert!(turns.peer(index).out.ends_with(b"\x88\x02\x03\xe8"));
    assert_eq!(audit(&turns), Ok(()));
}
