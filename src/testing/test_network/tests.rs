use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::TestNetwork;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::connect_options::ConnectOptions;
use crate::app::handler::{on_connect, on_message};
use crate::context::dialers::Dialer;
use crate::testing::TestApplication;
use crate::words::connect::{ConnectStep, DialerState};

type Notes = Rc<RefCell<Vec<String>>>;

/// Answers each message with its length, after it was read; and notes how its sessions end.
fn start_cloud(network: &TestNetwork, notes: &Notes) -> TestApplication {
    let notes = Rc::clone(notes);
    let module = move |app: &mut Application| {
        app.install(WebSockets::new().max_message_size(1 << 20).max_frame_size(1 << 20));
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| {
                let notes = Rc::clone(&notes);
                on_message(|session, message| session.send(message.bytes().len().to_string()))
                    .on_close(move |_, close| {
                        notes.borrow_mut().push(format!("cloud {}", close.code()));
                    })
            });
        });
    };
    network.start("cloud.example", module).unwrap()
}

/// Says so much at the start, and notes what it hears.
fn start_box(
    network: &TestNetwork,
    name: &str,
    bytes: usize,
    notes: &Notes,
) -> (TestApplication, Dialer) {
    let (notes, mut dialer) = (Rc::clone(notes), None);
    let options = ConnectOptions::new().max_frame_size(1 << 20).outbox_bytes(1 << 20);
    let app = network.start(name, |app: &mut Application| {
        dialer = Some(app.connect("ws://cloud.example/", options, move |_: &Call| {
            let (heard, ended) = (Rc::clone(&notes), Rc::clone(&notes));
            on_connect(move |session, _| session.send("x".repeat(bytes)))
                .on_message(move |_, message| {
                    let text = format!("box heard {}", message.text().unwrap_or("?"));
                    heard.borrow_mut().push(text);
                    Ok(())
                })
                .on_close(move |_, close| ended.borrow_mut().push(format!("box {}", close.code())))
        }));
    });
    (app.unwrap(), dialer.unwrap())
}

fn take(notes: &Notes) -> Vec<String> {
    let mut notes = std::mem::take(&mut *notes.borrow_mut());
    notes.sort();
    notes
}

const PAIR: (&str, &str) = ("cloud.example", "box");

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn what_one_sends_the_other_gets_however_much_it_is() {
    for bytes in [1, 60_000, 1_000_000] {
        let (network, notes) = (TestNetwork::new(), Notes::default());
        let cloud = start_cloud(&network, &notes);
        let (_app, dialer) = start_box(&network, "box", bytes, &notes);
        network.advance(Duration::ZERO);
        assert_eq!(take(&notes), [format!("box heard {bytes}")]);
        assert_eq!(dialer.state(), DialerState::Open);
        cloud.shutdown(secs(5));
        assert_eq!(take(&notes), ["box 1001", "cloud 1001"]);
        network.advance(secs(10));
        assert!(cloud.is_stopped() && dialer.state() != DialerState::Open);
    }
}

#[test]
fn addresses_names_and_ports() {
    let (network, notes) = (TestNetwork::new(), Notes::default());
    let (seen, see) = (Rc::new(Cell::new(None)), Rc::default());
    let (of_calls, _) = (Rc::clone(&seen), Notes::clone(&see));
    let module = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", move |call: &Call| {
                of_calls.set(Some(call.remote_addr().ip()));
                on_message(|session, message| session.send(message))
            });
        });
    };
    let _cloud = network.start("cloud.example", module).unwrap();
    let (app, _dialer) = start_box(&network, "box", 1, &notes);
    let urls = ["ws://203.0.113.1:9/", "ws://nobody.example/", "ws://203.0.113.9/"];
    let dialers = urls.map(|url| {
        app.with_server(|server| {
            server.connect(url, ConnectOptions::new(), |_: &Call| on_connect(|_, _| Ok(())))
        })
    });
    let states = dialers.map(|dialer| dialer.unwrap().state());
    assert_eq!(states, [DialerState::Open, DialerState::Waiting, DialerState::Waiting]);
    assert_eq!(seen.get(), Some("203.0.113.2".parse().unwrap()));
    // An application may dial itself, and what a test plays.
    let played = app.far_server("played.example", 80);
    for url in ["ws://box/", "ws://played.example/"] {
        app.with_server(|server| {
            let made =
                server.connect(url, ConnectOptions::new(), |_: &Call| on_connect(|_, _| Ok(())));
            made.unwrap();
        });
    }
    played.expect_request().accept();
    assert_eq!(app.stats().requests_total, 1, "its own, which is answered with 404");
}

