//! Several loops as one server: who gets which connection, limits, ids, names and questions across them,
//! statistics, stops, and what is refused at the start.

mod support;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use log::{Level, Log, Metadata, Record};
use rustix::process::{Resource, getrlimit};
use support::*;
use wirewheel::error::{AskError, HandleError, NameError, ServerError};
use wirewheel::watch::{Ready, Watch};
use wirewheel::{
    Application, Call, CloseCode, Drained, Handle, Limits, Response, Server, SessionId, WebSockets,
    on_connect, on_message,
};

fn spawn<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    Builder::new().spawn(act).unwrap()
}

fn serve(loops: usize, module: impl FnOnce(&mut Application) + Clone + Send + 'static) -> Running {
    let server = Server::bind("127.0.0.1:0", module).unwrap().loops(loops);
    Running(server.spawn().unwrap().into())
}

/// The thread that this runs on, by its name.
fn loop_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// A session that began: its id, and its loop.
type Begun = (SessionId, String);

/// A module whose sessions say where they run, and echo.
fn telling(
    limits: Limits,
) -> (impl FnOnce(&mut Application) + Clone + Send + 'static, Receiver<Begun>) {
    let (tell, told) = channel();
    let module = move |app: &mut Application| echo(app, limits, tell);
    (module, told)
}

fn echo(app: &mut Application, limits: Limits, tell: Sender<Begun>) {
    app.install(WebSockets::new().ping_period(None).limits(limits));
    app.routing(|route| {
        route.stats("/metrics");
        route.web_socket("/", move |_: &Call| {
            let tell = tell.clone();
            on_connect(move |session, _| Ok(tell.send((session.id(), loop_name()))?))
                .on_message(|session, message| session.send(message))
        });
    });
}

fn next(told: &Receiver<Begun>) -> Begun {
    told.recv_timeout(PATIENCE).unwrap()
}

/// Two sessions on two loops: their clients and ids.
fn pair(server: &Running, told: &Receiver<Begun>) -> [(Client, SessionId); 2] {
    let mut both: Vec<_> = (0..2)
        .map(|_| {
            let client = server.upgrade("/");
            let (id, name) = next(told);
            (name, (client, id))
        })
        .collect();
    both.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(both[0].0, "wirewheel");
    assert_eq!(both[1].0, "wirewheel-1");
    let both: Vec<_> = both.into_iter().map(|(_, it)| it).collect();
    both.try_into().ok().unwrap()
}

/// How many clients of a ramp this process has descriptors for, at both ends.
fn ramp() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(600).div_euclid(2).clamp(100, 1_000)
}

#[test]
fn after_a_ramp_the_loops_have_as_many_sessions_each() {
    let (module, told) = telling(Limits::new());
    let (server, count) = (serve(4, module), ramp());
    let clients: Vec<_> = (0..count).map(|_| server.upgrade("/")).collect();
    let mut each: HashMap<String, usize> = HashMap::new();
    told.iter().take(count).for_each(|(_, name)| *each.entry(name).or_default() += 1);
    assert_eq!(each.len(), 4);
    let (least, most) = (each.values().min().unwrap(), each.values().max().unwrap());
    assert!(most - least <= 1, "{each:?}");
    drop(clients);
}

