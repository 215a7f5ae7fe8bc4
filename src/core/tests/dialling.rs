//! Sessions that are dialled, under virtual time: whatever happens on the way to them and after them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::dialled_input::switching;
use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::connect_options::ConnectOptions;
use crate::app::handler::on_connect;
use crate::context::dialers::Dialer;
use crate::context::loop_state::ServerRef;
use crate::testing::{Ending, FarRequest, FarServer, TestApplication};
use crate::words::close::{CloseCode, CloseReason};
use crate::words::connect::{ConnectStep, DialerState, Reconnect};
use crate::words::limits::Limits;

/// An application that dials, and what was noted of it.
struct Dialling {
    app: TestApplication,
    dialers: Vec<Dialer>,
    notes: Rc<RefCell<Vec<String>>>,
}

impl Dialling {
    /// Dials these URLs. Each session says hello, and echoes.
    fn new(urls: &[&str], options: &ConnectOptions) -> Self {
        let notes: Rc<RefCell<Vec<String>>> = Rc::default();
        let mut dialers = Vec::new();
        let app = TestApplication::new(|app: &mut Application| {
            app.install(WebSockets::new());
            for url in urls {
                let (of_ends, of_failures) = (Rc::clone(&notes), Rc::clone(&notes));
                let options = options.clone().on_failure(move |error, next| {
                    let text = format!("{error} ({})", next.as_millis());
                    of_failures.borrow_mut().push(text);
                    Reconnect::Retry
                });
                dialers.push(app.connect(url, options, move |call: &Call| {
                    let (notes, protocol) =
                        (Rc::clone(&of_ends), call.protocol().map(str::to_owned));
                    on_connect(move |session, _| {
                        session.send(protocol.as_deref().unwrap_or("hello"))
                    })
                    .on_message(|session, message| session.send(message))
                    .on_close(move |_, close| {
                        notes.borrow_mut().push(format!("closed {}", close.code()));
                    })
                }));
            }
        });
        Self { app: app.unwrap(), dialers, notes }
    }

    fn state(&self) -> DialerState {
        self.dialers[0].state()
    }

    /// What was noted since this was asked last, without the delays.
    fn notes(&self) -> Vec<String> {
        let notes = std::mem::take(&mut *self.notes.borrow_mut());
        notes.iter().map(|note| note.split(" (").next().unwrap().to_owned()).collect()
    }

    fn advance(&self, seconds: u64) {
        self.app.advance(secs(seconds));
    }
}

/// The next request, which comes within so many seconds.
#[track_caller]
fn within(seconds: u64, server: &FarServer) -> FarRequest {
    server.expect_request_within(secs(seconds))
}

fn one(url: &str) -> Dialling {
    Dialling::new(&[url], &ConnectOptions::new())
}

const URL: &str = "ws://cloud.example/dev?id=7";

#[test]
fn a_session_is_dialled_and_speaks_as_a_client() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let request = server.expect_request();
    assert!(request.head().starts_with("GET /dev?id=7 HTTP/1.1\r\nHost: cloud.example\r\n"));
    assert_eq!(it.state(), DialerState::Connecting(ConnectStep::Handshake));
    let mut session = request.accept();
    assert_eq!(it.state(), DialerState::Open);
    session.expect_text("hello");
    for text in ["a", &"b".repeat(200), &"c".repeat(60_000)] {
        session.send(text);
        let back = session.receive();
        assert!(matches!(back, Some(crate::testing::Received::Text(got)) if got == text));
    }
    session.ping(b"there?");
    assert_eq!(session.receive(), Some(crate::testing::Received::Pong(b"there?".to_vec())));
    it.advance(3600); // its pings are answered
    assert_eq!(it.state(), DialerState::Open);
    assert_eq!(it.app.stats().sessions_open, 1);
    assert!(it.app.stats().pings_out >= 170, "{}", it.app.stats().pings_out);
}

#[test]
fn every_frame_has_another_mask_and_a_masked_frame_is_refused() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let request = server.expect_request();
    let answer = switching(&request.accept_key());
    let mut client = request.answer(&answer);
    let frames = client.take_bytes();
    assert_eq!((frames.len(), &frames[..2]), (6 + 5, &[0x81, 0x85][..]));
    let mut masks = vec![frames[2..6].to_vec()];
    for _ in 0..300 {
        client.send_bytes(b"\x81\x02hi");
        let frame = client.take_bytes();
        assert_eq!(&frame[..2], [0x81, 0x82]);
        let text: Vec<u8> =
            frame[6..].iter().zip(&frame[2..]).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(text, b"hi");
        masks.push(frame[2..6].to_vec());
    }
    masks.sort();
    masks.dedup();
    assert!(masks.len() >= 300);
    client.send_bytes(b"\x81\x82\0\0\0\0hi");
    let close = client.take_bytes();
    assert_eq!(close[0], 0x88);
    let code: Vec<u8> = close[6..8].iter().zip(&close[2..]).map(|(byte, key)| byte ^ key).collect();
    assert_eq!(code, 1002_u16.to_be_bytes());
    assert_eq!(it.notes(), ["closed 1002"]);
}

