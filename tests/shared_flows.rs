//! Flows that several loops share: every policy across loops, who lags, newest values, counts, and that
//! nothing is lost, doubled or out of order.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use support::*;
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow, Taken};
use wirewheel::{Application, Call, Limits, Server, WebSockets, on_connect};

fn spawn<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().spawn(act).unwrap()
}

/// Messages that a test sends; a longer run sets `WIREWHEEL_SHARED_MESSAGES`.
fn messages() -> usize {
    let wanted = std::env::var("WIREWHEEL_SHARED_MESSAGES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

/// `/say` publishes, `/hear` collects and answers `missed?`; both are told their loop by its name.
fn room(app: &mut Application, options: FlowOptions) {
    let room: SharedFlow = app.shared_flow("room", options);
    app.install(WebSockets::new().ping_period(None).write_timeout(Duration::from_secs(600)));
    app.routing(move |route| {
        let spoken = room.clone();
        route.web_socket("/say", move |_: &Call| {
            let room = spoken.clone();
            wirewheel::on_message(move |session, message| {
                let text = message.text().unwrap_or_default();
                match text.split_once('=') {
                    Some((key, "")) => drop(room.remove(key)),
                    Some((key, value)) => session.emit_latest(&room, key, value)?,
                    None => session.emit(&room, text)?,
                }
                Ok(())
            })
        });
        route.web_socket("/hear", move |_: &Call| {
            let room = room.clone();
            on_connect({
                let room = room.clone();
                move |session, _| session.collect(&room)
            })
            .on_message(move |session, message| match message.text() {
                Some("count?") => session.send(format!("count {}", room.subscription_count())),
                _ => session.send(format!("missed {}", session.missed())),
            })
        });
    });
}

fn serve(loops: usize, options: FlowOptions) -> Running {
    let module = move |app: &mut Application| room(app, options);
    let server = Server::bind("127.0.0.1:0", module).unwrap().loops(loops);
    Running(server.spawn().unwrap().into())
}

/// Says so many numbers under a name, on a thread of its own.
fn say(mut client: Client, name: char, count: usize) -> JoinHandle<Client> {
    spawn(move || {
        for first in (0..count).step_by(50) {
            let some = first..count.min(first + 50);
            let frames: Vec<u8> = some
                .flat_map(|number| masked(TEXT, format!("{name} {number}").as_bytes()))
                .collect();
            client.stream.write_all(&frames).unwrap();
        }
        client
    })
}

/// What a subscriber has heard of each speaker.
#[derive(Debug, Default)]
struct Heard {
    a: Vec<usize>,
    b: Vec<usize>,
    missed: usize,
}

/// Listens until all that both have said is heard or missed. What was missed it asks for whenever it is
/// told, since there may be no message behind it.
fn hear(mut client: Client, count: usize) -> Heard {
    let mut heard = Heard::default();
    client.text("missed?");
    while heard.a.len() + heard.b.len() + heard.missed < 2 * count {
        let text = String::from_utf8(client.frame().payload).unwrap();
        let (name, number) = text.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        match name {
            "a" => heard.a.push(number),
            "b" => heard.b.push(number),
            _ => {
                heard.missed = number;
                client.text("missed?");
            }
        }
    }
    heard
}

/// Two speakers and two listeners on two loops: what each has heard.
fn talk(options: FlowOptions, count: usize) -> Vec<Heard> {
    let server = serve(2, options);
    let listeners: Vec<_> = (0..2).map(|_| server.upgrade("/hear")).collect();
    until_all_collect(&server, 2);
    let speakers: Vec<_> = (0..2).map(|_| server.upgrade("/say")).collect();
    let listeners: Vec<_> =
        listeners.into_iter().map(|client| spawn(move || hear(client, count))).collect();
    let speakers: Vec<_> = speakers
        .into_iter()
        .zip(['a', 'b'])
        .map(|(client, name)| say(client, name, count))
        .collect();
    let heard = listeners.into_iter().map(|listener| listener.join().unwrap()).collect();
    speakers.into_iter().for_each(|speaker| drop(speaker.join().unwrap()));
    heard
}

fn until_all_collect(server: &Running, count: usize) {
    let mut asking = server.upgrade("/hear");
    loop {
        asking.text("count?");
        let text = String::from_utf8(asking.frame().payload).unwrap();
        // The one that asks collects too, and may hear others.
        if text == format!("count {}", count + 1) {
            break;
        }
    }
    let stats = |server: &Running| server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
    let open = stats(server).sessions_open;
    drop(asking);
    while stats(server).sessions_open >= open {
        std::thread::yield_now();
    }
}

fn is_in_order(numbers: &[usize]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

#[test]
fn suspended_publishers_lose_nothing_on_any_loop() {
    for options in [FlowOptions::new(), FlowOptions::new().extra_buffer(100).replay(5)] {
        let count = messages();
        for heard in talk(options, count) {
            assert!(heard.a.iter().copied().eq(0..count), "{} of a", heard.a.len());
            assert!(heard.b.iter().copied().eq(0..count), "{} of b", heard.b.len());
            assert_eq!(heard.missed, 0);
        }
    }
}

/// Under the policies that drop, what is not heard is counted, and the rest is in order.
#[test]
fn what_is_dropped_is_counted_on_every_loop() {
    for policy in [BufferOverflow::DropOldest, BufferOverflow::Latest, BufferOverflow::DropLatest] {
        let options = FlowOptions::new().extra_buffer(1_000).on_buffer_overflow(policy);
        let count = messages();
        // Of DropLatest nobody is told what is dropped for all.
        if policy == BufferOverflow::DropLatest {
            drop_latest(options);
            continue;
        }
        for heard in talk(options, count) {
            assert!(is_in_order(&heard.a) && is_in_order(&heard.b), "{policy:?}");
            let all = heard.a.len() + heard.b.len() + heard.missed;
            assert_eq!(all, 2 * count, "{policy:?}: {} missed", heard.missed);
        }
    }
}

fn drop_latest(options: FlowOptions) {
    let server = serve(2, options);
    let mut listeners: Vec<_> = (0..2).map(|_| server.upgrade("/hear")).collect();
    until_all_collect(&server, 2);
    let mut speaker = server.upgrade("/say");
    for number in 0..100 {
        speaker.text(&format!("a {number}"));
    }
    for client in &mut listeners {
        (0..100).for_each(|number| client.expect_text(&format!("a {number}")));
    }
}

/// Somebody who never reads, on one loop, takes nothing from those who do, on any.
#[test]
fn a_stalled_subscriber_costs_nobody_what_the_policy_keeps() {
    let options =
        FlowOptions::new().extra_buffer(500).on_buffer_overflow(BufferOverflow::DropOldest);
    let server = serve(2, options);
    let stalled = server.upgrade("/hear");
    let others: Vec<_> = (0..3).map(|_| server.upgrade("/hear")).collect();
    until_all_collect(&server, 4);
    let mut speaker = server.upgrade("/say");
    // In portions that are heard before the next: nobody but the stalled one is ever behind.
    let padding = "x".repeat(2_000);
    let mut others = others;
    for round in 0..40 {
        let first = round * 100;
        for number in first..first + 100 {
            speaker.text(&format!("{number} {padding}"));
        }
        for client in &mut others {
            for number in first..first + 100 {
                client.expect_text(&format!("{number} {padding}"));
            }
        }
    }
    drop(stalled);
}

/// Under `Suspend` the stalled one is waited for, wherever it is, and then all get everything.
#[test]
fn a_stalled_subscriber_of_another_loop_suspends_publishers() {
    let server = serve(2, FlowOptions::new().extra_buffer(10));
    let mut slow = server.upgrade("/hear");
    let mut other = server.upgrade("/hear");
    until_all_collect(&server, 2);
    let published = Arc::new(AtomicUsize::new(0));
    let (mut speaker, count) = (server.upgrade("/say"), 8_000);
    let padding = "x".repeat(2_000);
    let text = padding.clone();
    let said = Arc::clone(&published);
    let speaking = spawn(move || {
        for number in 0..count {
            speaker.text(&format!("{number} {text}"));
            said.store(number + 1, Ordering::Relaxed);
        }
        speaker
    });
    let heard = spawn(move || {
        for number in 0..count {
            other.expect_text(&format!("{number} {padding}"));
        }
        padding
    });
    // The speaker comes to a halt, which is when nothing more is said for a while.
    let mut before = usize::MAX;
    loop {
        let now = published.load(Ordering::Relaxed);
        if now > 0 && now == before {
            break;
        }
        before = now;
        std::thread::park_timeout(millis(300));
    }
    assert!(before < count, "it was waited for");
    let padding = "x".repeat(2_000);
    for number in 0..count {
        slow.expect_text(&format!("{number} {padding}"));
    }
    heard.join().unwrap();
    speaking.join().unwrap();
}

#[test]
fn newest_values_and_removals_are_those_of_all_loops() {
    let options = FlowOptions::new().extra_buffer(10).on_buffer_overflow(BufferOverflow::Latest);
    let server = serve(3, options);
    let mut listeners: Vec<_> = (0..3).map(|_| server.upgrade("/hear")).collect();
    until_all_collect(&server, 3);
    let mut speakers: Vec<_> = (0..3).map(|_| server.upgrade("/say")).collect();
    for (number, speaker) in speakers.iter_mut().enumerate() {
        speaker.text(&format!("gauge-{number}={number}.5"));
        for client in &mut listeners {
            client.expect_text(&format!("{number}.5"));
        }
    }
    // Set again on another loop, and removed on a third.
    speakers[1].text("gauge-0=7.5");
    listeners.iter_mut().for_each(|client| client.expect_text("7.5"));
    speakers[2].text("gauge-1=");
    speakers[2].text("last=8.5");
    listeners.iter_mut().for_each(|client| client.expect_text("8.5"));
    for _ in 0..3 {
        let mut newcomer = server.upgrade("/hear");
        let mut replayed: Vec<_> =
            (0..3).map(|_| String::from_utf8(newcomer.frame().payload).unwrap()).collect();
        replayed.sort();
        assert_eq!(replayed, ["2.5", "7.5", "8.5"]);
        listeners.push(newcomer); // so that the next one is on another loop
    }
}

/// What is gone before another loop has heard of it is missed there too, with nothing behind it.
#[test]
fn what_is_set_and_removed_at_once_is_missed_on_every_loop() {
    let options = FlowOptions::new().extra_buffer(10).on_buffer_overflow(BufferOverflow::Latest);
    let server = serve(3, options);
    let mut listeners: Vec<_> = (0..3).map(|_| server.upgrade("/hear")).collect();
    until_all_collect(&server, 3);
    let mut speaker = server.upgrade("/say");
    let frames = [masked(TEXT, b"door=open"), masked(TEXT, b"door=")].concat();
    speaker.stream.write_all(&frames).unwrap();
    for client in &mut listeners {
        loop {
            client.text("missed?");
            if client.frame().payload == b"missed 1" {
                break;
            }
        }
    }
}

/// What a newcomer is replayed, and how many collect, is the same on each loop.
#[test]
fn replay_and_counts_are_right_on_every_loop() {
    let server = serve(4, FlowOptions::new().replay(3));
    let mut speaker = server.upgrade("/say");
    let mut witness = server.upgrade("/hear");
    for number in 0..10 {
        speaker.text(&format!("line {number}"));
        witness.expect_text(&format!("line {number}"));
    }
    let mut newcomers = Vec::new();
    for expected in 2..=9 {
        let mut newcomer = server.upgrade("/hear");
        // The last lines may still be on their way to its loop; then they come behind the replay.
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != "line 9") {
            lines.push(String::from_utf8(newcomer.frame().payload).unwrap());
        }
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]), "{lines:?}");
        newcomer.text("count?");
        newcomer.expect_text(&format!("count {expected}"));
        newcomers.push(newcomer);
    }
    speaker.text("end");
    newcomers.iter_mut().for_each(|client| client.expect_text("end"));
    witness.expect_text("end");
}