/// Answers that are never given.
#[test]
fn each_loop_has_its_part_of_the_answers_that_may_be_deferred() {
    let limits = Limits::new().max_deferred(4);
    let server = serve(2, move |app: &mut Application| {
        app.install(WebSockets::new().limits(limits));
        app.routing(|route| {
            route.get("/later", |call| {
                std::mem::forget(call.defer());
                Response::deferred()
            });
        });
    });
    let ask = |_| {
        let mut client = server.connect();
        client.write("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
        client
    };
    // Two on each loop: whichever gets the next has no room for it.
    let waiting: Vec<_> = (0..4).map(ask).collect();
    wait_until("four deferred", || stats_of(&server, |stats| stats.deferred_open == 4));
    for mut client in (0..2).map(ask) {
        assert_eq!(client.answer(false).status, 503);
    }
    assert_eq!(stats(&server.0).deferred_refused, 2);
    drop(waiting);
}

/// A loop that has not the request passes the answer on to the one that has.
#[test]
fn an_answer_is_given_on_any_loop() {
    let (sender, pendings) = channel();
    let server = serve(2, move |app: &mut Application| {
        app.install(WebSockets::new().limits(Limits::new().max_deferred(4)));
        app.routing(|route| {
            route.get("/later", move |call| {
                sender.send(call.defer()).unwrap();
                Response::deferred()
            });
        });
    });
    // More of them than may be open: each has to be given back, on its own loop.
    for (round, body) in ["one", "two", "three"].into_iter().enumerate() {
        let ask = |_| {
            let mut client = server.connect();
            client.write("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
            client
        };
        let clients: Vec<_> = (0..4).map(ask).collect();
        for _ in 0..4 {
            let pending = pendings.recv_timeout(PATIENCE).unwrap();
            // On the first loop, whichever has the request.
            server.0.defer(move |server| pending.answer_on(server, body)).unwrap();
        }
        for mut client in clients {
            let answer = client.answer(false);
            assert_eq!((answer.status, answer.body.as_str()), (200, body), "round {round}");
        }
        wait_until("all answered", || stats_of(&server, |stats| stats.deferred_open == 0));
        // Those of the next round are spread evenly where none is left of this one.
        wait_until("all gone", || stats_of(&server, |stats| stats.connections_open == 0));
    }
}

/// Connects so many at once, from several threads: the statuses, and the clients that have a session.
fn flood(address: SocketAddr, count: usize) -> (HashMap<u16, usize>, Vec<Client>) {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            spawn(move || {
                let mut statuses = Vec::new();
                for _ in 0..count / 4 {
                    let mut client = Client::connect(address);
                    client.stream.write_all(upgrade_request("/", "").as_bytes()).ok();
                    // Whoever is hung up on has no answer.
                    let mut first = [0];
                    match std::io::Read::read(&mut client.stream, &mut first) {
                        Ok(1) => {
                            client.inbox.push(first[0]);
                            statuses.push((client.answer(false).status, client));
                        }
                        _ => statuses.push((0, client)),
                    }
                }
                statuses
            })
        })
        .collect();
    let (mut counts, mut open) = (HashMap::new(), Vec::new());
    for (status, client) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
        *counts.entry(status).or_default() += 1;
        if status == 101 {
            open.push(client);
        }
    }
    (counts, open)
}

#[test]
fn max_connections_and_per_address_are_exact_under_a_flood() {
    let limits = Limits::new().max_connections(50).linger_timeout(millis(100));
    let (module, _told) = telling(limits);
    let server = serve(4, module);
    let (counts, open) = flood(server.addr(), 200);
    assert_eq!((counts[&101], counts[&503]), (50, 150));
    let stats = stats(&server.0);
    assert_eq!((stats.sessions_open, stats.refused_full), (50, 150));
    drop((server, open));
    let (module, _told) = telling(Limits::new().per_address(10));
    let server = serve(4, module);
    let (counts, open) = flood(server.addr(), 200);
    assert_eq!(counts[&101], 10, "{counts:?}");
    // Places are given back by whichever loop had them.
    drop(open);
    wait_until("all gone", || stats_of(&server, |stats| stats.connections_open == 0));
    let (counts, _open) = flood(server.addr(), 200);
    assert_eq!(counts[&101], 10, "{counts:?}");
}

fn stats(server: &Handle) -> wirewheel::Stats {
    server.stats().unwrap().recv_timeout(PATIENCE).unwrap()
}

fn stats_of(server: &Running, is_so: impl Fn(&wirewheel::Stats) -> bool) -> bool {
    is_so(&stats(&server.0))
}

