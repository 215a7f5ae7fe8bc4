//! What is held or left unread: it is taken whole and once, and whoever ends meanwhile is seen to.

#[cfg(feature = "tls")]
use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::{Net, secs};
use crate::app::application::{Application, WebSockets};
use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::call::Call;
use crate::app::handler::on_message;
use crate::app::response::Response;
use crate::core::Disposal;
use crate::core::deferring::Pending;
use crate::testing::TestApplication;
use crate::testing::frames::{masked, upgrade_request};
use crate::testing::network::{LinkId, Network, PeerEnd};
use crate::words::close::CloseCode;
use crate::words::limits::Limits;

type Events = Rc<RefCell<Vec<String>>>;

fn quiet() -> WebSockets {
    WebSockets::new().ping_period(None)
}

/// Sessions that pause when they are told to, panic when they are told to, and close at a pong.
fn net() -> (Network, Events) {
    let events = Events::default();
    let notes = Rc::clone(&events);
    let mut application = Application::new();
    application.install(quiet());
    application.routing(move |route| {
        route.web_socket("/", move |_: &Call| {
            let (error, close, taken) = (Rc::clone(&notes), Rc::clone(&notes), Rc::clone(&notes));
            on_message(move |session, message| {
                match message.text() {
                    Some("pause") => session.pause(),
                    Some("panic") => panic!("planned"),
                    _ => taken.borrow_mut().push(format!("{} bytes", message.bytes().len())),
                }
                Ok(())
            })
            .on_own_pong(|session, _| session.close(CloseCode::NORMAL))
            .on_error(move |_, fault| error.borrow_mut().push(format!("error {fault}")))
            .on_close(move |_, end| {
                let how = if end.is_clean() { "clean" } else { "unclean" };
                close.borrow_mut().push(format!("close {} {how}", end.code()));
            })
        });
    });
    let mut network = Network::new(application.build().unwrap());
    network.tolerates = |panic| panic == "planned";
    (network, events)
}

fn open(net: &mut Network) -> LinkId {
    let link = net.connect(([127, 0, 0, 1], 4000).into());
    net.send(link, upgrade_request("/", "").as_bytes());
    assert!(got(net, link).starts_with(b"HTTP/1.1 101 "));
    link
}

fn got(net: &mut Network, link: LinkId) -> Vec<u8> {
    std::mem::take(&mut net.link(link).socket.got)
}

fn pause(net: &mut Network, on: bool) {
    net.run(|server| {
        for id in server.sessions() {
            let done = if on { server.pause(id) } else { server.resume(id) };
            done.unwrap();
        }
    });
}

/// The pings and pongs were taken out from between the frames, which close up behind them: also where the
/// hook for the last of them ends the session.
#[test]
fn what_is_held_is_whole_where_a_hook_for_a_pong_in_it_closes() {
    let (mut net, events) = net();
    let link = open(&mut net);
    pause(&mut net, true);
    let held = [masked(0x89, b"before"), masked(0x81, &[b'x'; 40]), masked(0x8a, b"")].concat();
    net.send(link, &held);
    assert!(got(&mut net, link).ends_with(b"\x88\x02\x03\xe8"));
    net.send(link, &masked(0x88, b"\x03\xe8"));
    assert_eq!(*events.borrow(), ["close 1000 clean"], "nothing is delivered behind our Close");
}

/// The socket was not read for the pause; once the session is over it is, so that the hang-up is seen, and
/// nothing is left in it that would make a reset of the end.
#[test]
fn a_panic_over_what_was_held_leaves_nothing_unread() {
    let (mut net, events) = net();
    let link = open(&mut net);
    net.send(link, &masked(0x81, b"pause"));
    net.send(link, &[masked(0x81, b"panic"), masked(0x82, &[7; 60_000])].concat());
    net.send(link, &masked(0x82, &[7; 60_000]));
    assert!(net.link(link).unread() > 0);
    pause(&mut net, false);
    assert_eq!(*events.borrow(), ["error handler panicked: planned", "close 1011 unclean"]);
    assert_eq!(net.link(link).unread(), 0);
    net.end(link, PeerEnd::Shut);
    assert_eq!(net.link(link).socket.gone, Some(Disposal::Close), "without a wait");
}

/// Takes a piece, and then wants no more for three seconds.
struct Slow {
    holds: usize,
}

impl BodyHandler for Slow {
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, _piece: &[u8]) -> BodyNext {
        let id = body.id();
        let resumed = body.server().after(secs(3), move |server| {
            server.resume_body(id).unwrap();
        });
        resumed.map_or(BodyNext::Continue, |_| BodyNext::Pause)
    }

    fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response {
        Response::text(format!("{} bytes", body.received()))
    }

    fn bytes_held(&self) -> usize {
        self.holds
    }
}

fn taking_slowly(limits: Limits, holds: usize) -> Network {
    let mut application = Application::new();
    application.install(quiet().limits(limits));
    application.routing(move |route| {
        route.receive("POST", "/", move |_: &Call| Ok(Slow { holds }));
    });
    Network::new(application.build().unwrap())
}

fn post(net: &mut Network, bytes: usize) -> LinkId {
    let link = net.connect(([127, 0, 0, 1], 4000).into());
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n");
    net.send(link, head.as_bytes());
    for _ in 0..bytes / 20_000 {
        net.send(link, &[b'b'; 20_000]);
    }
    link
}