/// Nothing that a server answers ends it for good, and each answer says what it is.
#[test]
fn a_503_and_a_401_do_not_end_it() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    for status in ["503 Busy", "401 Unauthorized", "500 x", "200 OK", "302 Found", "426 x"] {
        let request = within(61, &server);
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\nLocation: /x\r\n\r\nbody");
        request.answer(&text);
        let notes = it.notes();
        let number = &status[..3];
        assert!(
            notes.len() == 1 && notes[0].starts_with(&format!("the server answered {number}: ")),
            "{notes:?}"
        );
        assert_eq!(it.state(), DialerState::Waiting);
    }
    within(61, &server).accept().expect_text("hello");
}

#[test]
fn a_black_hole_ends_at_the_deadline_whatever_the_step() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let expect = |text: &str| {
        it.app.advance(Duration::from_millis(9_980));
        assert_eq!(it.notes(), Vec::<String>::new());
        it.app.advance(Duration::from_millis(40));
        assert_eq!(it.notes(), [format!("connect_timeout was over {text}")]);
        it.dialers[0].reconnect_now();
    };
    server.lose_name_server();
    it.advance(0);
    expect("while its name was looked up");
    server.name_is_known(true);
    server.vanish();
    it.advance(0);
    expect("while it was connected to");
    server.listen();
    let silent = server.expect_request().into_client();
    expect("before it had answered the handshake");
    assert_eq!(silent.ending(), Some(Ending::Closed));
    let half = server.expect_request().answer("HTTP/1.1 101 Switching Protocols\r\nUpgr");
    expect("before it had answered the handshake");
    assert_eq!(half.ending(), Some(Ending::Closed));
    server.expect_request().accept().expect_text("hello");
}

#[test]
fn a_dead_name_beside_twenty_good_ones_delays_none() {
    let urls: Vec<String> = (0..20).map(|n| format!("ws://good{n}.example/")).collect();
    let mut all = vec!["ws://dead.example/"];
    all.extend(urls.iter().map(String::as_str));
    let it = Dialling::new(&all, &ConnectOptions::new());
    it.app.far_server("dead.example", 80).lose_name_server();
    let servers: Vec<FarServer> =
        (0..20).map(|n| it.app.far_server(&format!("good{n}.example"), 80)).collect();
    for server in &servers {
        server.expect_request().accept().expect_text("hello");
    }
    it.advance(11);
    assert_eq!(it.notes().iter().filter(|note| note.contains("looked up")).count(), 1);
}

#[test]
fn a_name_server_that_is_away_for_an_hour_blocks_nothing() {
    let it = Dialling::new(&[URL, "ws://192.0.2.7/"], &ConnectOptions::new());
    let (named, addressed) =
        (it.app.far_server("cloud.example", 80), it.app.far_server("192.0.2.7", 80));
    named.lose_name_server();
    let mut session = addressed.expect_request().accept();
    session.expect_text("hello");
    for minute in 0..60 {
        it.advance(60);
        session.send(minute.to_string());
        session.expect_text(&minute.to_string());
    }
    // Each lookup is given up at the deadline of its attempt, and nothing is asked twice at a time.
    let notes = it.notes();
    let lookups = it.app.far(|far| far.asked.len());
    assert!(
        notes.iter().all(|note| note == "connect_timeout was over while its name was looked up")
    );
    assert!((45..=110).contains(&notes.len()), "{}", notes.len());
    assert!(lookups <= notes.len() + 1, "{lookups} lookups for {} attempts", notes.len());
    named.name_is_known(true);
    within(61, &named).accept().expect_text("hello");
}

/// The loop's clock is that of a machine that may sleep: all that was due meanwhile is due at once.
#[test]
fn clocks_that_jump_end_what_is_late_once_and_no_session_that_answers() {
    let urls = [URL, "ws://slow.example/", "ws://away.example/"];
    let it = Dialling::new(&urls, &ConnectOptions::new());
    let servers = ["cloud.example", "slow.example", "away.example"];
    let [open, slow, away] = servers.map(|name| it.app.far_server(name, 80));
    let mut session = open.expect_request().accept();
    session.expect_text("hello");
    let silent = slow.expect_request().into_client();
    away.expect_request().into_client().reset();
    assert_eq!(it.notes().len(), 1);
    for _ in 0..3 {
        let before = it.app.stats().dials_total;
        it.app.jump(secs(24 * 3600));
        it.advance(0);
        // One attempt of each that waited, however long the night was.
        assert!(it.app.stats().dials_total <= before + 2);
    }
    assert_eq!(silent.ending(), Some(Ending::Closed));
    assert!(!it.notes().iter().any(|note| note.starts_with("closed")));
    assert_eq!(it.state(), DialerState::Open, "its pings were answered");
    session.send("still here");
    session.expect_text("still here");
    for server in [&slow, &away] {
        within(61, server).accept().expect_text("hello");
    }
}

#[test]
fn a_peer_that_vanishes_is_noticed_in_a_ping_period_and_a_timeout() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let mut session = server.expect_request().accept();
    session.expect_text("hello");
    session.answer_pings(false);
    session.answer_close(false);
    it.app.advance(Duration::from_millis(20_000 + 14_950));
    assert_eq!(it.notes(), Vec::<String>::new());
    it.app.advance(Duration::from_millis(100));
    assert_eq!(it.notes(), ["closed 1011"]);
    assert_eq!(it.state(), DialerState::Waiting);
    within(3, &server).accept().expect_text("hello");
}