/// From whichever loop to whichever others, once.
#[test]
fn nothing_comes_twice_over_several_loops() {
    let server = serve(4, FlowOptions::new());
    let mut listeners: Vec<_> = (0..4).map(|_| server.upgrade("/hear")).collect();
    until_all_collect(&server, 4);
    let mut speakers: Vec<_> = (0..4).map(|_| server.upgrade("/say")).collect();
    for round in 0..20 {
        for (number, speaker) in speakers.iter_mut().enumerate() {
            speaker.text(&format!("{round} {number}"));
        }
        for client in &mut listeners {
            let mut heard: Vec<_> =
                (0..4).map(|_| String::from_utf8(client.frame().payload).unwrap()).collect();
            heard.sort();
            let expected: Vec<_> = (0..4).map(|number| format!("{round} {number}")).collect();
            assert_eq!(heard, expected);
        }
    }
}

/// Both loops are full of what waits for the other: neither may wait for that.
#[test]
fn loops_that_flood_each_other_do_not_wait_for_each_other() {
    let options = FlowOptions::new().extra_buffer(20).max_bytes(64 << 10);
    for heard in talk(options, messages()) {
        assert_eq!((heard.a.len(), heard.b.len()), (messages(), messages()));
    }
}

/// Publishes what it gets, and says whether there was room.
fn offer(app: &mut Application) {
    let options = FlowOptions::new().extra_buffer(10_000).max_bytes(64 << 10);
    room(app, options);
    let room: SharedFlow = app.shared_flow("offered", options);
    app.routing(move |route| {
        let offered = room.clone();
        route.web_socket("/offer", move |_: &Call| {
            let room = offered.clone();
            wirewheel::on_message(move |session, message| {
                let taken = session.emit(&room, message.text().unwrap_or_default()).is_ok();
                session.send(if taken { "taken" } else { "full" })
            })
        });
        route.web_socket("/offered", move |_: &Call| {
            let room = room.clone();
            on_connect(move |session, _| session.collect(&room))
        });
    });
}

