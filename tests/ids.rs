//! Ids of one server or loop that another is given: nothing of it has such a name.

mod support;

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use support::*;
#[cfg(feature = "client")]
use wirewheel::client::{ConnectOptions, DialerKey};
use wirewheel::error::{AskError, SendError};
use wirewheel::flow::{FlowKey, ReaderId, SharedFlow, Taken};
use wirewheel::watch::{Ready, Watch, WatchId};
use wirewheel::{Application, Call, Server, ServerRef, SessionId, TimerId, WebSockets, on_connect};

/// How many of each kind a loop makes: more than the loop's own, which may have the first numbers.
const COUNT: usize = 8;

/// What was made on a loop.
struct Made {
    session: SessionId,
    timers: Vec<TimerId>,
    of_session: TimerId,
    readers: Vec<ReaderId>,
    watches: Vec<WatchId>,
    /// Of a flow that its sessions collect.
    texts: FlowKey<str>,
    /// Of another.
    bytes: FlowKey<[u8]>,
    #[cfg(feature = "client")]
    dialer: DialerKey,
}

/// Makes some of all, which have the same numbers on each loop unless it begins elsewhere. What acts says so.
fn make(
    server: &mut ServerRef<'_>,
    delay: Duration,
    told: impl Fn(&str) + Clone + 'static,
) -> Kept {
    let flow: SharedFlow = SharedFlow::new();
    let (mut timers, mut readers, mut watches) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..COUNT {
        let tell = told.clone();
        timers.push(server.after(delay, move |_| tell("timer")).unwrap());
        let tell = told.clone();
        readers.push(server.read_flow(&flow, move |_, batch| {
            batch.by_ref().for_each(|_| tell("reader"));
            Taken::Yes
        }));
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let tell = told.clone();
        // It has room all the time, and nobody asks for that but by its id.
        watches.push(server.watch(here, Ready::READABLE, move |_, _, _| {
            let _there = &there;
            tell("watch");
            Watch::Stop
        }));
    }
    Kept { flow, timers, readers, watches }
}

struct Kept {
    flow: SharedFlow,
    timers: Vec<TimerId>,
    readers: Vec<ReaderId>,
    watches: Vec<WatchId>,
}

/// A server whose sessions make some of all, and what they made.
fn serve(loops: usize) -> (Running, Receiver<Made>) {
    let (tell, made) = channel();
    let module = move |app: &mut Application| {
        let (texts, bytes) = (SharedFlow::<str>::new(), SharedFlow::<[u8]>::new());
        let bytes_key = app.flow_key(&bytes);
        let texts_key = app.flow_key(&texts);
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (tell, texts, bytes) = (tell.clone(), texts.clone(), bytes.clone());
                on_connect(move |session, _| {
                    session.collect(&texts)?;
                    session.collect(&bytes)?;
                    let of_session = session.set_timer(PATIENCE)?;
                    let id = session.id();
                    let server = &mut session.server();
                    let Kept { timers, readers, watches, .. } = make(server, PATIENCE, |_| ());
                    Ok(tell.send(Made {
                        session: id,
                        timers,
                        of_session,
                        readers,
                        watches,
                        texts: texts_key,
                        bytes: bytes_key,
                        #[cfg(feature = "client")]
                        dialer: dial(server),
                    })?)
                })
                .on_message(|session, message| session.send(message))
            });
        });
    };
    let server = Server::bind("127.0.0.1:0", module).unwrap();
    let server = if loops == 1 {
        Running::of(server)
    } else {
        Running(server.loops(loops).spawn().unwrap().into())
    };
    (server, made)
}

#[cfg(feature = "client")]
fn dial(server: &mut ServerRef<'_>) -> DialerKey {
    let options = ConnectOptions::new();
    let dialer = server.connect("ws://127.0.0.1:1/", options, |_: &Call| {
        on_connect(|_, _| Ok(())).on_message(|_, _| Ok(()))
    });
    dialer.unwrap().key()
}

/// Sessions of a server, one on each of its loops in their order, with what they made.
fn sessions(server: &Running, made: &Receiver<Made>, loops: usize) -> Vec<(Client, Made)> {
    let one = |_| (server.upgrade("/"), made.recv_timeout(PATIENCE).unwrap());
    (0..loops).map(one).collect()
}