#[test]
fn a_day_of_outages_is_survived_at_a_bounded_pace() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    server.refuse();
    it.advance(24 * 3600);
    let attempts = it.app.stats().dials_total;
    // From half to whole of 60 s, but for the first few.
    assert!((24 * 60..2 * 24 * 60 + 10).contains(&attempts), "{attempts}");
    assert_eq!(it.app.stats().dials_failed, attempts);
    server.listen();
    within(61, &server).accept().expect_text("hello");
}

#[test]
fn delays_start_anew_once_something_was_heard() {
    let longest = |hears: bool| {
        let it = one(URL);
        let server = it.app.far_server("cloud.example", 80);
        for _ in 0..12 {
            let mut session = within(61, &server).accept();
            if hears {
                session.send("welcome");
            }
            session.reset();
        }
        let lost_at = it.app.elapsed();
        within(61, &server);
        it.app.elapsed() - lost_at
    };
    assert!(longest(true) <= Duration::from_millis(3_050), "the first delay is at most 3 s");
    assert!(longest(false) >= secs(29), "a 101 alone is no reason to hurry");
}

/// Where the application sends the pings itself, their pongs prove as much.
#[test]
fn the_pong_of_an_own_ping_is_something_heard() {
    let app = TestApplication::new(|app: &mut Application| {
        app.connect(URL, ConnectOptions::new().ping_period(None), |_: &Call| {
            on_connect(|session, _| session.ping(b"there?"))
        });
    })
    .unwrap();
    let server = app.far_server("cloud.example", 80);
    for _ in 0..12 {
        let mut session = within(61, &server).accept();
        app.advance(secs(0));
        session.reset();
    }
    let lost_at = app.elapsed();
    within(61, &server);
    let delay = app.elapsed() - lost_at;
    assert!(delay <= Duration::from_millis(3_050), "the first delay is at most 3 s: {delay:?}");
}

#[test]
fn a_server_says_when_to_come_back() {
    for (lines, from, until) in [
        ("Retry-After: 120\r\n", 120, 124),
        (
            "Date: Sun, 06 Nov 2033 08:49:37 GMT\r\nRetry-After: Sun, 06 Nov 2033 08:51:37 GMT\r\n",
            120,
            124,
        ),
        ("Retry-After: 999999\r\n", 3600, 3604),
        ("Retry-After: soon\r\n", 0, 4),
    ] {
        let it = one(URL);
        let server = it.app.far_server("cloud.example", 80);
        server
            .expect_request()
            .answer(&format!("HTTP/1.1 503 x\r\n{lines}Content-Length: 0\r\n\r\n"));
        if from > 0 {
            it.advance(from - 1);
            assert!(server.next_request().is_none(), "{lines}: too early");
        }
        it.advance(until + 1 - from.max(1) + 1);
        assert!(server.next_request().is_some(), "{lines}: too late");
    }
}

#[test]
fn what_is_no_handshake_is_refused_and_tried_again() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let right = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    for (answer, said) in [
        (
            format!("{right}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            "does not belong",
        ),
        ("SSH-2.0-OpenSSH\r\n".into(), "no HTTP/1.1"),
        ("HTTP/1.1 101 x\r\nConnection: Upgrade\r\n\r\n".into(), "Upgrade is not websocket"),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(9_000)), "max_head_bytes"),
    ] {
        let client = within(61, &server).answer(&answer);
        let notes = it.notes();
        assert!(notes.len() == 1 && notes[0].contains(said), "{notes:?}");
        assert_eq!(client.ending(), Some(Ending::Closed));
    }
    // Interim answers are passed over, in any pieces.
    let request = within(61, &server);
    let key = request.accept_key();
    let whole = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{right}Sec-WebSocket-Accept: {key}\r\n\r\n"
    );
    let whole = [whole.as_bytes(), b"\x81\x02hi"].concat();
    let mut client = request.into_client();
    for byte in whole {
        client.send_bytes(&[byte]);
    }
    assert_eq!(it.state(), DialerState::Open);
    let sent = client.take_bytes();
    assert_eq!(sent.len(), 11 + 8, "hello, and the echo of what came right behind the answer");
}

#[test]
fn resets_and_hang_ups_on_the_way_are_failures_like_others() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    server.expect_request().into_client().reset();
    assert_eq!(it.notes(), ["connection reset before it had answered the handshake"]);
    within(3, &server).into_client().half_close();
    assert_eq!(it.notes(), ["the other side hung up before it had answered the handshake"]);
    // An answer, and the end with it.
    let client = within(3, &server).into_client();
    client.send_and_end(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\nRetry-After: 600\r\n\r\n");
    assert!(it.notes()[0].starts_with("the server answered 503"));
    it.advance(599);
    assert!(server.next_request().is_none());
    // A session, and its end.
    let request = within(10, &server);
    let answer = switching(&request.accept_key());
    request.into_client().send_and_end(&[answer.as_bytes(), b"\x81\x02hi"].concat());
    assert_eq!(it.notes(), ["closed 1006"]);
    // A refusal whose body ends with the connection.
    let mut client = within(3, &server).answer("HTTP/1.0 403 x\r\n\r\ngo away");
    assert_eq!(it.notes(), Vec::<String>::new());
    client.half_close();
    assert!(it.notes()[0].starts_with("the server answered 403"));
}