/// The same where their logs are full to the last byte.
#[test]
fn loops_whose_logs_are_full_do_not_wait_for_each_other() {
    let server = Server::bind("127.0.0.1:0", offer).unwrap().loops(2);
    let server = Running(server.spawn().unwrap().into());
    let listeners: Vec<_> = (0..2).map(|_| server.upgrade("/offered")).collect();
    let speakers: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let mut client = server.upgrade("/offer");
            spawn(move || {
                let flood = masked(TEXT, format!("{name} {}", "x".repeat(1_000)).as_bytes());
                for _ in 0..10 {
                    client.stream.write_all(&flood.repeat(1_000)).unwrap();
                    (0..1_000).for_each(|_| drop(client.frame()));
                }
                loop {
                    client.text(&format!("end {name}"));
                    if client.frame().payload == b"taken" {
                        return client;
                    }
                }
            })
        })
        .collect();
    let heard = listeners.into_iter().map(|mut client| {
        spawn(move || {
            let mut ends = 0;
            while ends < 2 {
                ends += usize::from(client.frame().payload.starts_with(b"end"));
            }
        })
    });
    let heard: Vec<_> = heard.collect();
    heard.into_iter().for_each(|thread| thread.join().unwrap());
    speakers.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    // Nothing is on its way any more, and none of it is counted.
    let held = || server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap().bytes_held;
    while held() > 0 {
        std::thread::yield_now();
    }
}

