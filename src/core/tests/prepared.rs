//! Messages that are prepared for many under virtual time: encoded once, and kept once wherever they wait.

use std::cell::RefCell;
use std::rc::Rc;

use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::{on_connect, on_message};
#[cfg(feature = "deflate")]
use crate::extension::Deflate;
use crate::flow::options::FlowOptions;
use crate::flow::prepared::PreparedMessage;
#[cfg(feature = "deflate")]
use crate::testing::simulation::codec::Codec;
use crate::testing::{Received, TestApplication, TestClient};
use crate::words::limits::Limits;

/// Whatever was prepared last.
type Shelf = Rc<RefCell<Option<PreparedMessage>>>;

/// A server whose `/` sends everybody a prepared message of so many bytes as somebody asks for.
fn start(options: WebSockets) -> (TestApplication, Shelf) {
    let shelf = Shelf::default();
    let kept = Rc::clone(&shelf);
    let app = TestApplication::new(move |app: &mut Application| {
        app.install(options.ping_period(None));
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let kept = Rc::clone(&kept);
                on_message(move |session, message| {
                    let length: usize = message.text().unwrap_or_default().parse()?;
                    let prepared = PreparedMessage::new(text(length));
                    *kept.borrow_mut() = Some(prepared.clone());
                    session.send_prepared(&prepared)?;
                    let me = session.id();
                    let mut server = session.server();
                    for id in server.sessions().filter(|id| *id != me) {
                        server.send_prepared(id, &prepared)?;
                    }
                    Ok(())
                })
            });
        });
    })
    .unwrap();
    (app, shelf)
}

fn text(length: usize) -> String {
    "what many get, ".chars().cycle().take(length).collect()
}

/// Who holds the frame beside the message itself and the one who asks.
fn holders(shelf: &Shelf) -> usize {
    let frame = shelf.borrow().as_ref().map(|prepared| prepared.emission().frame).unwrap();
    Rc::strong_count(&frame) - 2
}

#[test]
fn it_reaches_all_and_who_does_not_read_waits_with_the_one_copy() {
    const LENGTH: usize = 20_000;
    let (app, shelf) = start(WebSockets::new());
    let mut asking = app.web_socket("/");
    let mut clients: Vec<TestClient> = (0..30).map(|_| app.web_socket("/")).collect();
    clients.iter_mut().take(20).for_each(|client| client.read_only(100));
    asking.send(LENGTH.to_string());
    asking.expect_text(&text(LENGTH));
    assert_eq!(holders(&shelf), 20, "no copy was made");
    for client in &mut clients {
        client.read_on();
        client.expect_text(&text(LENGTH));
        client.expect_nothing();
    }
    assert_eq!((holders(&shelf), app.stats().messages_out), (0, 31));
    assert_eq!(app.stats().bytes_held, 0);
}

/// It is there once: that it is on its way to all of them is no reason to end anybody.
#[test]
fn what_all_get_in_a_turn_counts_once_for_the_memory_budget() {
    let limits = Limits::new().process_bytes(300_000);
    let (app, _shelf) = start(WebSockets::new().limits(limits));
    let mut asking = app.web_socket("/");
    let mut clients: Vec<TestClient> = (0..100).map(|_| app.web_socket("/")).collect();
    asking.send("50000");
    for client in clients.iter_mut().chain([&mut asking]) {
        client.expect_text(&text(50_000));
    }
    assert_eq!((app.stats().over_budget, app.stats().bytes_held), (0, 0));
    // Of those who do not read each counts it in full.
    clients.iter_mut().for_each(|client| client.read_only(10));
    asking.send("50000");
    assert!(app.stats().over_budget > 0 && app.stats().bytes_held <= 300_000);
}

/// Also where each has a message of a flow before it.
#[test]
fn what_waits_behind_a_flow_counts_once_too() {
    let limits = Limits::new().process_bytes(400_000);
    let app = TestApplication::new(move |app: &mut Application| {
        let flow = app.flow(FlowOptions::new());
        app.install(WebSockets::new().ping_period(None).limits(limits));
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, flow) = (flow.clone(), flow.clone());
                on_connect(move |session, _| session.collect(&joined)).on_message(
                    move |session, _| {
                        session.emit(&flow, "tick")?;
                        let prepared = PreparedMessage::new(text(50_000));
                        let mut server = session.server();
                        for id in server.sessions() {
                            server.send_prepared(id, &prepared)?;
                        }
                        Ok(())
                    },
                )
            });
        });
    })
    .unwrap();
    let mut clients: Vec<TestClient> = (0..100).map(|_| app.web_socket("/")).collect();
    let before = app.stats().bytes_held;
    clients[0].send("go");
    for client in &mut clients {
        client.expect_text("tick");
        client.expect_text(&text(50_000));
    }
    assert_eq!(app.stats().over_budget, 0);
    assert!(app.stats().bytes_held <= before + 100 * 200, "their places are kept");
    // Of those who do not read each counts it in full.
    clients[1..].iter_mut().for_each(|client| client.read_only(10));
    clients[0].send("go");
    assert!(app.stats().over_budget > 0 && app.stats().bytes_held <= 400_000);
}

