//! What flows keep and who pays for it: keys, encodings, what nobody awaits; and what a fault does that
//! arises while a message is handed on.

use std::cell::RefCell;
use std::rc::Rc;
use std::slice::from_ref;

use super::{secs, texts};
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::on_connect;
use crate::context::loop_state::ServerRef;
use crate::flow::emission::Origin;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::reader::{Batch, Taken};
use crate::flow::shared_flow::SharedFlow;
use crate::protocol::extension::header::ExtensionOffer;
use crate::protocol::extension::{Agreement, Extension, ExtensionFactory, ExtensionMessage};
use crate::testing::frames::upgrade_request;
use crate::testing::{TestApplication, TestClient};
use crate::words::close::CloseCode;
use crate::words::error::SendError;
use crate::words::extension::ExtensionError;
use crate::words::limits::Limits;

fn flow(options: FlowOptions) -> SharedFlow {
    SharedFlow::with(options).unwrap()
}

/// Encodes a message as itself, for the sessions of one number; what its text asks for fails.
struct Copy(u64);

impl Extension for Copy {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _: usize,
    ) -> Result<(), ExtensionError> {
        match message.payload() {
            b"fail" => Err(ExtensionError::failed(CloseCode::NOT_CONSISTENT, "failed")),
            b"too big" => Err(ExtensionError::TooBig),
            _ => Ok(()),
        }
    }

    /// 0 stands for a context of its own.
    fn share_key(&self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

struct Copying;

impl ExtensionFactory for Copying {
    fn name(&self) -> &str {
        "x-copy"
    }

    fn negotiate(&self, offer: &ExtensionOffer) -> Option<Agreement> {
        Some(Agreement::new(Copy(offer.parameter("as")??.parse().ok()?)))
    }
}

/// Sessions at `/n` collect flow n, and note at their end what they missed and how it came.
fn app(flows: &[SharedFlow], limits: Limits) -> (TestApplication, Rc<RefCell<Vec<String>>>) {
    let ends = Rc::new(RefCell::new(Vec::new()));
    let (flows, noted) = (flows.to_vec(), Rc::clone(&ends));
    let app = TestApplication::new(move |app: &mut Application| {
        let options = WebSockets::new().ping_period(None).extension(Copying);
        app.install(options.limits(limits));
        app.routing(move |route| {
            route.web_socket("/{n}", move |call: &Call| {
                let number: usize = call.parameter("n").unwrap().parse().unwrap();
                let (flow, noted) = (flows[number].clone(), Rc::clone(&noted));
                on_connect(move |session, _| session.collect(&flow)).on_close(
                    move |session, close| {
                        let end = format!("{} missed {}", close.code(), session.missed());
                        noted.borrow_mut().push(end);
                    },
                )
            });
        });
    })
    .unwrap();
    (app, ends)
}

fn with_copy(app: &TestApplication, path: &str, number: u64) -> TestClient {
    let offer = format!("x-copy; as={number}");
    app.upgrade(path).header("Sec-WebSocket-Extensions", &offer).connect().unwrap().0
}

#[test]
fn keys_count_as_bytes_of_their_flow_and_of_the_process() {
    let newest = FlowOptions::new().extra_buffer(100_000);
    let newest = newest.on_buffer_overflow(BufferOverflow::Latest);
    let flow = flow(newest);
    let (app, _) = app(from_ref(&flow), Limits::new());
    drop(app.web_socket("/0"));
    for number in 0..1_000 {
        let key = format!("{number:060000}");
        app.with_server(|_| flow.emit_latest(&key, &number.to_string())).unwrap();
        assert!(app.stats().bytes_held <= 1 << 20, "{} after {number}", app.stats().bytes_held);
    }
    assert!(app.stats().bytes_held > 900_000);
    let got = texts(&mut app.web_socket("/0"));
    assert!(got.len() > 15 && got.last().is_some_and(|last| last == "999"), "{got:?}");
    let huge = "k".repeat(2 << 20);
    assert!(matches!(flow.emit_latest(&huge, "v"), Err(SendError::TooBig { bytes: 1, .. })));
    for number in 0..1_000_u32 {
        flow.emit_latest(&format!("{:060000}", number % 10), "v").unwrap();
    }
    assert_eq!(texts(&mut app.web_socket("/0")).len(), got.len().max(10), "keys that are known");
}

/// The next publisher was refused for ever, whoever it was.
#[test]
fn what_is_kept_for_nobody_gives_way_to_what_is_new_oldest_first() {
    let keeps = FlowOptions::new().replay(10).on_buffer_overflow(BufferOverflow::DropOldest);
    for overflow in
        [BufferOverflow::Suspend, BufferOverflow::DropOldest, BufferOverflow::DropLatest]
    {
        let flows: Vec<_> = (0..12).map(|_| flow(keeps.on_buffer_overflow(overflow))).collect();
        let (app, _) = app(&flows, Limits::new().process_bytes(120_000));
        for (number, flow) in flows.iter().enumerate().take(10) {
            drop(app.web_socket(&format!("/{number}")));
            (0..10).for_each(|n| flow.emit(&format!("{n:01000}")).unwrap());
        }
        flows[0].emit(&format!("{:01000}", 10)).unwrap();
        assert_eq!(app.stats().given_up, 0);
        let mut reader = app.web_socket("/11");
        for n in 0..10 {
            app.with_server(|_| flows[11].emit(&format!("{n:03000}"))).unwrap();
        }
        assert_eq!(texts(&mut reader).len(), 10, "{overflow:?}");
        assert!(app.stats().bytes_held <= 120_000);
        let left: Vec<usize> =
            (0..10).map(|n| texts(&mut app.web_socket(&format!("/{n}"))).len()).collect();
        assert_eq!((left[0], left[1], left[9]), (10, 0, 10), "{overflow:?}: {left:?}");
        assert_eq!(app.stats().given_up, 100 - left.iter().sum::<usize>() as u64);
        assert_eq!((flows[1].dropped(), app.stats().over_budget), (0, 0));
    }
}

#[test]
fn what_was_taken_by_all_gives_way_too_but_nothing_that_somebody_awaits() {
    let flows: Vec<_> = (0..3).map(|_| flow(FlowOptions::new().replay(100))).collect();
    let (app, _) = app(&flows, Limits::new().process_bytes(100_000));
    let (mut quick, mut slow) = (app.web_socket("/0"), app.web_socket("/1"));
    slow.read_only(0);
    for n in 0..40 {
        app.with_server(|_| flows[0].emit(&format!("{n:01000}"))).unwrap();
        app.with_server(|_| flows[1].emit(&format!("{n:01000}"))).unwrap();
    }
    drop(app.web_socket("/2"));
    let taken = (0..100).filter(|n| flows[2].emit(&format!("{n:01000}")).is_ok()).count();
    assert_eq!(taken, 100, "its own replay goes on");
    assert_eq!(texts(&mut app.web_socket("/0")).len(), 0, "it had been taken by all");
    slow.read_on();
    assert_eq!((texts(&mut quick).len(), texts(&mut slow).len()), (40, 40));
}

/// The session that held most was ended, for what flows held for nobody.
#[test]
fn what_is_kept_for_nobody_gives_way_before_a_session_is_ended() {
    let flows: Vec<_> = (0..9).map(|_| flow(FlowOptions::new().replay(10))).collect();
    let (app, ends) = app(&flows, Limits::new().process_bytes(100_000));
    for (number, flow) in flows.iter().enumerate() {
        drop(app.web_socket(&format!("/{number}")));
        (0..10).for_each(|n| flow.emit(&format!("{n:01000}")).unwrap());
    }
    ends.borrow_mut().clear();
    let mut clients: Vec<_> = (0..4).map(|_| app.web_socket("/8")).collect();
    for client in &mut clients {
        client.send_bytes(b"\x82\xfe\x60\0\0\0\0\0"); // a frame of 24 KiB that does not end
        (0..10).for_each(|_| client.send_bytes(&[0; 1_500]));
    }
    assert_eq!(*ends.borrow(), [""; 0]);
    assert!(app.stats().given_up > 0 && app.stats().bytes_held <= 100_000);
}

/// An innocent session that held a little was ended for what the flow of another held.
#[test]
fn what_a_subscriber_does_not_take_is_its_own_and_no_other_sessions() {
    for overflow in [BufferOverflow::Suspend, BufferOverflow::DropOldest, BufferOverflow::Latest] {
        let options = FlowOptions::new().extra_buffer(1_000).on_buffer_overflow(overflow);
        let flow = flow(options);
        let (app, ends) = app(from_ref(&flow), Limits::new().process_bytes(100_000));
        let mut quick = app.web_socket("/0");
        let mut slow = app.web_socket("/0");
        slow.read_only(0);
        for n in 0..80 {
            let text = format!("{n:01000}");
            app.with_server(|_| flow.emit_latest(&n.to_string(), &text)).unwrap();
        }
        assert_eq!(texts(&mut quick).len(), 80);
        let mut innocent = app.web_socket("/0");
        assert!(texts(&mut innocent).len() % 80 == 0);
        innocent.send_bytes(b"\x82\xfe\x60\0\0\0\0\0"); // a frame of 24 KiB that does not end
        (0..16).for_each(|_| innocent.send_bytes(&[0; 1_500]));
        let ended: &[&str] =
            if overflow == BufferOverflow::Suspend { &["1013 missed 0"] } else { &[] };
        assert_eq!(*ends.borrow(), ended, "{overflow:?}");
        assert!(innocent.ending().is_none(), "{overflow:?}");
        assert_eq!(flow.dropped() > 0, overflow != BufferOverflow::Suspend);
        assert!(app.stats().bytes_held <= 100_000);
    }
}

fn takes_nothing(_: &mut ServerRef<'_>, batch: &mut Batch<'_>) -> Taken {
    let _ = batch.next();
    Taken::Later
}

/// Nobody who is here can be ended for it with any effect.
#[test]
fn what_another_loop_has_accepted_ends_nobody() {
    let (app, ends) = app(&[flow(FlowOptions::new())], Limits::new().process_bytes(100_000));
    let room = app.with_server(|server| {
        let room = server.shared_flow("room", FlowOptions::new().extra_buffer(1_000)).unwrap();
        server.read_flow(&room, takes_nothing);
        room
    });
    let mut innocent = app.web_socket("/0");
    innocent.send_bytes(b"\x82\xfe\x60\0\0\0\0\0"); // a frame of 24 KiB that does not end
    innocent.send_bytes(&[0; 1_500]);
    app.with_server(|_| while room.emit(&"x".repeat(1_000)).is_ok() {});
    let message = "y".repeat(10_000);
    for _ in 0..3 {
        let from = Origin::Application;
        app.with_server(|_| room.inner.emit_beyond_limits(message.as_str().into(), from));
    }
    assert!(app.stats().bytes_held > 120_000);
    assert_eq!(*ends.borrow(), [""; 0]);
    innocent.send_bytes(&[0; 20_000]);
    assert_eq!(*ends.borrow(), ["1013 missed 0"], "its own message is too much beside the rest");
}

/// Everybody who collected was ended, who had taken everything, and nothing became free.
#[test]
fn what_a_reader_does_not_take_is_no_subscribers_fault() {
    let flow = flow(FlowOptions::new().extra_buffer(1_000));
    let (app, ends) = app(from_ref(&flow), Limits::new().process_bytes(100_000));
    let mut quick = app.web_socket("/0");
    app.with_server(|server| server.read_flow(&flow, takes_nothing));
    for n in 0..80 {
        app.with_server(|_| flow.emit(&format!("{n:01000}"))).unwrap();
    }
    assert_eq!(texts(&mut quick).len(), 80);
    let mut large = app.web_socket("/0");
    large.send_bytes(b"\x82\xfe\x60\0\0\0\0\0"); // a frame of 24 KiB that does not end
    (0..16).for_each(|_| large.send_bytes(&[0; 1_500]));
    assert_eq!(*ends.borrow(), ["1013 missed 0"]);
    assert!(quick.ending().is_none());
}

/// All that was kept had gone before it was clear that it would not do.
#[test]
fn a_message_that_is_refused_costs_no_other() {
    let keeps = FlowOptions::new().replay(10).on_buffer_overflow(BufferOverflow::DropOldest);
    let flow = flow(keeps);
    let (app, _) = app(from_ref(&flow), Limits::new().process_bytes(50_000));
    let _collects = app.web_socket("/0");
    (0..10).for_each(|n| app.with_server(|_| flow.emit(&format!("{n:01000}"))).unwrap());
    assert!(matches!(flow.emit(&"x".repeat(60_000)), Err(SendError::Full { .. })));
    assert_eq!(texts(&mut app.web_socket("/0")).len(), 10);
}

#[test]
fn encodings_count_and_give_way_before_messages_do() {
    let keeps = FlowOptions::new().replay(1_000).max_bytes(100_000);
    let keeps = keeps.on_buffer_overflow(BufferOverflow::DropOldest);
    let flow = flow(keeps);
    let (app, _) = app(from_ref(&flow), Limits::new());
    let mut readers: Vec<_> = (1..6).map(|number| with_copy(&app, "/0", number)).collect();
    let mut contexts: Vec<_> = (0..2).map(|_| with_copy(&app, "/0", 0)).collect();
    for n in 0..200 {
        app.with_server(|_| flow.emit(&format!("{n:01000}"))).unwrap();
        let held: u64 = app.stats().bytes_held;
        assert!(held < 100_000 + 5_000, "{held} after {n}"); // and what the sessions hold
    }
    for number in 1..8 {
        let got = texts(&mut with_copy(&app, "/0", number));
        assert!((80..95).contains(&got.len()), "{} are replayed", got.len());
        assert!(app.stats().bytes_held < 100_000 + 5_000);
    }
    for reader in readers.iter_mut().chain(&mut contexts) {
        assert_eq!(texts(reader).len(), 200);
    }
}

/// Each that takes the newest would have to make one of its own; of an older one few do.
#[test]
fn the_replay_gives_way_to_encodings_of_the_newest_message_alone() {
    let keeps = FlowOptions::new().replay(10).max_bytes(8_000);
    let flow = flow(keeps.on_buffer_overflow(BufferOverflow::DropOldest));
    let (app, _) = app(from_ref(&flow), Limits::new());
    let (mut one, mut other) = (with_copy(&app, "/0", 1), with_copy(&app, "/0", 2));
    (0..7).for_each(|n| app.with_server(|_| flow.emit(&format!("{n:01000}"))).unwrap());
    assert_eq!((texts(&mut one).len(), texts(&mut other).len()), (7, 7));
    let kept = flow.replay_cache().len();
    assert!((2..7).contains(&kept), "of the newest two encodings are kept, and {kept} messages");
    let replayed = texts(&mut with_copy(&app, "/0", 3)).len();
    assert_eq!(
        (replayed, flow.replay_cache().len()),
        (kept, kept),
        "those of older ones push nothing out"
    );
}

#[test]
fn the_replay_does_not_give_way_to_an_encoding_that_has_no_room_beside_its_message() {
    let keeps = FlowOptions::new().replay(10).max_bytes(8_000);
    let flow = flow(keeps.on_buffer_overflow(BufferOverflow::DropOldest));
    let (app, _) = app(from_ref(&flow), Limits::new());
    let mut reader = with_copy(&app, "/0", 1);
    for bytes in [200, 200, 200, 5_000] {
        app.with_server(|_| flow.emit(&"x".repeat(bytes))).unwrap();
    }
    assert_eq!((texts(&mut reader).len(), flow.replay_cache().len()), (4, 4));
}

#[test]
fn encodings_count_against_the_process_too() {
    let flows: Vec<_> =
        (0..4).map(|_| flow(FlowOptions::new().replay(20).extra_buffer(20))).collect();
    let (app, _) = app(&flows, Limits::new().process_bytes(120_000));
    let mut readers = Vec::new();
    for (number, flow) in flows.iter().enumerate() {
        readers.extend((1..5).map(|key| with_copy(&app, &format!("/{number}"), key)));
        (0..20).for_each(|n| app.with_server(|_| flow.emit(&format!("{n:01000}"))).unwrap());
        assert!(app.stats().bytes_held <= 120_000, "{}", app.stats().bytes_held);
    }
    assert!(readers.iter_mut().all(|reader| texts(reader).len() == 20));
    assert_eq!((app.stats().over_budget, app.stats().given_up), (0, 0));
}

/// That session got neither message nor Close, and held up everybody, until something else happened to
/// it.
#[test]
fn a_fault_while_a_message_is_handed_on_ends_that_session_at_once_and_holds_nobody_up() {
    for number in [0, 1] {
        for behind_others in [false, true] {
            let flow = SharedFlow::new();
            let (app, ends) = app(from_ref(&flow), Limits::new());
            let mut plain = app.web_socket("/0");
            let mut fails = with_copy(&app, "/0", number);
            app.with_server(|_| {
                if behind_others {
                    flow.emit("before").unwrap();
                }
                flow.emit("fail").unwrap();
            });
            if behind_others {
                fails.expect_text("before");
            }
            fails.expect_close(CloseCode::NOT_CONSISTENT);
            assert_eq!(*ends.borrow(), ["1007 missed 0"], "shared: {number}");
            assert_eq!(flow.subscription_count(), 1);
            assert!(!flow.would_suspend());
            app.with_server(|_| flow.emit("behind")).unwrap();
            assert!(texts(&mut plain).ends_with(&["fail".into(), "behind".into()]));
        }
    }
}

#[test]
fn a_message_that_is_too_big_for_one_session_is_missed_by_it_and_by_nobody_else() {
    for number in [0, 1] {
        let flow = SharedFlow::with(FlowOptions::new().extra_buffer(10)).unwrap();
        let (app, ends) = app(from_ref(&flow), Limits::new());
        let mut plain = app.web_socket("/0");
        let mut copied = with_copy(&app, "/0", number);
        app.with_server(|_| {
            for text in ["one", "too big", "two", "too big", "three"] {
                flow.emit(text).unwrap();
            }
        });
        assert_eq!(texts(&mut copied), ["one", "two", "three"], "shared: {number}");
        assert_eq!(texts(&mut plain).len(), 5);
        let sent = app.stats().messages_out;
        assert_eq!(sent, 8, "what did not go out is not counted as sent");
        drop(copied);
        assert_eq!(*ends.borrow(), ["1006 missed 2"], "shared: {number}");
    }
}

/// Messages that others had replaced before it came counted as missed by who came late.
#[test]
fn who_comes_late_misses_nothing_of_what_was_replaced_before() {
    let newest = FlowOptions::new().extra_buffer(10).on_buffer_overflow(BufferOverflow::Latest);
    let flow = flow(newest);
    let (app, ends) = app(from_ref(&flow), Limits::new());
    let emit = |key: &str, n: usize| {
        app.with_server(|_| flow.emit_latest(key, &format!("{key}{n}"))).unwrap();
    };
    emit("a", 0);
    (0..5).for_each(|n| emit("b", n));
    emit("c", 0);
    let mut late = app.web_socket("/0");
    assert_eq!(texts(&mut late), ["a0", "b4", "c0"]);
    late.read_only(0);
    emit("b", 5); // pinned
    (6..9).for_each(|n| emit("b", n));
    emit("a", 1);
    late.read_on();
    assert_eq!(texts(&mut late), ["b5", "b8", "a1"]);
    drop(late);
    assert_eq!(*ends.borrow(), ["1006 missed 2"]);
    // Of what it was to be replayed, one is replaced before it takes it.
    let mut slow = app.connect();
    slow.read_only(129 + 3); // the answer, and a part of the first message
    slow.send_bytes(upgrade_request("/0", "").as_bytes());
    (9..12).for_each(|n| emit("a", n));
    slow.read_on();
    slow.reset();
    let missed = ends.borrow().last().cloned();
    assert_eq!(missed.as_deref(), Some("1006 missed 3"), "the one of the replay, and two since");
    app.advance(secs(1));
}

/// Each look for a key went through all that were kept: 100,000 known keys cost minutes.
#[test]
fn a_known_key_is_found_at_once_among_many() {
    let many = 100_000;
    let newest = FlowOptions::new().extra_buffer(many).max_bytes(64 << 20);
    let flow = flow(newest.on_buffer_overflow(BufferOverflow::Latest));
    for round in 0..3 {
        for n in (0..many).rev() {
            flow.emit_latest(&n.to_string(), &round.to_string()).unwrap();
        }
    }
    for n in 0..many {
        flow.emit_latest(&format!("new {n}"), "in place of an old one").unwrap();
    }
    assert_eq!(flow.dropped(), 0, "nobody collects it");
}