/// Publishes in one hook as long as there is room, on both loops before either sends anything on.
fn flood(app: &mut Application, both: &Arc<Barrier>) {
    let limits = Limits::new().process_bytes(400_000);
    app.install(WebSockets::new().ping_period(None).limits(limits));
    let options = FlowOptions::new().extra_buffer(10_000).max_bytes(400_000);
    let room: SharedFlow = app.shared_flow("flooded", options);
    let both = Arc::clone(both);
    app.routing(move |route| {
        let flooded = room.clone();
        route.web_socket("/flood", move |_: &Call| {
            let (room, both) = (flooded.clone(), Arc::clone(&both));
            wirewheel::on_message(move |session, _message| {
                let text = "x".repeat(300);
                let taken =
                    (0..).take_while(|_| session.emit(&room, text.as_str()).is_ok()).count();
                both.wait();
                session.send(format!("{taken}"))
            })
        });
        route.web_socket("/flooded", move |_: &Call| {
            let room = room.clone();
            on_connect(move |session, _| session.collect(&room))
        });
    });
}

/// The same where it is `process_bytes` that is spent.
#[test]
fn loops_whose_memory_is_full_do_not_wait_for_each_other() {
    let both = Arc::new(Barrier::new(2));
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| flood(app, &both));
    let server = Running(server.unwrap().loops(2).spawn().unwrap().into());
    let mut listeners: Vec<_> = (0..2).map(|_| server.upgrade("/flooded")).collect();
    let mut speakers: Vec<_> = (0..2).map(|_| server.upgrade("/flood")).collect();
    speakers.iter_mut().for_each(|speaker| speaker.text("now"));
    let taken = speakers.iter_mut().map(|speaker| {
        String::from_utf8(speaker.frame().payload).unwrap().parse::<usize>().unwrap()
    });
    let taken: usize = taken.sum();
    assert!(taken > 500, "{taken}");
    for listener in &mut listeners {
        assert!((0..taken).all(|_| listener.frame().payload.len() == 300));
    }
}