#[test]
fn it_keeps_its_place_among_all_that_is_sent() {
    let app = TestApplication::new(|app: &mut Application| {
        let flow = app.flow(FlowOptions::new());
        app.install(WebSockets::new().ping_period(None).max_frame_size(200));
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let flow = flow.clone();
                on_message(move |session, _| {
                    let (short, long) =
                        (PreparedMessage::new("2"), PreparedMessage::new(text(500)));
                    session.collect(&flow)?;
                    session.send("0")?;
                    session.emit(&flow, "1")?;
                    session.send_prepared(&short)?;
                    session.emit(&flow, "3")?;
                    session.send_prepared(&long)?;
                    let me = session.id();
                    session.server().send_prepared(me, &short)?;
                    session.send_fragment("open", false)?;
                    assert!(session.send_prepared(&short).is_err());
                    session.send_fragment("", true)
                })
            });
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.send("go");
    for expected in ["0", "1", "2", "3", &text(500), "open", "2"] {
        client.expect_text(expected);
    }
    client.expect_nothing();
}

#[cfg(feature = "deflate")]
#[test]
fn it_is_compressed_once_where_all_get_the_same() {
    for (keeps, encodings) in [(false, 2), (true, 0)] {
        let deflate = Deflate::new().server_context_takeover(keeps);
        let (app, shelf) = start(WebSockets::new().extension(deflate));
        let mut clients: Vec<(TestClient, Option<Codec>)> = (0..12)
            .map(|number| match number % 3 {
                0 => (app.web_socket("/"), None),
                bits => {
                    let offer = format!("permessage-deflate; server_max_window_bits={}", 9 + bits);
                    let upgrade = app.upgrade("/").header("Sec-WebSocket-Extensions", &offer);
                    let (client, answer) = upgrade.connect().unwrap();
                    let agreed = answer.header("sec-websocket-extensions").unwrap();
                    (client, Some(Codec::agreed(agreed, 6).unwrap()))
                }
            })
            .collect();
        for length in [5_000, 6_000] {
            clients[0].0.send(length.to_string());
            for (client, codec) in &mut clients {
                match codec {
                    None => client.expect_text(&text(length)),
                    Some(codec) => {
                        let frame = client.receive_frame().unwrap();
                        assert_eq!(frame.first, 0xc1);
                        assert_eq!(codec.unpack(&frame.payload).unwrap(), text(length).as_bytes());
                    }
                }
            }
            let kept = shelf.borrow().as_ref().map(|prepared| prepared.emission().encodings());
            assert_eq!(kept, Some(encodings), "a context is each session's own: {keeps}");
        }
    }
}

/// Also what a flow keeps, and what is on its way to another session.
#[cfg(feature = "deflate")]
#[test]
fn a_message_that_is_not_to_be_compressed_is_not() {
    use crate::words::message::Message;
    use crate::words::message_buf::MessageBuf;
    let app = TestApplication::new(|app: &mut Application| {
        let flow = app.flow_of::<MessageBuf>(FlowOptions::new());
        app.install(WebSockets::new().ping_period(None).extension(Deflate::new()));
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let flow = flow.clone();
                on_message(move |session, _| {
                    let text = text(1_000);
                    let plain = Message::from(&text).compressed(false);
                    session.send(plain)?;
                    session.send(plain.compressed(true))?;
                    session.send_prepared(&PreparedMessage::new(plain))?;
                    session.collect(&flow)?;
                    session.emit(&flow, &MessageBuf::from(plain))?;
                    session.emit(&flow, &MessageBuf::from(plain).compressed(true))?;
                    let me = session.id();
                    session.send_to(me, plain)?;
                    Ok(())
                })
            });
        });
    })
    .unwrap();
    let upgrade = app.upgrade("/").header("Sec-WebSocket-Extensions", "permessage-deflate");
    let (mut client, _) = upgrade.connect().unwrap();
    client.send("go");
    let firsts: Vec<u8> =
        std::iter::from_fn(|| client.receive_frame()).map(|frame| frame.first).collect();
    assert_eq!(firsts, [0x81, 0xc1, 0x81, 0x81, 0xc1, 0x81]);
    assert!(!matches!(client.receive(), Some(Received::Text(_))));
}