/// At the limit the first loop does not accept, until a session of another loop ends.
#[test]
fn whoever_waits_in_the_backlog_has_the_place_that_another_loop_gives_back() {
    let minute = Duration::from_secs(60);
    let limits = Limits::new().max_connections(2).min_pending_age(minute).handshake_timeout(minute);
    let (module, told) = telling(limits);
    let server = serve(2, module);
    let [here, (there, _)] = pair(&server, &told);
    let over_limit: Vec<_> = (0..16).map(|_| server.connect()).collect();
    wait_until("two gone", || stats_of(&server, |stats| stats.connections_open == 18));
    let mut waiting = server.connect();
    waiting.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    drop(there);
    assert_eq!(waiting.answer(false).status, 503);
    drop((here, over_limit));
}

/// What a session's hook asks of one that another loop has.
#[test]
fn ids_reach_sessions_of_other_loops() {
    let (module, told) = telling(Limits::new());
    let server = serve(2, module);
    let [(mut here, own), (mut there, other)] = pair(&server, &told);
    server.0.send_to(own, "from a thread").unwrap();
    server.0.send_to(other, "from a thread").unwrap();
    here.expect_text("from a thread");
    there.expect_text("from a thread");
    // `defer` runs on the first loop.
    let across = move |server: &mut wirewheel::ServerRef<'_>| {
        assert_eq!(loop_name(), "wirewheel");
        for number in 0..100 {
            server.send_to(other, format!("{number}")).unwrap();
        }
        assert_eq!(server.sessions().collect::<Vec<_>>(), [own], "of this loop alone");
    };
    server.0.defer(across).unwrap();
    (0..100).for_each(|number| there.expect_text(&number.to_string()));
    server.0.defer(move |server| server.close(other, CloseCode::new(4001)).unwrap()).unwrap();
    assert_eq!(there.expect_close(4001), "");
    server.0.close(own, CloseCode::new(4002)).unwrap();
    assert_eq!(here.expect_close(4002), "");
}

fn named(app: &mut Application, results: &Sender<Result<(), NameError>>) {
    app.install(WebSockets::new());
    let results = results.clone();
    app.routing(move |route| {
        route.web_socket("/{name}", move |_: &Call| {
            let results = results.clone();
            on_connect(move |session, call| {
                let name = call.parameter("name").unwrap_or_default().into_owned();
                Ok(results.send(session.set_name(&name))?)
            })
            .on_message(|session, message| {
                let text = message.text().unwrap_or_default();
                let (correlation, answer) = text.split_once(' ').unwrap_or_default();
                session.answer(correlation, answer);
                Ok(())
            })
        });
    });
}

#[test]
fn a_name_is_one_sessions_on_whichever_loop() {
    let (tell, results) = channel();
    let server = serve(4, move |app| named(app, &tell));
    let result = || results.recv_timeout(PATIENCE).unwrap();
    let mut one = server.upgrade("/device");
    assert_eq!(result(), Ok(()));
    let clients: Vec<_> = (0..7).map(|_| server.upgrade("/device")).collect();
    (0..7).for_each(|_| assert_eq!(result(), Err(NameError::Taken)));
    server.0.send_to_name("device", "hello").unwrap();
    one.expect_text("hello");
    // Its end gives the name back, on every loop.
    drop(one);
    let (tell, told) = channel();
    wait_until("the name is free", || {
        let tell = tell.clone();
        let find = move |server: &mut wirewheel::ServerRef<'_>| {
            tell.send(server.find_session("device")).unwrap();
        };
        server.0.defer(find).unwrap();
        told.recv_timeout(PATIENCE).unwrap().is_none()
    });
    let mut two = server.upgrade("/device");
    assert_eq!(result(), Ok(()));
    server.0.send_to_name("device", "again").unwrap();
    two.expect_text("again");
    drop(clients);
}