/// Asks the first loop of a server for all that `foreign` names, and sees that none of its own is touched.
fn check_refused(server: &Running, own: &mut Client, foreign: Made) {
    let (tell, told) = channel();
    let (say, refused) = channel();
    let Made { timers, readers, watches, of_session, .. } = foreign;
    #[cfg(feature = "client")]
    let dialer = foreign.dialer;
    server
        .0
        .defer(move |server| {
            let tell = move |what: &str| tell.send(what.to_owned()).unwrap_or(());
            let kept = make(server, Duration::from_millis(1), tell);
            let ids: HashSet<_> = timers.iter().chain([&of_session]).collect();
            let mut is_right = kept.timers.iter().all(|timer| !ids.contains(timer));
            timers.into_iter().chain([of_session]).for_each(|id| server.cancel_timer(id));
            readers.into_iter().for_each(|id| server.stop_reading(id));
            watches.iter().for_each(|id| server.rewatch(*id, Ready::WRITABLE));
            is_right &= watches.iter().all(|id| !kept.watches.contains(id));
            #[cfg(feature = "client")]
            {
                let own = dial(server);
                is_right &= server.find_dialer(own).is_some();
                is_right &= server.find_dialer(dialer).is_none();
            }
            kept.flow.emit("something").unwrap();
            say.send(is_right).unwrap();
        })
        .unwrap();
    assert!(refused.recv_timeout(PATIENCE).unwrap(), "ids of another are found");
    let mut acted: Vec<_> =
        (0..2 * COUNT).map(|_| told.recv_timeout(PATIENCE).unwrap_or_default()).collect();
    acted.sort();
    let expected = ["reader"; COUNT].into_iter().chain(["timer"; COUNT]);
    assert!(acted.iter().map(String::as_str).eq(expected), "{acted:?}");
    // Watches end with the loop's next looks: the echo comes behind them.
    own.text("still here");
    own.expect_text("still here");
    assert!(!told.try_iter().any(|what| what == "watch"));
}

#[test]
fn what_one_loop_has_named_no_other_loop_has() {
    let (server, made) = serve(2);
    let mut both = sessions(&server, &made, 2);
    let (_there, foreign) = both.pop().unwrap();
    let (mut own, _) = both.pop().unwrap();
    check_refused(&server, &mut own, foreign);
}

/// What a session of another server is asked for reaches nobody here, whichever loops both have, and whether
/// that server is there still.
#[test]
fn what_one_server_has_named_no_other_server_has() {
    for (loops, own_loops, is_over) in [(1, 1, false), (1, 1, true), (2, 2, true), (1, 2, false)] {
        let (other, made) = serve(loops);
        let mut theirs = sessions(&other, &made, loops);
        let (other, theirs) = if is_over {
            drop(other);
            (None, theirs.drain(..).map(|(_, made)| (None, made)).collect::<Vec<_>>())
        } else {
            let theirs = theirs.drain(..).map(|(client, made)| (Some(client), made));
            (Some(other), theirs.collect())
        };
        let (server, made) = serve(own_loops);
        let mut own = sessions(&server, &made, own_loops);
        for (client, foreign) in theirs {
            assert!(own.iter().all(|(_, made)| made.session != foreign.session));
            send_to_nobody(&server, &foreign);
            for (own, made) in &mut own {
                server.0.send_to(made.session, "is the first").unwrap();
                own.expect_text("is the first");
                server.0.emit(made.texts, "published").unwrap();
                own.expect_text("published");
            }
            check_refused(&server, &mut own[0].0, foreign);
            drop(client);
        }
        drop(other);
    }
}

fn send_to_nobody(server: &Running, foreign: &Made) {
    let id = foreign.session;
    server.0.send_to(id, "for somebody else").unwrap();
    server.0.close(id, wirewheel::CloseCode::NORMAL).unwrap();
    server.0.emit(foreign.bytes, b"\xff".as_slice()).unwrap();
    server.0.emit(foreign.texts, "of another flow").unwrap();
    let (say, said) = channel();
    let answered = move |_: &mut ServerRef<'_>,
                         answer: Result<wirewheel::Message<'_>, AskError>| {
        say.send(answer.err()).unwrap();
    };
    server.0.ask(id, "1", "1 who", PATIENCE, answered).unwrap();
    let answer = said.recv_timeout(PATIENCE).unwrap();
    assert_eq!(answer, Some(AskError::Send(SendError::Gone)));
}