#[test]
fn addresses_are_raced_and_families_take_turns() {
    let it = one(URL);
    let addresses = ["[2001:db8::1]:0", "[2001:db8::2]:0", "192.0.2.1:0", "192.0.2.2:0"];
    let addresses: Vec<std::net::SocketAddr> = addresses.map(|it| it.parse().unwrap()).to_vec();
    let at = |number: usize| std::net::SocketAddr::new(addresses[number].ip(), 80);
    it.app.far(|far| {
        use crate::testing::network::far_servers::{FarName, FarPort};
        far.names.insert("cloud.example".into(), FarName::Addresses(addresses.clone()));
        far.ports.insert(at(0), FarPort::Silent);
        far.ports.insert(at(2), FarPort::Silent);
        far.ports.insert(at(3), FarPort::Accepts);
    });
    it.advance(0);
    assert_eq!(it.app.far(|far| far.tried.clone()), [at(0)]);
    it.app.advance(Duration::from_millis(240));
    assert_eq!(it.app.far(|far| far.tried.len()), 1);
    it.app.advance(Duration::from_millis(20));
    assert_eq!(it.app.far(|far| far.tried.clone()), [at(0), at(2)]);
    it.app.advance(Duration::from_millis(260));
    // The third refuses, so that the fourth has its turn at once.
    assert_eq!(it.app.far(|far| far.tried.clone()), [at(0), at(2), at(1), at(3)]);
    assert_eq!(it.app.far(|far| far.pending.len()), 0, "the slower ones are given up");
    assert_eq!(it.state(), DialerState::Connecting(ConnectStep::Handshake));
}

#[test]
fn a_session_that_is_over_is_dialled_anew_unless_we_have_closed_it_for_good() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    for code in [1000, 1001, 1011, 1012] {
        let mut session = within(4, &server).accept();
        session.expect_text("hello");
        session.send("x");
        session.close(CloseReason::new(CloseCode::new(code), "").unwrap());
        assert_eq!(it.state(), DialerState::Waiting, "{code}");
    }
    for code in [1008, 4000, 4999] {
        let mut session = within(61, &server).accept();
        session.send("x");
        session.close(CloseReason::new(CloseCode::new(code), "").unwrap());
        it.advance(29);
        assert!(server.next_request().is_none(), "{code}: it is not wanted, and comes back soon");
    }
    let mut session = within(61, &server).accept();
    session.expect_text("hello");
    let id = it.dialers[0].session().unwrap();
    let normal = CloseReason::new(CloseCode::NORMAL, "done").unwrap();
    it.app.with_server(|server| server.close(id, normal)).unwrap();
    assert_eq!(session.expect_close(CloseCode::NORMAL), "done");
    assert_eq!(it.state(), DialerState::Stopped);
    it.advance(3600);
    assert!(server.next_request().is_none());
    it.dialers[0].reconnect_now();
    server.expect_request().accept().expect_text("hello");
}

#[test]
fn a_client_lets_the_server_close_the_connection_first() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let mut session = server.expect_request().accept();
    session.expect_text("hello");
    session.answer_close(false);
    it.dialers[0].stop();
    it.advance(0);
    session.expect_close(CloseCode::NORMAL);
    assert_eq!((it.state(), it.dialers[0].session().is_some()), (DialerState::Stopped, true));
    session.send_frame(0x88, &1000_u16.to_be_bytes());
    assert_eq!(it.notes(), ["closed 1000"]);
    assert!(!session.server_has_shut(), "RFC 6455 section 7.1.1");
    assert_eq!(session.ending(), None);
    session.half_close();
    assert_eq!(session.ending(), Some(Ending::Closed));
    assert_eq!(it.dialers[0].session(), None);
}

#[test]
fn a_dialer_that_is_stopped_before_it_begins_dials_when_it_is_told_to() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    it.dialers[0].stop();
    it.advance(100);
    assert_eq!((it.state(), it.app.stats().dials_total), (DialerState::Stopped, 0));
    assert!(it.app.far(|far| far.asked.is_empty()), "no name is looked up either");
    it.dialers[0].reconnect_now();
    server.expect_request().accept().expect_text("hello");
}

#[test]
fn the_last_wish_counts_while_a_session_is_being_closed() {
    for restarts in [false, true] {
        let it = one(URL);
        let server = it.app.far_server("cloud.example", 80);
        let mut session = server.expect_request().accept();
        session.answer_close(false);
        for wish in 0..if restarts { 4 } else { 3 } {
            if wish % 2 == 0 {
                it.dialers[0].stop()
            } else {
                it.dialers[0].reconnect_now()
            }
            it.advance(0);
        }
        session.half_close();
        assert_eq!(server.next_request().is_some(), restarts);
        assert_eq!(it.state() != DialerState::Stopped, restarts);
    }
}

/// Whatever is on its way when the application says so, and comes in the same turn.
#[test]
fn an_attempt_that_was_stopped_opens_nothing_and_fails_nothing() {
    let switched = |request: &FarRequest| switching(&request.accept_key());
    let refused = |_: &FarRequest| "HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n".to_owned();
    let half = |_: &FarRequest| "HTTP/1.1 200 x\r\nX-Y".to_owned();
    for (answer, ends) in [
        (&switched as &dyn Fn(&FarRequest) -> String, false),
        (&switched, true),
        (&refused, false),
        (&half, true),
    ] {
        for restarts in [false, true] {
            let it = one(URL);
            let server = it.app.far_server("cloud.example", 80);
            let request = server.expect_request();
            it.dialers[0].stop();
            if restarts {
                it.dialers[0].reconnect_now();
            }
            let answer = answer(&request);
            let mut client = request.answer(&answer);
            if ends {
                client.half_close();
            }
            assert_eq!(client.take_bytes(), b"", "{answer}");
            assert_eq!(client.ending(), Some(Ending::Closed));
            assert_eq!(it.state() == DialerState::Stopped, !restarts);
            assert_eq!((it.notes(), it.app.stats().dials_failed), (Vec::new(), 0), "{answer}");
            assert_eq!(it.app.stats().sessions_total, 0);
            assert_eq!(server.next_request().is_some(), restarts);
        }
    }
}