/// As with one loop: what finds no room is refused, and not lost on the way.
#[test]
fn whoever_sends_to_a_name_is_told_that_its_loop_has_no_room() {
    let (let_go, held) = channel::<()>();
    let (tell, told) = channel();
    let held = Arc::new(Mutex::new(held));
    let server = serve(2, move |app: &mut Application| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/{name}", move |_: &Call| {
                let (tell, held) = (tell.clone(), Arc::clone(&held));
                on_connect(|session, call| {
                    Ok(session.set_name(&call.parameter("name").unwrap_or_default())?)
                })
                .on_message(move |_, _| {
                    tell.send(()).unwrap();
                    let _ = held.lock().unwrap().recv(); // until the test lets it go
                    Ok(())
                })
            });
        });
    });
    let (_first, mut second) = (server.upgrade("/first"), server.upgrade("/second"));
    second.text("hold");
    told.recv_timeout(PATIENCE).unwrap();
    let send = |_: &usize| server.0.send_to_name("second", "x").is_ok();
    assert_eq!((0..10_000).take_while(send).count(), 1_024);
    assert_eq!(server.0.send_to_name("second", "x"), Err(HandleError::Full));
    assert_eq!(server.0.send_to_name("nobody", "x"), Ok(()));
    drop(let_go);
    (0..1_024).for_each(|_| second.expect_text("x"));
}

#[test]
fn questions_are_answered_across_loops() {
    let (tell, results) = channel();
    let server = serve(2, move |app| named(app, &tell));
    let mut clients: Vec<_> = (0..2)
        .map(|number| {
            let client = server.upgrade(&format!("/device-{number}"));
            results.recv_timeout(PATIENCE).unwrap().unwrap();
            client
        })
        .collect();
    let (tell, answers) = channel();
    let ask = |name: &'static str, correlation: &'static str, time: Duration| {
        let tell = tell.clone();
        let ask = move |server: &mut wirewheel::ServerRef<'_>| {
            let id = server.find_session(name).unwrap();
            let asked = server.ask(id, correlation, format!("{correlation}?"), time, {
                let tell = tell.clone();
                move |_, answer| {
                    assert_eq!(loop_name(), "wirewheel", "where it was asked");
                    let answer = answer.map(|message| message.text().unwrap().to_owned());
                    tell.send(answer).unwrap();
                }
            });
            if let Err(error) = asked {
                tell.send(Err(error)).unwrap();
            }
        };
        server.0.defer(ask).unwrap();
    };
    let answer = || answers.recv_timeout(PATIENCE).unwrap();
    for (client, name) in clients.iter_mut().zip(["device-0", "device-1"]) {
        ask(name, "17", PATIENCE);
        client.expect_text("17?");
        ask(name, "17", PATIENCE);
        assert_eq!(answer(), Err(AskError::Duplicate));
        client.text("17 yes");
        assert_eq!(answer(), Ok("yes".to_owned()));
        ask(name, "18", millis(20));
        client.expect_text("18?");
        assert_eq!(answer(), Err(AskError::Timeout));
        client.text("18 too late");
        ask(name, "19", PATIENCE);
        client.expect_text("19?");
    }
    drop(clients);
    assert_eq!([answer(), answer()], [Err(AskError::Ended), Err(AskError::Ended)]);
}

#[test]
fn statistics_are_those_of_all_loops() {
    let (module, _told) = telling(Limits::new());
    let server = serve(3, module);
    let mut clients: Vec<_> = (0..9).map(|_| server.upgrade("/")).collect();
    for client in &mut clients {
        client.text("hello");
        client.expect_text("hello");
    }
    let stats = stats(&server.0);
    assert_eq!((stats.connections_total, stats.sessions_open, stats.messages_in), (9, 9, 9));
    let page = || {
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        server.connect().request(request).body
    };
    // A page has what other loops had counted when their last turns were over.
    let figures =
        ["\nwirewheel_sessions_open 9\n", "\nwirewheel_messages_total{direction=\"in\"} 9\n"];
    wait_until("all figures", || {
        let page = page();
        figures.iter().all(|figure| page.contains(figure))
    });
}