/// Fills the memory of a loop with what a reader holds that takes nothing.
fn fill(app: &mut Application) {
    let limits = Limits::new().process_bytes(400_000);
    app.install(WebSockets::new().ping_period(None).limits(limits));
    let held: SharedFlow = app.flow(FlowOptions::new().max_bytes(400_000));
    app.read_flow(&held, |_server, batch| {
        let _ = batch.next();
        Taken::Later
    });
    let room: SharedFlow = app.shared_flow("room", FlowOptions::new());
    app.routing(move |route| {
        let collected = room.clone();
        route.web_socket("/hear", move |_: &Call| {
            let (room, held) = (collected.clone(), held.clone());
            on_connect(move |session, _| session.collect(&room)).on_message(
                move |session, _message| {
                    for size in [1_000, 10, 0] {
                        while held.emit("x".repeat(size).as_str()).is_ok() {}
                    }
                    session.send("full")
                },
            )
        });
        route.web_socket("/say", move |_: &Call| {
            let room = room.clone();
            wirewheel::on_message(move |session, message| {
                session.emit(&room, message.text().unwrap_or_default())
            })
        });
    });
}

/// What was accepted on one loop comes, although another that has spent its memory would not accept it.
#[test]
fn what_a_loop_has_accepted_comes_to_one_whose_memory_is_full() {
    let server =
        Running(Server::bind("127.0.0.1:0", fill).unwrap().loops(2).spawn().unwrap().into());
    let mut speaker = server.upgrade("/say"); // on the first loop, and the other on the second
    let mut listener = server.upgrade("/hear");
    listener.text("fill");
    assert_eq!(listener.frame().payload, b"full");
    for number in 0..1_000 {
        speaker.text(&format!("{number}"));
    }
    for number in 0..1_000 {
        assert_eq!(listener.frame().payload, format!("{number}").as_bytes());
    }
}