/// By what makes its handler, and in the turn in which its session ends.
#[test]
fn a_dialer_that_stops_itself_opens_nothing_and_decides_nothing() {
    let known: Rc<RefCell<Option<Dialer>>> = Rc::default();
    let (own, opened) = (Rc::clone(&known), Rc::new(Cell::new(0)));
    let (count, asked) = (Rc::clone(&opened), Rc::new(Cell::new(0)));
    let questions = Rc::clone(&asked);
    let options = ConnectOptions::new().on_lost(move |_, _| {
        questions.set(questions.get() + 1);
        Reconnect::Retry
    });
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        let dialer = app.connect(URL, options, move |call: &Call| {
            if call.answer().is_some_and(|answer| answer.header("x-stop").is_some()) {
                own.borrow().iter().for_each(Dialer::stop);
            }
            let count = Rc::clone(&count);
            on_connect(move |_, _| {
                count.set(count.get() + 1);
                Ok(())
            })
        });
        known.replace(Some(dialer));
    })
    .unwrap();
    let dialer = known.borrow().clone().unwrap();
    let server = app.far_server("cloud.example", 80);
    let request = server.expect_request();
    let answer = switching(&request.accept_key());
    let client = request.answer(&answer.replacen("\r\n", "\r\nX-Stop: 1\r\n", 1));
    assert_eq!((dialer.state(), opened.get()), (DialerState::Stopped, 0));
    assert_eq!((client.ending(), app.stats().sessions_total), (Some(Ending::Closed), 0));
    dialer.reconnect_now();
    let mut session = server.expect_request().accept();
    assert_eq!((dialer.state(), opened.get()), (DialerState::Open, 1));
    dialer.stop();
    session.reset();
    assert_eq!((dialer.state(), asked.get()), (DialerState::Stopped, 0));
}

/// Both are done, in that order: also where the loop hears of them in one turn.
#[test]
fn a_stop_is_not_forgotten_over_what_follows_it() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let mut session = server.expect_request().accept();
    session.expect_text("hello");
    it.dialers[0].stop();
    it.dialers[0].reconnect_now();
    it.advance(0);
    session.expect_close(CloseCode::NORMAL);
    session.half_close();
    assert_eq!(it.notes(), ["closed 1000"]);
    let request = server.expect_request();
    // An attempt that is under way is given up for another one.
    it.dialers[0].stop();
    it.dialers[0].reconnect_now();
    it.advance(0);
    assert_eq!(request.into_client().ending(), Some(Ending::Closed));
    let request = server.expect_request();
    it.dialers[0].reconnect_now();
    it.dialers[0].stop();
    it.advance(3600);
    assert_eq!(request.into_client().ending(), Some(Ending::Closed));
    assert_eq!((it.state(), server.next_request().is_none()), (DialerState::Stopped, true));
}

#[test]
fn the_application_decides_what_follows() {
    let asked = Rc::new(Cell::new(0));
    let (failures, losses) = (Rc::clone(&asked), Rc::clone(&asked));
    let options = ConnectOptions::new()
        .on_lost(move |close, _| {
            losses.set(losses.get() + 1);
            if u16::from(close.code()) == 4001 {
                Reconnect::Stop
            } else {
                Reconnect::After(secs(500))
            }
        })
        .on_failure(move |error, _| {
            failures.set(failures.get() + 1);
            assert_eq!(error.status(), Some(410));
            Reconnect::After(secs(700))
        });
    let mut dialer = None;
    let app = TestApplication::new(|app: &mut Application| {
        dialer = Some(
            app.connect(URL, options, |_: &Call| on_connect(|session, _| session.send("hello"))),
        );
    })
    .unwrap();
    let dialer = dialer.unwrap();
    let server = app.far_server("cloud.example", 80);
    server.expect_request().answer("HTTP/1.1 410 x\r\nContent-Length: 0\r\n\r\n");
    app.advance(secs(699));
    assert!(server.next_request().is_none());
    app.advance(secs(2));
    server.expect_request().accept().reset();
    app.advance(secs(499));
    assert!(server.next_request().is_none());
    app.advance(secs(2));
    let mut session = server.expect_request().accept();
    session.close(CloseReason::new(CloseCode::new(4001), "").unwrap());
    assert_eq!((dialer.state(), asked.get()), (DialerState::Stopped, 3));
    app.advance(secs(10_000));
    assert!(server.next_request().is_none());
}