/// While some loops are over and others serve what is left.
#[test]
fn statistics_are_told_as_long_as_a_loop_is_left() {
    for over in [0, 1] {
        let (module, told) = telling(Limits::new().close_timeout(PATIENCE));
        let server = serve(2, module);
        let mut both: Vec<_> = pair(&server, &told).into();
        let (mut client, id) = both.remove(over);
        client.text("hello");
        client.expect_text("hello");
        server.0.shutdown(PATIENCE);
        client.expect_close(1001);
        client.send(CLOSE, &close_payload(1001, ""));
        client.expect_eof();
        drop(client);
        // That of the first one is that of the server.
        wait_until("the end of its loop", || over == 0 || server.0.send_to(id, "").is_err());
        let stats = stats(&server.0);
        assert_eq!((stats.connections_total, stats.sessions_open, stats.messages_in), (2, 1, 1));
        server.0.shutdown(Duration::ZERO);
        server.0.join().unwrap();
        assert_eq!(server.0.stats().unwrap_err(), HandleError::Stopped);
    }
}

#[test]
fn a_stop_tells_the_sessions_of_all_loops_and_counts_them() {
    for from_a_hook in [false, true] {
        // Longer than a busy machine keeps a client from its answer.
        let (module, _told) = telling(Limits::new().close_timeout(PATIENCE));
        let server = serve(4, module);
        let mut clients: Vec<_> = (0..12).map(|_| server.upgrade("/")).collect();
        if from_a_hook {
            server.0.defer(|server| server.shutdown(PATIENCE)).unwrap();
        } else {
            server.0.shutdown(PATIENCE);
        }
        for client in &mut clients[..11] {
            client.expect_close(1001);
            client.send(CLOSE, &close_payload(1001, ""));
            client.expect_eof();
        }
        drop(clients);
        let drained = server.0.join().unwrap();
        assert_eq!((drained.clean, drained.cut), (11, 1));
    }
}

#[test]
fn a_second_stop_hurries_every_loop() {
    let (module, told) = telling(Limits::new());
    let server = serve(2, module);
    let clients = pair(&server, &told);
    server.0.shutdown(Duration::from_secs(600));
    server.0.shutdown(Duration::ZERO);
    assert_eq!(server.0.join().unwrap().cut, 2);
    drop(clients);
}

#[test]
fn what_is_there_once_is_set_up_once() {
    let set_up = Arc::new(AtomicUsize::new(0));
    let (once, all) = (Arc::clone(&set_up), Arc::new(AtomicUsize::new(0)));
    let each = Arc::clone(&all);
    let (beat, beats) = channel();
    let server = serve(3, move |app: &mut Application| {
        each.fetch_add(1, Ordering::Relaxed);
        app.once(|app| {
            once.fetch_add(1, Ordering::Relaxed);
            app.every(millis(5), move |_| beat.send(loop_name()).unwrap_or(()));
        });
        app.on_shutdown(move |_| _ = each.fetch_add(10, Ordering::Relaxed));
    });
    assert_eq!(beats.recv_timeout(PATIENCE).unwrap(), "wirewheel");
    assert_eq!((set_up.load(Ordering::Relaxed), all.load(Ordering::Relaxed)), (1, 3));
    drop(server);
    assert_eq!(all.load(Ordering::Relaxed), 33, "on_shutdown runs on each loop");
}

fn mistake(loops: usize, module: impl FnOnce(&mut Application) + Clone + Send + 'static) -> String {
    let server = Server::bind("127.0.0.1:0", module).unwrap().loops(loops);
    let Err(ServerError::Config(mistake)) = server.spawn() else { panic!("it started") };
    mistake
}