/// It has said all that it wants to say, and reads: `close_timeout` is for an application that takes nothing.
#[test]
fn who_has_sent_its_body_and_ends_its_side_is_answered_however_slowly_it_is_taken() {
    let mut net = taking_slowly(Limits::new().read_buffer_bytes(5_000), 0);
    let link = post(&mut net, 60_000);
    net.end(link, PeerEnd::Shut);
    for _ in 0..60 {
        net.advance(secs(1));
    }
    let answer = String::from_utf8(got(&mut net, link)).unwrap();
    assert!(answer.ends_with("60000 bytes"), "{answer}");
}

/// Its answer arrives, since nothing that it sent is left unread, and its hang-up is seen.
#[test]
fn a_body_that_goes_for_want_of_memory_leaves_nothing_unread() {
    let mut net = taking_slowly(Limits::new().process_bytes(100_000), 40_000);
    let links: Vec<LinkId> = (0..3).map(|_| post(&mut net, 60_000)).collect();
    assert_eq!(net.core.stats().over_budget, 1);
    for link in links {
        let answer = got(&mut net, link);
        if answer.is_empty() {
            continue;
        }
        assert!(answer.starts_with(b"HTTP/1.1 503 "));
        assert_eq!(net.link(link).unread(), 0);
        net.end(link, PeerEnd::Shut);
        assert_eq!(net.link(link).socket.gone, Some(Disposal::Close), "without a wait");
    }
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

/// What the answer holds is the application's, and so is its drop.
#[test]
fn an_answer_for_nobody_whose_drop_panics_ends_nothing() {
    for left in [true, false] {
        let pending = Rc::new(RefCell::new(None::<Pending>));
        let kept = Rc::clone(&pending);
        let app = TestApplication::new(move |app: &mut Application| {
            app.routing(move |route| {
                route.get("/later", move |call| {
                    *kept.borrow_mut() = Some(call.defer());
                    Response::deferred()
                });
                route.get("/page", |_| "page");
            });
        })
        .unwrap();
        let mut client = app.connect();
        client.send_bytes(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
        if left {
            client.reset();
        } else {
            app.advance(Duration::from_secs(61)); // it has its 503
            assert_eq!(client.expect_answer().status, 503);
        }
        let pending = pending.borrow_mut().take().unwrap();
        app.with_server(|server| {
            let held = PanicsInDrop;
            let stream = Response::stream(move |_piece| {
                let _held = &held;
                Ok(())
            });
            pending.answer_on(server, stream);
        });
        assert_eq!(app.get("/page").text(), "page");
        if !left {
            assert_eq!(client.request("GET", "/page").text(), "page", "nor another request");
        }
    }
}

/// The system tells so much at once, and the rest with the next turn: what waits there is no silence.
#[test]
fn a_pong_that_has_come_counts_though_its_event_is_still_to_come() {
    let mut net = Net::new(WebSockets::new().ping_period(secs(15)).timeout(secs(15)));
    let links: Vec<LinkId> = (0..3).map(|_| net.open()).collect();
    net.advance(secs(16));
    for &link in &links {
        let ping = net.take(link);
        assert!(ping.starts_with(&[0x89, 8]), "{ping:?}");
        net.link(link).send(&masked(0x8a, &ping[2..]));
    }
    net.events_per_turn = 1;
    net.jump(secs(60)); // the machine sleeps, and wakes with all of them to be told
    net.expect(&[]);
    assert_eq!(net.core.stats().pongs_in, 3);
    net.advance(secs(40));
    assert_eq!(net.core.stats().timeouts_ping, 3, "who is silent then is ended");
}

#[test]
fn a_request_that_has_come_counts_though_its_event_is_still_to_come() {
    let mut net = Net::new(WebSockets::new());
    let links: Vec<LinkId> = (0..3).map(|_| net.accept()).collect();
    for &link in &links {
        net.input(link, b"GET /page HTTP/1.1\r\n");
    }
    for &link in &links {
        net.link(link).send(b"Host: h\r\n\r\n");
    }
    net.events_per_turn = 1;
    net.jump(secs(60));
    for link in links {
        let answer = net.take(link);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
}

/// What a socket does not take waits in the outbox, which has limits, and not as records.
#[cfg(feature = "tls")]
#[test]
fn over_tls_no_more_is_sealed_than_the_socket_takes() {
    const BYTES: usize = 500_000;
    let waiting = Rc::new(Cell::new(0));
    let noted = Rc::clone(&waiting);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(
            quiet().max_frame_size(1 << 20).max_message_size(1 << 20).outbox_bytes(1 << 20),
        );
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let noted = Rc::clone(&noted);
                on_message(move |session, _| {
                    session.send(vec![7; BYTES])?;
                    noted.set(session.buffered_bytes());
                    Ok(())
                })
            });
        });
    })
    .unwrap()
    .over_tls();
    let mut client = app.web_socket("/");
    client.read_only(0);
    client.send("go");
    assert!((BYTES / 2..BYTES).contains(&waiting.get()), "{} wait", waiting.get());
    client.read_on();
    client.expect_binary(&vec![7; BYTES]);
}