/// A hook of the application's, however it ends, is no reason not to dial again.
#[test]
fn after_a_failure_the_application_acts_on_the_loop() {
    let notes: Rc<RefCell<Vec<String>>> = Rc::default();
    let noted = Rc::clone(&notes);
    let options = ConnectOptions::new().after_failure(move |server, error| {
        noted.borrow_mut().push(format!("{error}, {} sessions", server.session_count()));
        let tell = Rc::clone(&noted);
        let later = move |_: &mut ServerRef<'_>| tell.borrow_mut().push("a timer".into());
        server.after(secs(1), later).unwrap();
        assert!(error.status().is_none(), "after a refusal it panics");
    });
    let it = Dialling::new(&[URL], &options);
    it.app.tolerate_panics();
    let server = it.app.far_server("cloud.example", 80);
    server.expect_request().into_client().reset();
    assert_eq!(notes.take(), ["connection reset before it had answered the handshake, 0 sessions"]);
    assert_eq!(it.state(), DialerState::Waiting);
    it.advance(2);
    assert_eq!(notes.take(), ["a timer"]);
    within(3, &server).answer("HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n");
    assert!(notes.take()[0].starts_with("the server answered 503"));
    within(61, &server).accept().expect_text("hello");
}

/// A hook that asks for the next attempt at once, where each fails within the turn.
#[test]
fn to_reconnect_at_each_failure_leaves_the_loop_to_others() {
    let failures = Rc::new(Cell::new(0));
    let (counted, key) = (Rc::clone(&failures), Rc::new(Cell::new(None)));
    let known = Rc::clone(&key);
    let options = ConnectOptions::new().after_failure(move |server, _error| {
        counted.set(counted.get() + 1);
        assert!(counted.get() < 10_000, "it goes on without a pause");
        if let Some(dialer) = known.get().and_then(|key| server.find_dialer(key)) {
            dialer.reconnect_now();
        }
    });
    let it = Dialling::new(&["ws+unix:/nowhere"], &options);
    it.app.far(|far| far.sockets.clear());
    key.set(Some(it.dialers[0].key()));
    it.dialers[0].reconnect_now();
    it.advance(1);
    let count = failures.get();
    assert!((50..=1_001).contains(&count), "{count} in a second, one for each millisecond at most");
    assert_eq!(it.state(), DialerState::Waiting);
    it.dialers[0].stop();
    it.advance(1);
    assert_eq!((it.state(), failures.get()), (DialerState::Stopped, count));
}

#[test]
fn redirects_are_followed_as_far_as_they_may() {
    let options =
        ConnectOptions::new().redirects(2).header("Authorization", "Bearer x").header("X-Y", "z");
    let it = Dialling::new(&[URL], &options);
    let first = it.app.far_server("cloud.example", 80);
    let second = it.app.far_server("other.example", 8080);
    let to = |location: &str| format!("HTTP/1.1 307 x\r\nLocation: {location}\r\n\r\n");
    let client = first.expect_request().answer(&to("/elsewhere"));
    assert_eq!(client.ending(), Some(Ending::Closed));
    let request = first.expect_request();
    assert!(request.head().starts_with("GET /elsewhere HTTP/1.1\r\n"));
    assert_eq!(request.header("authorization"), Some("Bearer x"));
    request.answer(&to("http://other.example:8080/there"));
    let request = second.expect_request();
    assert!(request.head().starts_with("GET /there HTTP/1.1\r\nHost: other.example:8080\r\n"));
    assert_eq!((request.header("authorization"), request.header("x-y")), (None, Some("z")));
    request.answer(&to("/again"));
    assert!(it.notes()[0].starts_with("the server answered 307"), "two were the most");
    within(3, &first).accept().expect_text("hello"); // from the start
}

/// The connection that led there is dropped before another one gets its slot.
#[test]
fn a_redirect_to_an_address_connects_anew() {
    let it = Dialling::new(&["ws://192.0.2.7/"], &ConnectOptions::new().redirects(1));
    let server = it.app.far_server("192.0.2.7", 80);
    let first = server.expect_request().answer("HTTP/1.1 307 x\r\nLocation: /again\r\n\r\n");
    assert_eq!(first.ending(), Some(Ending::Closed));
    let request = server.expect_request();
    assert!(request.head().starts_with("GET /again HTTP/1.1\r\n"));
    request.accept().expect_text("hello");
}

/// What was raced before the redirect is not waited for behind it.
#[test]
fn a_redirect_to_who_refuses_fails_at_once() {
    let it = Dialling::new(&[URL], &ConnectOptions::new().redirects(1));
    let first = it.app.far_server("cloud.example", 80);
    it.app.far_server("other.example", 80).refuse();
    first.expect_request().answer("HTTP/1.1 307 x\r\nLocation: http://other.example/\r\n\r\n");
    let notes = it.notes();
    assert!(notes.len() == 1 && notes[0].contains("connection refused"), "{notes:?}");
    assert_eq!(it.state(), DialerState::Waiting);
}

#[test]
fn a_proxy_connects_for_it() {
    let options = ConnectOptions::new().proxy("http://me:pw@proxy.example:3128");
    let it = Dialling::new(&["ws://hidden.example:81/x"], &options);
    let proxy = it.app.far_server("proxy.example", 3128);
    let request = proxy.expect_request();
    assert!(
        request
            .head()
            .starts_with("CONNECT hidden.example:81 HTTP/1.1\r\nHost: hidden.example:81\r\n")
    );
    assert_eq!(request.header("proxy-authorization"), Some("Basic bWU6cHc="));
    request.answer("HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n");
    assert!(it.notes()[0].starts_with("the proxy answered 407"), "credentials");
    let mut request = within(61, &proxy);
    assert_eq!(it.state(), DialerState::Connecting(ConnectStep::Tunnel));
    request.say("HTTP/1.1 200 Connection established\r\n\r\n");
    let request = request.next_request().unwrap();
    assert!(request.head().starts_with("GET /x HTTP/1.1\r\nHost: hidden.example:81\r\n"));
    assert_eq!(request.header("proxy-authorization"), None);
    request.accept().expect_text("hello");
    assert!(it.app.far(|far| far.asked.iter().all(|name| name == "proxy.example")));
}