#[test]
fn what_would_be_there_for_each_loop_is_refused_with_the_remedy() {
    let every = |app: &mut Application| app.every(PATIENCE, |_| ());
    let watch = |app: &mut Application| {
        let (port, _) = std::os::unix::net::UnixStream::pair().unwrap();
        app.watch(port, Ready::READABLE, |_, _, _| Watch::Stop);
    };
    assert!(mistake(2, every).starts_with("Application::every runs once for each loop"));
    assert!(mistake(2, watch).contains("put it into app.once(|app| ..)"));
    #[cfg(feature = "client")]
    assert!(mistake(2, dial).starts_with("Application::connect runs once for each loop"));
    assert!(mistake(0, |_| ()).starts_with("loops is 0"));
    assert!(mistake(65, |_| ()).starts_with("loops is over 64"));
    let (module, _told) = telling(Limits::new().process_bytes(1 << 20));
    let big = move |app: &mut Application| {
        module(app);
        app.routing(|route| {
            let echo = |_: &Call| on_message(|session, message| session.send(message));
            route.web_socket("/big", echo).max_frame_size(1 << 20);
        });
    };
    let mistake = mistake(4, big);
    assert!(mistake.contains("process_bytes"), "a quarter of it is too little: {mistake}");
    let server = Server::bind("127.0.0.1:0", |_: &mut Application| ()).unwrap().loops(2);
    let refused = server.into_driver().unwrap_err().to_string();
    assert!(refused.contains("use run or spawn"), "{refused}");
}

#[cfg(feature = "client")]
fn dial(app: &mut Application) {
    let options = wirewheel::client::ConnectOptions::new();
    app.connect("ws://127.0.0.1:1/", options, |_: &Call| on_message(|_, _| Ok(())));
}

/// The set-up of each loop is its own, and that of one may fail.
#[test]
fn a_loop_that_cannot_be_set_up_ends_the_start() {
    for panics in [false, true] {
        let set_up = Arc::new(AtomicUsize::new(0));
        let module = move |app: &mut Application| {
            if set_up.fetch_add(1, Ordering::Relaxed) == 2 {
                assert!(!panics, "on purpose");
                app.install(WebSockets::new().ping_period(Duration::ZERO));
            }
        };
        let server = Server::bind("127.0.0.1:0", module).unwrap().loops(4);
        let address = server.local_addr();
        let error = server.spawn().unwrap_err().to_string();
        assert!(error.contains(if panics { "panicked" } else { "ping_period" }), "{error}");
        assert!(TcpStream::connect(address).is_err(), "nothing is left of it");
    }
}

#[test]
fn a_hook_of_any_loop_may_not_wait_for_the_server() {
    let (give, given) = channel::<Handle>();
    let given = Arc::new(Mutex::new(given));
    let (tell, told) = channel();
    let server = serve(2, move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (given, tell) = (Arc::clone(&given), tell.clone());
                on_connect(move |_, _| {
                    let server = given.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                    Ok(tell.send(matches!(server.join(), Err(ServerError::JoinOnLoop)))?)
                })
            });
        });
    });
    for _ in 0..2 {
        give.send(Handle::clone(&server.0)).unwrap();
        let _client = server.upgrade("/");
        assert!(told.recv_timeout(PATIENCE).unwrap());
    }
}

/// Its thread is the application's again.
#[test]
fn whoever_has_run_a_server_may_wait_for_it() {
    let server = Server::bind("127.0.0.1:0", |_: &mut Application| ()).unwrap().loops(2);
    let handle = server.handle();
    handle.shutdown(Duration::ZERO);
    server.run().unwrap();
    assert_eq!(handle.join().unwrap(), Drained::default());
}