#[test]
fn a_cut_is_silent_and_what_waited_arrives_once_it_is_mended() {
    let (network, notes) = (TestNetwork::new(), Notes::default());
    let cloud = start_cloud(&network, &notes);
    let (app, dialer) = start_box(&network, "box", 1, &notes);
    network.advance(secs(1));
    take(&notes);
    network.cut(PAIR.0, PAIR.1);
    app.with_server(|server| server.send_to(dialer.session().unwrap(), "while it is cut").unwrap());
    network.advance(secs(10));
    assert_eq!(take(&notes), Vec::<String>::new());
    network.mend(PAIR.0, PAIR.1);
    assert_eq!(take(&notes), ["box heard 15"]);
    assert_eq!(dialer.state(), DialerState::Open);

    network.cut(PAIR.0, PAIR.1);
    network.advance(secs(40));
    assert_eq!(take(&notes), ["box 1011", "cloud 1011"], "both have missed a pong");
    network.advance(secs(300));
    assert_eq!(take(&notes), Vec::<String>::new());
    network.mend(PAIR.0, PAIR.1);
    network.advance(secs(61));
    assert_eq!((take(&notes), cloud.stats().sessions_open), (vec!["box heard 1".to_owned()], 1));
}

#[test]
fn delays_are_there_and_back() {
    let (network, notes) = (TestNetwork::new(), Notes::default());
    let _cloud = start_cloud(&network, &notes);
    let (_app, dialer) = start_box(&network, "box", 1, &notes);
    network.delay(PAIR.0, PAIR.1, Duration::from_millis(100));
    let step = |millis| network.advance(Duration::from_millis(millis));
    // A step of the clock may be longer by a tick.
    step(185);
    assert_eq!(dialer.state(), DialerState::Connecting(ConnectStep::Connect));
    step(15);
    assert_eq!(dialer.state(), DialerState::Connecting(ConnectStep::Handshake));
    step(170);
    assert_eq!(dialer.state(), DialerState::Connecting(ConnectStep::Handshake));
    step(30);
    assert_eq!(dialer.state(), DialerState::Open);
    step(160);
    assert_eq!(take(&notes), Vec::<String>::new());
    step(40);
    assert_eq!(take(&notes), ["box heard 1"]);
}

#[test]
fn who_is_killed_says_nothing_and_another_comes_in_its_place() {
    let (network, notes) = (TestNetwork::new(), Notes::default());
    let first = start_cloud(&network, &notes);
    let (_app, dialer) = start_box(&network, "box", 1, &notes);
    network.advance(secs(1));
    take(&notes);
    network.kill("cloud.example");
    assert_eq!(take(&notes), ["box 1006"], "no hook of the one that was killed has run");
    assert!(first.is_stopped());
    network.advance(secs(100));
    assert_eq!(dialer.state(), DialerState::Waiting);
    let second = start_cloud(&network, &notes);
    assert_eq!(second.elapsed(), Duration::ZERO);
    network.advance(secs(61));
    assert_eq!(take(&notes), ["box heard 1"]);
    assert_eq!((first.stats().sessions_total, second.stats().sessions_total), (1, 1));
    // Also in one go; and what lies between the hosts stays.
    network.cut(PAIR.0, PAIR.1);
    let third = start_cloud(&network, &notes);
    network.advance(secs(200));
    assert_eq!(third.stats().sessions_total, 0);
    network.mend(PAIR.0, PAIR.1);
    network.advance(secs(61));
    assert_eq!(third.stats().sessions_total, 1);
}