/// It would be asked for nothing, and waited for until the deadline of each attempt.
#[test]
fn a_unix_socket_behind_a_proxy_is_a_mistake_of_the_set_up() {
    let options = ConnectOptions::new().proxy("http://proxy.example:3128");
    let mistake = TestApplication::new(|app: &mut Application| {
        app.connect("ws+unix:/run/x.sock:/", options, |_: &Call| on_connect(|_, _| Ok(())));
    });
    let mistake = mistake.unwrap_err().to_string();
    assert!(mistake.contains("ws+unix:/run/x.sock:/: proxy"), "{mistake}");
}

/// The deadline of an attempt may pass in the turn in which its connection is given up.
#[test]
fn an_attempt_that_fails_in_two_ways_at_once_is_followed_by_one() {
    let proxied = ConnectOptions::new().proxy("http://proxy.example:3128");
    let it = Dialling::new(&[URL], &proxied.connect_timeout(secs(300)));
    let proxy = it.app.far_server("proxy.example", 3128);
    let mut tunnel = proxy.expect_request().into_client();
    // The request waits to be written when the tunnel is there, and is never taken.
    tunnel.read_only(0);
    tunnel.send_bytes(b"HTTP/1.1 200 OK\r\n\r\n");
    it.advance(29);
    assert_eq!(it.state(), DialerState::Connecting(ConnectStep::Handshake));
    it.app.jump(secs(3600));
    assert_eq!(it.notes().len(), 1);
    assert_eq!((it.state(), it.app.stats().dials_total), (DialerState::Waiting, 1));
}

#[test]
fn subprotocols_headers_and_addresses() {
    let made = Rc::new(Cell::new(0));
    let count = Rc::clone(&made);
    let options =
        ConnectOptions::new().protocol("v2").protocol("v1").header_with("X-Token", move || {
            count.set(count.get() + 1);
            count.get().to_string()
        });
    let it = Dialling::new(&["ws://me:pw@192.0.2.7:81/"], &options);
    let server = it.app.far_server("192.0.2.7", 81);
    let request = server.expect_request();
    assert_eq!(request.header("sec-websocket-protocol"), Some("v2, v1"));
    assert_eq!(
        (request.header("x-token"), request.header("authorization")),
        (Some("1"), Some("Basic bWU6cHc="))
    );
    request.accept_with("Sec-WebSocket-Protocol: v3\r\n");
    assert!(it.notes()[0].contains("not offered"));
    let request = within(3, &server);
    assert_eq!(request.header("x-token"), Some("2"));
    request.accept_with("Sec-WebSocket-Protocol: v1\r\n").expect_text("v1");
    assert!(it.app.far(|far| far.asked.is_empty()), "an address needs no resolver");
}

#[test]
fn a_message_that_could_never_arrive_is_a_mistake_of_the_set_up() {
    let start = |options: ConnectOptions| {
        let app = TestApplication::new(|app: &mut Application| {
            app.install(WebSockets::new().limits(Limits::new().process_bytes(1 << 20)));
            app.connect("ws://me:secret@h/", options, |_: &Call| on_connect(|_, _| Ok(())));
        });
        app.err().map(|mistake| mistake.to_string())
    };
    let options = ConnectOptions::new;
    for (name, options) in [
        ("max_frame_size", options().max_frame_size(2 << 20)),
        ("max_message_size", options().max_message_size(2 << 20)),
        ("max_outgoing_message_size", options().max_outgoing_message_size(2 << 20)),
    ] {
        let mistake = start(options).unwrap();
        assert!(mistake.starts_with(&format!("Application::connect ws://h/: {name}")), "{mistake}");
    }
    assert_eq!(start(options().max_frame_size(1 << 20)), None);
    let it = one(URL);
    let too_large = options().max_frame_size(1 << 30);
    let late = it
        .app
        .with_server(|server| server.connect(URL, too_large, |_: &Call| on_connect(|_, _| Ok(()))));
    assert!(late.unwrap_err().to_string().contains("max_frame_size"));
}

#[test]
fn the_statistics_say_where_dialers_stand() {
    let it =
        Dialling::new(&[URL, "ws://away.example/", "ws://slow.example/"], &ConnectOptions::new());
    let server = it.app.far_server("cloud.example", 80);
    it.app.far_server("slow.example", 80).vanish();
    let _session = server.expect_request().accept();
    it.advance(0);
    let dialers = || {
        let stats = it.app.stats();
        (stats.dialers_connecting, stats.dialers_open, stats.dialers_waiting)
    };
    assert_eq!(dialers(), (1, 1, 1));
    it.dialers.iter().for_each(Dialer::stop);
    it.advance(10);
    assert_eq!(dialers(), (0, 0, 0));
}

