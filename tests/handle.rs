//! A server from other threads: orders, messages, flows, limits, and what is said when it is over.

#![allow(clippy::disallowed_methods, reason = "a test of threads starts some")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use support::*;
use wirewheel::error::{HandleError, SendError};
use wirewheel::flow::{FlowKey, FlowOptions, SharedFlow};
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Drained, Handle, Server, SessionId, WebSockets,
    on_connect,
};

/// Sessions at `/` tell their id, collect a flow and echo.
fn serve() -> (Running, Receiver<SessionId>, FlowKey<str>) {
    let (opened, ids) = channel();
    let (named, name) = channel();
    let server = Running::start(move |app: &mut Application| {
        let flow: SharedFlow = SharedFlow::with(FlowOptions::new().extra_buffer(10_000)).unwrap();
        named.send(app.flow_key(&flow)).unwrap();
        app.install(WebSockets::new().max_outgoing_message_size(64 << 10));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (opened, flow) = (opened.clone(), flow.clone());
                on_connect(move |session, _| {
                    opened.send(session.id())?;
                    session.collect(&flow)
                })
                .on_message(|session, message| session.send(message))
            });
        });
    });
    (server, ids, name.recv().unwrap())
}

fn id(ids: &Receiver<SessionId>) -> SessionId {
    ids.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn orders_of_several_threads_run_on_the_loop_each_threads_in_order() {
    let (server, _ids, _) = serve();
    let (tell, told) = channel();
    let threads: Vec<_> = (0..4)
        .map(|name| {
            let (handle, tell) = (server.0.clone(), tell.clone());
            thread::spawn(move || {
                for number in 0..200 {
                    let tell = tell.clone();
                    let order = move |_: &mut wirewheel::ServerRef<'_>| {
                        tell.send((name, number, thread::current().id())).unwrap();
                    };
                    while handle.defer(order.clone()) == Err(HandleError::Full) {
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(tell);
    drop(server);
    let all: Vec<_> = told.iter().collect();
    for name in 0..4 {
        let numbers: Vec<_> =
            all.iter().filter(|(of, ..)| *of == name).map(|(_, n, _)| *n).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    }
    assert!(all.iter().all(|(.., on)| *on == all[0].2 && *on != thread::current().id()));
}

#[test]
fn a_handle_sends_to_a_session_and_closes_it() {
    let (server, ids, _) = serve();
    let (mut client, mut other) = (server.upgrade("/"), server.upgrade("/"));
    let (first, second) = (id(&ids), id(&ids));
    server.0.send_to(first, "for the first").unwrap();
    server.0.send_to(second, &b"for the second"[..]).unwrap();
    client.expect_text("for the first");
    assert_eq!((other.frame().first, first == second), (BINARY, false));
    let reason = CloseReason::new(CloseCode::NORMAL, "from afar").unwrap();
    server.0.close(first, reason.clone()).unwrap();
    assert_eq!(client.expect_close(1000), "from afar");
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_eof();
    server.0.send_to(first, "to nobody").unwrap();
    let (tell, told) = channel();
    server
        .0
        .defer(move |server| {
            let sent = (server.send_to(first, "late"), server.close(first, reason));
            tell.send((sent, server.session_count())).unwrap();
        })
        .unwrap();
    let (sent, open) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((sent, open), ((Err(SendError::Gone), Err(SendError::Gone)), 1));
    other.text("still there");
    other.expect_text("still there");
    let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
    assert_eq!((stats.sessions_open, stats.closed_normal), (1, 1));
}

#[test]
fn threads_publish_in_a_flow_by_its_key() {
    let (server, ids, flow) = serve();
    let mut clients = [server.upgrade("/"), server.upgrade("/")];
    let _ = (id(&ids), id(&ids));
    let threads: Vec<_> = ["a", "b"]
        .map(|name| {
            let handle = server.0.clone();
            thread::spawn(move || {
                for number in 0..300 {
                    handle.emit(flow, format!("{name} {number}").as_str()).unwrap();
                }
            })
        })
        .into();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for client in &mut clients {
        let mut next = [0, 0];
        for _ in 0..600 {
            let text = String::from_utf8(client.frame().payload).unwrap();
            let (name, number) = text.split_once(' ').unwrap();
            let next = &mut next[usize::from(name == "b")];
            assert_eq!(number.parse(), Ok(*next));
            *next += 1;
        }
    }
}

/// Holds the loop until what it returns is dropped.
fn hold(handle: &Handle) -> impl Drop + use<> {
    struct Held(Option<std::sync::mpsc::Sender<()>>);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0 = None;
        }
    }
    let (release, released) = channel::<()>();
    let (begun, begins) = channel();
    handle
        .defer(move |_| {
            begun.send(()).unwrap();
            let _ = released.recv();
        })
        .unwrap();
    begins.recv_timeout(PATIENCE).unwrap();
    Held(Some(release))
}

#[test]
fn a_loop_that_is_held_up_makes_full_and_never_waits() {
    let (server, ids, flow) = serve();
    let mut client = server.upgrade("/");
    let session = id(&ids);
    let held = hold(&server.0);
    let big = vec![0; 1 << 20];
    let taken = (0..10).take_while(|_| server.0.send_to(session, &big).is_ok()).count();
    assert_eq!(taken, 4, "4 MiB of messages");
    assert_eq!(server.0.emit(flow, "x"), Err(HandleError::Full));
    assert!(server.0.defer(|_| ()).is_ok(), "an order without bytes has room");
    let taken = (0..5_000).take_while(|_| server.0.defer(|_| ()).is_ok()).count();
    assert_eq!(taken, 1_024 - 5, "1,024 orders");
    assert_eq!(server.0.stats().unwrap_err(), HandleError::Full);
    drop(held);
    // They are over max_outgoing_message_size, and refused to nobody's harm.
    client.text("served again");
    client.expect_text("served again");
    server.0.send_to(session, "room again").unwrap();
    client.expect_text("room again");
}

#[test]
fn a_stop_comes_through_a_full_mailbox() {
    let (server, _ids, _) = serve();
    let held = hold(&server.0);
    while server.0.defer(|_| ()).is_ok() {}
    server.0.shutdown(Duration::ZERO);
    drop(held);
    assert_eq!(server.0.join().unwrap(), Drained::default());
}

#[test]
fn an_order_that_orders_itself_again_does_not_keep_the_loop() {
    fn again(handle: &Handle, stop: &Arc<AtomicBool>) {
        let (next, flag) = (handle.clone(), Arc::clone(stop));
        if !stop.load(Ordering::Relaxed) {
            let _ = handle.defer(move |_| again(&next, &flag));
        }
    }
    let (server, _ids, _) = serve();
    let stop = Arc::new(AtomicBool::new(false));
    again(&server.0, &stop);
    let mut client = server.upgrade("/");
    client.text("served");
    client.expect_text("served");
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn a_panic_in_an_order_ends_nothing_else() {
    let (server, _ids, _) = serve();
    server.0.defer(|_| panic!("on purpose")).unwrap();
    let mut client = server.upgrade("/");
    client.text("served");
    client.expect_text("served");
}

/// Nobody is told at once that a flow had no room for what another thread published: it is counted.
#[test]
fn what_a_flow_has_no_room_for_counts_as_dropped() {
    let (named, name) = channel();
    let server = Running::start(move |app: &mut Application| {
        let flow: SharedFlow = SharedFlow::with(FlowOptions::new().max_bytes(1_000)).unwrap();
        named.send(app.flow_key(&flow)).unwrap();
        app.every(PATIENCE, move |_| assert_eq!(flow.subscription_count(), 0)); // keeps it
    });
    let flow = name.recv().unwrap();
    server.0.emit(flow, "y".repeat(2_000).as_str()).unwrap();
    let (tell, told) = channel();
    server
        .0
        .defer(move |server| tell.send(server.find_flow(flow).map(|flow| flow.dropped())).unwrap())
        .unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Some(1));
}

#[track_caller]
fn expect_stopped(handle: &Handle, session: SessionId, flow: FlowKey<str>) {
    let reason = CloseReason::new(CloseCode::NORMAL, "").unwrap();
    assert_eq!(handle.defer(|_| ()), Err(HandleError::Stopped));
    assert_eq!(handle.send_to(session, "x"), Err(HandleError::Stopped));
    assert_eq!(handle.close(session, reason), Err(HandleError::Stopped));
    assert_eq!(handle.emit(flow, "x"), Err(HandleError::Stopped));
    assert_eq!(handle.stats().unwrap_err(), HandleError::Stopped);
    handle.shutdown(Duration::ZERO); // nothing is left to stop
}

#[test]
fn a_server_that_is_over_says_so() {
    let (server, ids, flow) = serve();
    let _client = server.upgrade("/");
    let session = id(&ids);
    server.0.shutdown(Duration::ZERO);
    server.0.join().unwrap();
    expect_stopped(&server.0, session, flow);
}

/// `run` on a thread of the test; the handle was there before, and what it was asked then waits.
#[test]
fn a_server_that_is_run_has_a_handle_too() {
    let (named, name) = channel();
    let (opened, ids) = channel();
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        named.send(app.flow_key(&SharedFlow::<str>::new())).unwrap();
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let opened = opened.clone();
                on_connect(move |session, _| Ok(opened.send(session.id())?))
            });
        });
    })
    .unwrap();
    let handle = server.handle();
    let early = handle.stats().unwrap();
    let running = thread::spawn(move || server.run());
    assert_eq!(early.recv_timeout(PATIENCE).unwrap().sessions_open, 0);
    let mut client = Client::connect(handle.local_addr()).upgraded("/");
    let session = id(&ids);
    handle.send_to(session, "hello").unwrap();
    client.expect_text("hello");
    handle.shutdown(PATIENCE);
    client.expect_close(1001);
    client.send(CLOSE, &close_payload(1001, ""));
    client.expect_eof();
    drop(client);
    running.join().unwrap().unwrap();
    assert_eq!(handle.join().unwrap(), Drained::default(), "its thread is not the handle's");
    expect_stopped(&handle, session, name.recv().unwrap());
}