#[test]
fn a_reset_is_one_for_both() {
    let (network, notes) = (TestNetwork::new(), Notes::default());
    let cloud = start_cloud(&network, &notes);
    let (app, dialer) = start_box(&network, "box", 1, &notes);
    network.advance(secs(1));
    take(&notes);
    network.reset(PAIR.0, PAIR.1);
    assert_eq!(take(&notes), ["box 1006", "cloud 1006"]);
    network.advance(secs(4));
    assert_eq!(dialer.state(), DialerState::Open);
    dialer.stop();
    app.advance(secs(1)); // of one, which is that of all
    assert_eq!(take(&notes), ["box 1000", "box heard 1", "cloud 1000"]);
    assert_eq!((dialer.session(), cloud.stats().connections_open), (None, 0));
    assert_eq!((cloud.stats().closed_normal, network.elapsed().as_secs()), (1, 6));
}

/// Records of both ends' own TLS, not of a script.
#[cfg(feature = "tls")]
#[test]
fn one_dials_the_other_over_tls() {
    use crate::words::tls_client::Roots;
    let (network, heard) = (TestNetwork::new(), Rc::new(Cell::new(0)));
    let module = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |call: &Call| {
                assert!(call.is_secure());
                on_message(|session, message| session.send(message))
            });
        });
    };
    let _server = network.start("small.example", module).unwrap().over_tls();
    let mut dialers = Vec::new();
    let hears = Rc::clone(&heard);
    let _box = network.start("box", |app: &mut Application| {
        let trusting = ConnectOptions::new().roots(Roots::pem(crate::testing::AUTHORITY));
        dialers.push(app.connect("wss://small.example/", trusting, move |_: &Call| {
            let hears = Rc::clone(&hears);
            on_connect(|session, _| session.send("x".repeat(50_000))).on_message(move |_, m| {
                hears.set(m.bytes().len());
                Ok(())
            })
        }));
        // In the clear there is nothing to be had there.
        dialers.push(app.connect("ws://small.example/", ConnectOptions::new(), |_: &Call| {
            on_connect(|_, _| Ok(()))
        }));
    });
    network.advance(secs(20));
    assert_eq!(heard.get(), 50_000);
    assert_eq!(dialers[0].state(), DialerState::Open);
    assert_ne!(dialers[1].state(), DialerState::Open);
}

#[test]
#[should_panic(expected = "answer each other without end")]
fn an_echo_of_an_echo_is_noticed() {
    let network = TestNetwork::new();
    let echo = |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, m| session.send(m)));
        });
    };
    let _cloud = network.start("cloud.example", echo).unwrap();
    let _box = network.start("box", |app: &mut Application| {
        app.connect("ws://cloud.example/", ConnectOptions::new(), |_: &Call| {
            on_connect(|session, _| session.send("x")).on_message(|session, m| session.send(m))
        });
    });
    network.advance(secs(1));
}

#[test]
#[should_panic(expected = "no application was started under the name typo")]
fn a_name_that_nobody_has_is_a_mistake_of_the_test() {
    TestNetwork::new().kill("typo");
}

/// Its ticks are none of the network's then.
#[test]
fn what_is_due_has_happened_also_where_a_host_was_started_at_an_odd_time() {
    let (network, fired) = (TestNetwork::new(), Rc::<Cell<u32>>::default());
    network.jump(Duration::from_millis(1));
    let count = Rc::clone(&fired);
    let module = |app: &mut Application| {
        app.every(secs(1), move |_| count.set(count.get() + 1));
    };
    let app = network.start("box", module).unwrap();
    let other = network.start("other", |_: &mut Application| ()).unwrap();
    network.advance(secs(1));
    assert_eq!(fired.get(), 1);
    network.jump(Duration::from_millis(3));
    let late = network.start("late", |_: &mut Application| ()).unwrap();
    late.advance(app.elapsed().abs_diff(secs(2)));
    assert_eq!(fired.get(), 2, "whichever of them moves the clock");
    drop(other);
}