/// Never in the clear where a URL asks for TLS.
#[cfg(not(feature = "tls"))]
#[test]
fn wss_is_a_mistake_without_the_feature_and_a_redirect_there_is_not_followed() {
    let mistake = TestApplication::new(|app: &mut Application| {
        app.connect("wss://cloud.example/", ConnectOptions::new(), |_: &Call| {
            on_connect(|_, _| Ok(()))
        });
    });
    let mistake = mistake.unwrap_err().to_string();
    assert!(mistake.contains("features = [\"client\", \"tls\"]"), "{mistake}");
    let it = Dialling::new(&[URL], &ConnectOptions::new().redirects(1));
    let server = it.app.far_server("cloud.example", 80);
    server
        .expect_request()
        .answer("HTTP/1.1 301 x\r\nLocation: https://cloud.example/\r\nContent-Length: 0\r\n\r\n");
    assert!(it.notes()[0].contains("features = "));
}

#[test]
fn a_stop_ends_dialers_and_their_sessions() {
    let it = Dialling::new(&[URL, "ws://away.example/"], &ConnectOptions::new());
    let server = it.app.far_server("cloud.example", 80);
    it.app.far_server("away.example", 80).vanish();
    let mut session = server.expect_request().accept();
    session.expect_text("hello");
    it.app.shutdown(secs(5));
    session.expect_close(CloseCode::GOING_AWAY);
    it.advance(5);
    assert!(it.app.is_stopped());
    assert!(it.dialers.iter().all(|dialer| dialer.state() == DialerState::Stopped));
    it.advance(1000);
    assert!(server.next_request().is_none());
}

#[test]
fn dialers_begin_and_end_while_the_server_runs_and_leave_nothing_behind() {
    let it = Dialling::new(&[], &ConnectOptions::new());
    let server = it.app.far_server("cloud.example", 80);
    for round in 0..10 {
        let dialer = it.app.with_server(|server| {
            server.connect(URL, ConnectOptions::new(), |_: &Call| {
                on_connect(|session, _| session.send("hello"))
            })
        });
        let dialer = dialer.unwrap();
        let key = dialer.key();
        let mut session = server.expect_request().accept();
        session.expect_text("hello");
        if round % 2 == 0 {
            session.reset();
        }
        dialer.stop();
        drop(dialer);
        it.advance(10);
        assert!(it.app.with_server(|server| server.find_dialer(key)).is_none(), "{round}");
        it.app.audit_empty();
    }
    let wrong = it.app.with_server(|server| {
        server.connect("h:80", ConnectOptions::new(), |_: &Call| on_connect(|_, _| Ok(())))
    });
    assert!(wrong.unwrap_err().to_string().contains("ws://host/path"));
}

/// A `Drop` is the application's code too, also that of what its closures hold.
#[test]
fn a_panic_in_what_a_dialer_held_ends_nothing() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("planned");
        }
    }
    let it = one(URL);
    let mut session = it.app.far_server("cloud.example", 80).expect_request().accept();
    session.expect_text("hello");
    for in_options in [false, true] {
        let held = Panics;
        let stopped = it.app.with_server(move |server| {
            let options = ConnectOptions::new();
            let dialer = if in_options {
                let made = move || format!("{}", size_of_val(&held));
                server.connect(URL, options.header_with("X", made), |_: &Call| {
                    on_connect(|_, _| Ok(()))
                })
            } else {
                server.connect(URL, options, move |_: &Call| {
                    let _ = &held;
                    on_connect(|_, _| Ok(()))
                })
            };
            dialer.map(|dialer| dialer.stop())
        });
        stopped.unwrap();
        it.advance(0);
    }
    session.send("still here");
    session.expect_text("still here");
}

/// Of so many who lose their server at once, how many come back in any 100 ms at most, in percent.
fn worst_tenth_of_a_second(outage: Duration, dialers: usize) -> f64 {
    let url = URL;
    let urls = vec![url; dialers];
    let it = Dialling::new(&urls, &ConnectOptions::new());
    let server = it.app.far_server("cloud.example", 80);
    let mut sessions = Vec::new();
    while let Some(request) = server.next_request() {
        let mut session = request.accept();
        session.send("welcome");
        sessions.push(session);
    }
    assert_eq!(sessions.len(), dialers);
    server.refuse();
    sessions.iter_mut().for_each(|session| session.reset());
    it.app.advance(outage);
    server.listen();
    let mut came = Vec::new();
    for _ in 0..800 {
        it.app.advance(Duration::from_millis(100));
        let mut count = 0;
        while let Some(request) = server.next_request() {
            sessions.push(request.accept());
            count += 1;
        }
        came.push(count);
    }
    assert_eq!(came.iter().sum::<usize>(), dialers, "all are back");
    let worst = came.iter().copied().max().unwrap();
    100.0 * worst as f64 / dialers as f64
}

#[test]
fn a_herd_comes_back_spread() {
    let short = worst_tenth_of_a_second(secs(2), 500);
    assert!(short <= 10.0, "{short} % of them in 100 ms after an outage of 2 s");
    let long = worst_tenth_of_a_second(secs(60), 500);
    assert!(long <= 3.0, "{long} % of them in 100 ms after an outage of 60 s");
}

#[test]
fn an_idle_session_holds_nothing_beyond_its_slot() {
    let it = one(URL);
    let server = it.app.far_server("cloud.example", 80);
    let mut session = server.expect_request().accept();
    session.expect_text("hello");
    session.send("x");
    session.expect_text("x");
    it.app.audit_bare();
}