/// A panic of the loop itself, which is none of a hook: here of a logger.
#[test]
fn a_loop_that_panics_ends_the_server_with_a_word() {
    // The process has one logger, and loops of other tests are slow too on a busy machine.
    thread_local!(static IS_MEANT: Cell<bool> = const { Cell::new(false) });
    struct Panics;
    impl Log for Panics {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Warn
        }
        fn log(&self, record: &Record<'_>) {
            if IS_MEANT.get() && record.args().to_string().contains("blocked the event loop") {
                IS_MEANT.set(false);
                panic!("the disk is full");
            }
        }
        fn flush(&self) {}
    }
    log::set_logger(&Panics).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    for number in [0, 1] {
        let (tell, told) = channel();
        let limits = Limits::new().close_timeout(PATIENCE);
        let server = serve(2, move |app: &mut Application| {
            echo(app, limits, tell);
            app.routing(move |route| {
                route.get("/slow", |_call| {
                    IS_MEANT.set(true);
                    let (_keep, never) = channel::<()>();
                    let _ = never.recv_timeout(millis(150)); // slow_callback is 100 ms
                    "done"
                });
            });
        });
        let mut both: Vec<_> = pair(&server, &told).into();
        let (mut there, _) = both.remove(number);
        let (mut here, _) = both.remove(0);
        // The third connection goes to the first loop, the fourth to the second.
        let mut more = [server.connect(), server.connect()];
        more[number].write("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        here.expect_close(1001);
        while there.stream.read_to_end_or_reset() {}
        drop((here, more));
        let error = server.0.join().unwrap_err().to_string();
        assert!(error.contains(&format!("loop {number} panicked: the disk is full")), "{error}");
        std::mem::forget(server); // it was joined, with an error
    }
}

trait ToTheEnd {
    fn read_to_end_or_reset(&mut self) -> bool;
}

impl ToTheEnd for TcpStream {
    /// Whether there may be more.
    fn read_to_end_or_reset(&mut self) -> bool {
        matches!(std::io::Read::read(self, &mut [0; 64]), Ok(n) if n > 0)
    }
}

#[test]
fn connections_of_others_are_counted_and_spread_too() {
    let (module, told) = telling(Limits::new().max_connections(4));
    let server = serve(2, module);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = Client::connect(listener.local_addr().unwrap());
        let (stream, peer) = listener.accept().unwrap();
        let request = upgrade_request("/", "");
        server.0.adopt(stream, request.as_bytes().to_vec(), peer).unwrap();
        clients.push(client);
        assert_eq!(clients.last_mut().unwrap().answer(false).status, 101);
    }
    let names: Vec<_> = told.iter().take(4).map(|(_, name)| name).collect();
    assert_eq!(names.iter().filter(|name| *name == "wirewheel").count(), 2, "{names:?}");
    let mut fifth = server.connect();
    assert_eq!(fifth.request(&upgrade_request("/", "")).status, 503);
}

/// Descriptors that this process has.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Waits until there are so many threads again: one that was joined has ended for who joined it a moment
/// before the kernel takes it off the list (`join` wakes at `set_tid_address(2)`).
#[allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]
fn back_to(count: usize) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while threads() != count {
        assert!(std::time::Instant::now() < deadline, "{} threads, of {count} before", threads());
        thread::yield_now();
    }
}

#[test]
#[ignore = "it counts what the process has, so that it has to be alone in it"]
fn thirty_rounds_of_start_load_and_stop_leave_nothing() {
    let (mut before, threads_before) = (0, threads());
    for round in 0..30 {
        let (module, _told) = telling(Limits::new());
        let server = serve(4, module);
        let address = server.addr();
        let clients: Vec<_> = (0..8)
            .map(|_| {
                spawn(move || {
                    let mut client = Client::connect(address).upgraded("/");
                    for number in 0..50 {
                        client.text(&format!("{number}"));
                        client.expect_text(&format!("{number}"));
                    }
                    client
                })
            })
            .collect();
        let clients: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        drop(server);
        drop(clients);
        back_to(threads_before);
        if round == 0 {
            before = descriptors(); // with what the first server opens for good
        }
        assert_eq!(descriptors(), before, "round {round}");
    }
}

#[test]
fn the_rounds_leave_nothing_in_a_process_of_their_own() {
    let program = std::env::current_exe().unwrap();
    let output = emulator::command(program)
        .args(["--ignored", "--exact", "thirty_rounds_of_start_load_and_stop_leave_nothing"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" 1 passed"), "{said}");
}