#[test]
fn other_threads_publish_on_all_loops() {
    let (named, name) = channel();
    let module = move |app: &mut Application| {
        let news: SharedFlow = app.shared_flow("news", FlowOptions::new());
        named.send(app.flow_key(&news)).unwrap();
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/hear", move |_: &Call| {
                let news = news.clone();
                on_connect(move |session, _| {
                    session.collect(&news)?;
                    session.send("collecting")
                })
            });
        });
    };
    let server = Server::bind("127.0.0.1:0", module).unwrap().loops(2);
    let server = Running(server.spawn().unwrap().into());
    let keys: Vec<_> = name.iter().take(2).collect();
    let mut clients: Vec<_> = (0..4).map(|_| server.upgrade("/hear")).collect();
    clients.iter_mut().for_each(|client| client.expect_text("collecting"));
    for (number, key) in keys.into_iter().enumerate() {
        server.0.emit(key, format!("{number}").as_str()).unwrap();
        clients.iter_mut().for_each(|client| client.expect_text(&format!("{number}")));
    }
}

/// Rooms that come and go: `/room/NAME` opens, `close` forgets.
fn rooms(app: &mut Application) {
    app.install(WebSockets::new().ping_period(None));
    app.routing(|route| {
        route.web_socket("/room/{name}", |call: &Call| {
            let name = call.parameter("name").unwrap_or_default().into_owned();
            let options = FlowOptions::new().replay(1);
            let joined = name.clone();
            on_connect(move |session, _| {
                let room = session.server().shared_flow(&joined, options)?;
                session.send("in")?; // before the replay
                session.collect(&room)
            })
            .on_message(move |session, message| {
                let text = message.text().unwrap_or_default();
                if text == "close" {
                    session.server().forget_shared_flow(&name);
                    return session.send("closed");
                }
                let room = session.server().shared_flow(&name, options)?;
                if text == "count?" {
                    return session.send(format!("{}", room.subscription_count()));
                }
                session.emit(&room, text)
            })
        });
    });
}

fn enter(server: &Running, path: &str) -> Client {
    let mut client = server.upgrade(path);
    client.expect_text("in");
    client
}

#[test]
fn rooms_that_come_and_go_are_those_of_all_loops() {
    for loops in [1, 3] {
        let server = Server::bind("127.0.0.1:0", rooms).unwrap().loops(loops);
        let server = Running(server.spawn().unwrap().into());
        let mut members: Vec<_> = (0..loops).map(|_| enter(&server, "/room/blue")).collect();
        let mut elsewhere: Vec<_> = (0..loops).map(|_| enter(&server, "/room/red")).collect();
        for said_by in 0..loops {
            members[said_by].text(&format!("{said_by} says so"));
            members.iter_mut().for_each(|it| it.expect_text(&format!("{said_by} says so")));
        }
        elsewhere[0].text("quiet here");
        elsewhere.iter_mut().for_each(|it| it.expect_text("quiet here"));
        let last = format!("{} says so", loops - 1);
        // A newcomer of whichever loop has the replay.
        for _ in 0..loops {
            let mut client = enter(&server, "/room/blue");
            client.expect_text(&last);
            members.push(client);
        }
        // Forgotten on all loops, it begins anew.
        for member in &mut members[..loops] {
            member.text("close");
            member.expect_text("closed");
        }
        drop(members);
        loop {
            let mut client = enter(&server, "/room/blue");
            client.text("count?");
            let first = String::from_utf8(client.frame().payload).unwrap();
            if first.parse::<usize>().is_ok() {
                break; // every loop has heard that nobody needs it: nothing is replayed
            }
            assert_eq!(first, last);
            client.frame();
            client.text("close");
            client.expect_text("closed");
        }
    }
}

#[test]
fn a_name_is_for_one_flow() {
    for loops in [1, 2] {
        let module = |app: &mut Application| {
            let _: SharedFlow = app.shared_flow("room", FlowOptions::new());
            let _: SharedFlow = app.shared_flow("room", FlowOptions::new());
        };
        let server = Server::bind("127.0.0.1:0", module).unwrap().loops(loops);
        let mistake = server.spawn().unwrap_err().to_string();
        assert!(mistake.ends_with("there are two of \"room\""), "{mistake}");
    }
}
