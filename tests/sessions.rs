//! What a session promises its handler: the order of hooks, errors, options, sending, the end.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]
#![allow(clippy::print_stdout, reason = "says what a machine could not test")]

mod support;

use std::sync::mpsc::channel;
use std::time::Duration;

use support::*;
use wirewheel::compat::Compat;
use wirewheel::error::{HandlerError, SendError};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::{
    Application, Call, CloseCode, CloseReason, ClosedBy, Handler, Limits, Response, Server,
    WebSockets, on_connect, on_message,
};

/// One route at `/`, with options made by `install`.
fn serve<H: Handler + 'static>(
    install: fn() -> WebSockets,
    factory: impl Fn(&Call) -> H + Send + 'static,
) -> Running {
    Running::start(move |app: &mut Application| {
        app.install(install());
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    })
}

#[test]
fn closures_and_trait_hooks_run_in_order() {
    let (events, inbox) = channel();
    let server = serve(WebSockets::new, move |_| {
        let events = [events.clone(), events.clone(), events.clone()];
        let [connect, message, close] = events;
        on_connect(move |_, call| Ok(connect.send(format!("connect {}", call.path()))?))
            .on_message(move |session, text| {
                message.send(format!("message {}", text.text().unwrap_or("-")))?;
                session.send(text)
            })
            .on_close(move |_, info| {
                let _ = close.send(format!("close {}", info.code()));
            })
    });
    let mut client = server.upgrade("/");
    client.text("one");
    client.expect_text("one");
    client.send(CLOSE, &close_payload(1001, ""));
    client.expect_close(1001);
    drop(server);
    let all: Vec<String> = inbox.iter().collect();
    assert_eq!(all, ["connect /", "message one", "close 1001"]);
}

#[test]
fn handler_error_closes_1011() {
    let (closed, inbox) = channel();
    let server = serve(WebSockets::new, move |_| {
        let closed = closed.clone();
        on_message(|_, message| {
            message.text().unwrap_or_default().parse::<u32>()?;
            Ok(())
        })
        .on_close(move |_, info| {
            let _ = closed.send(info.clone());
        })
    });
    let mut client = server.upgrade("/");
    client.text("12");
    client.text("no number");
    let reason = client.expect_close(1011);
    assert!(!reason.contains("invalid digit"), "the error's text is nobody's business: {reason}");
    client.expect_eof();
    let info = inbox.recv_timeout(PATIENCE).unwrap();
    assert_eq!((info.code(), info.closed_by()), (CloseCode::INTERNAL_ERROR, ClosedBy::Local));
}

#[test]
fn ping_timeout_closes_1011() {
    let (factory, events) = recorder(false);
    let options = || WebSockets::new().ping_period(millis(30)).timeout(millis(60));
    let server = serve(options, factory);
    let mut client = server.upgrade("/");
    assert_eq!(client.frame().first, PING);
    client.send(PONG, b"not that one"); // only the exact payload counts
    assert_eq!(client.expect_close(1011), "Ping timeout");
    client.expect_eof();
    events.expect("connect /");
    let how = "close 1011 \"Ping timeout\" by Local unclean";
    events.expect(&format!("error Ping timeout, {how}"));
    events.expect(how);
}

#[test]
fn rtt_is_measured() {
    let (rtts, inbox) = channel();
    let options = || WebSockets::new().ping_period(millis(20));
    let server = serve(options, move |_| {
        let rtts = rtts.clone();
        on_connect(|session, _| {
            assert_eq!(session.rtt(), None);
            Ok(())
        })
        .on_pong(move |session, rtt| {
            assert_eq!(session.rtt(), Some(rtt));
            assert!(session.last_activity() <= rtt);
            Ok(rtts.send(rtt)?)
        })
    });
    let mut client = server.upgrade("/");
    let ping = client.frame();
    client.send(PONG, &ping.payload);
    let rtt = inbox.recv_timeout(PATIENCE).unwrap();
    assert!(rtt > Duration::ZERO && rtt < PATIENCE);
}

#[test]
fn runtime_options_change_one_session() {
    let server = serve(
        || WebSockets::new().max_frame_size(1000),
        |_| {
            on_message(|session, message| {
                match message.text() {
                    Some("small") => session.set_max_frame_size(10)?,
                    Some("mask") => session.set_masking(true),
                    Some("ping") => session.set_ping_period(millis(10))?,
                    Some("zero") => assert!(session.set_timeout(Duration::ZERO).is_err()),
                    _ => {}
                }
                session.send(message.bytes().len().to_string())
            })
        },
    );
    let (mut one, mut other) = (server.upgrade("/"), server.upgrade("/"));
    one.text("zero");
    one.expect_text("4");
    one.text("mask");
    one.expect_text("4"); // the client takes the mask off, or this would be noise
    one.text("small");
    one.expect_text("5");
    one.text("eleven bytes");
    one.expect_close(1009);
    other.text("eleven bytes");
    other.expect_text("12");
    other.text("ping");
    other.expect_text("4");
    assert_eq!(other.frame().first, PING);
}

/// What a session may send follows from what it may be sent, where nobody said otherwise.
#[test]
fn who_takes_longer_messages_may_send_them_back() {
    fn with_a_mebibyte() -> WebSockets {
        WebSockets::new().limits(Limits::new().process_bytes(1 << 20))
    }
    let cases: [(fn() -> WebSockets, bool); 2] =
        [(with_a_mebibyte, true), (|| with_a_mebibyte().max_outgoing_message_size(200_000), false)];
    for (installed, is_answered) in cases {
        let server = serve(installed, |_| {
            on_message(|session, message| {
                session.set_max_frame_size(400_000)?;
                session.send(message)
            })
        });
        let mut client = server.upgrade("/");
        client.text("longer");
        client.expect_text("longer");
        let long = "x".repeat(300_000); // a quarter of process_bytes is less
        client.text(&long);
        client.text("behind it");
        client.expect_text(if is_answered { &long } else { "behind it" });
    }
}

#[test]
fn masked_frames_carry_the_bit_and_differing_keys() {
    let server = serve(
        || WebSockets::new().compat(Compat::new().masking(true)),
        |_| on_message(|session, message| session.send(message)),
    );
    let mut client = server.upgrade("/");
    client.text("same");
    client.text("same");
    while client.inbox.len() < 20 {
        assert!(client.fill());
    }
    let (first, second) = client.inbox.split_at(10);
    assert_eq!((first[1], second[1]), (0x84, 0x84));
    assert_ne!(first[2..6], second[2..6], "a fresh key for each frame");
}

#[test]
fn route_options_override_installed_ones() {
    let server = Running::start(|app| {
        app.install(WebSockets::new().max_frame_size(10));
        app.routing(|route| {
            let echo = |_: &Call| on_message(|session, message| session.send(message));
            route.web_socket("/small", echo);
            route.web_socket("/large", echo).max_frame_size(100);
        });
    });
    let mut small = server.upgrade("/small");
    small.text("eleven bytes");
    small.expect_close(1009);
    let mut large = server.upgrade("/large");
    large.text("eleven bytes");
    large.expect_text("eleven bytes");
}

#[test]
fn close_info_is_the_same_in_on_error_and_on_close() {
    // The recorder asserts that `close_info` in on_close is what on_close is told.
    let (factory, events) = recorder(false);
    let server = serve(WebSockets::new, factory);
    let mut client = server.upgrade("/");
    client.send(0x83, b"");
    let wire = client.expect_close(1002);
    events.expect("connect /");
    let error = events.next();
    let close = events.next();
    assert_eq!(close, format!("close 1002 {wire:?} by Local unclean"));
    assert!(error.ends_with(&close), "{error}");
}

#[test]
fn send_after_close_is_refused() {
    let (results, inbox) = channel();
    let server = serve(WebSockets::new, move |_| {
        let results = results.clone();
        on_connect(move |session, _| {
            session.send("before")?;
            session.close(CloseReason::new(CloseCode::NORMAL, "done")?)?;
            let again = session.close(CloseReason::new(CloseCode::GOING_AWAY, "")?);
            results.send((again.is_err(), session.close_info().map(|info| info.code())))?;
            session.send("after") // returned from a hook, this is no fault: no 1011
        })
    });
    let mut client = server.upgrade("/");
    client.expect_text("before");
    assert_eq!(client.expect_close(1000), "done");
    client.send(CLOSE, &close_payload(1000, "done"));
    client.expect_eof();
    assert_eq!(inbox.recv_timeout(PATIENCE), Ok((true, Some(CloseCode::NORMAL))));
}

#[test]
fn messages_after_our_close_are_not_delivered() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |call: &Call| ClosesAtOnce(factory(call)));
        });
    });
    struct ClosesAtOnce(Recorder);
    impl Handler for ClosesAtOnce {
        fn on_connect(
            &mut self,
            session: &mut wirewheel::Session<'_>,
            call: &Call,
        ) -> wirewheel::HandlerResult {
            self.0.on_connect(session, call)?;
            session.close(CloseReason::try_from(CloseCode::NORMAL)?)
        }
        fn on_message(
            &mut self,
            session: &mut wirewheel::Session<'_>,
            message: wirewheel::Message<'_>,
        ) -> wirewheel::HandlerResult {
            self.0.on_message(session, message)
        }
        fn on_close(&mut self, session: &mut wirewheel::Session<'_>, close: &wirewheel::CloseInfo) {
            self.0.on_close(session, close);
        }
    }
    let mut client = server.upgrade("/");
    client.text("too late");
    client.expect_close(1000);
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_eof();
    drop(server);
    assert_eq!(events.rest(), ["connect /", "close 1000 \"\" by Local clean"]);
}

#[test]
fn fragments_can_be_sent() {
    let server = serve(WebSockets::new, |_| {
        on_connect(|session, _| {
            session.send_fragment("one ", false)?;
            session.ping(b"between")?;
            let other = session.send("whole");
            assert!(matches!(other, Err(HandlerError::Send(SendError::Fragments))));
            let kind = session.send_fragment(b"bytes", true);
            assert!(matches!(kind, Err(HandlerError::Send(SendError::Fragments))));
            session.send_fragment("two", true)?;
            session.send("whole")
        })
    });
    let mut client = server.upgrade("/");
    let frames: Vec<Frame> = (0..4).map(|_| client.frame()).collect();
    let firsts: Vec<u8> = frames.iter().map(|frame| frame.first).collect();
    assert_eq!(firsts, [0x01, PING, 0x80, TEXT]);
    assert_eq!((&frames[0].payload[..], &frames[2].payload[..]), (&b"one "[..], &b"two"[..]));
}

#[test]
fn large_sends_are_cut_into_frames() {
    let server = serve(
        || WebSockets::new().max_frame_size(100_000).max_outgoing_message_size(250_000),
        |_| {
            on_connect(|session, _| {
                session.send(vec![1; 250_000])?;
                let refused = session.send(vec![1; 250_001]);
                let Err(HandlerError::Send(SendError::TooBig { bytes, limit })) = refused else {
                    panic!("taken")
                };
                session.send(format!("{bytes} {limit}"))
            })
        },
    );
    let mut client = server.upgrade("/");
    let frames: Vec<(u8, usize)> =
        (0..3).map(|_| client.frame()).map(|frame| (frame.first, frame.payload.len())).collect();
    assert_eq!(frames, [(0x02, 100_000), (0x00, 100_000), (0x80, 50_000)]);
    client.expect_text("250001 250000");
}

#[test]
fn abort_resets() {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app| {
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.web_socket("/", move |call: &Call| {
                let mut recorder = factory(call);
                on_message(|session, _| {
                    session.abort();
                    session.send("never")
                })
                .on_close(move |session, close| recorder.on_close(session, close))
            });
        });
    });
    let mut client = server.upgrade("/");
    client.text("go");
    let mut buffer = [0; 16];
    let read = std::io::Read::read(&mut client.stream, &mut buffer);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    events.expect("close 1006 \"\" by Local unclean");
}

#[test]
fn shutdown_says_1001_to_everyone() {
    let (factory, events) = recorder(false);
    let grace = 4 * PATIENCE;
    let options = || WebSockets::new().limits(Limits::new().close_timeout(4 * PATIENCE));
    let server = serve(options, factory);
    let mut clients: Vec<Client> = (0..20).map(|_| server.upgrade("/")).collect();
    server.0.shutdown(grace);
    for client in &mut clients {
        client.expect_close(1001);
    }
    // The listener stays open while sessions say good-bye: requests are told 503.
    let answer = server.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    for client in &mut clients {
        client.send(CLOSE, &close_payload(1001, ""));
        client.expect_eof();
    }
    let hung_up = std::time::Instant::now();
    drop(clients);
    server.0.join().unwrap();
    assert!(hung_up.elapsed() < grace / 2, "it ends with the last hang-up, not with the grace");
    let closes = events.rest().into_iter().filter(|e| e.starts_with("close")).collect::<Vec<_>>();
    assert_eq!(closes, vec!["close 1001 \"\" by Local clean"; 20]);
}

#[test]
fn a_session_that_never_answers_is_cut_at_the_grace() {
    let (factory, events) = recorder(false);
    let server = serve(WebSockets::new, factory);
    let mut client = server.upgrade("/");
    server.0.shutdown(millis(100));
    client.expect_close(1001);
    server.0.join().unwrap();
    assert_eq!(events.rest(), ["connect /", "close 1001 \"\" by Local unclean"]);
}

fn start_error(module: impl FnOnce(&mut Application) + Send + 'static) -> String {
    Server::bind("127.0.0.1:0", module).unwrap().spawn().unwrap_err().to_string()
}

#[test]
fn missing_install_is_named() {
    let error = start_error(|app| {
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|_, _| Ok(())));
        });
    });
    assert!(error.starts_with("WebSockets is not installed: call app.install"), "{error}");
}

#[test]
fn duplicate_install_is_named() {
    let error = start_error(|app| {
        app.install(WebSockets::new());
        app.install(WebSockets::new());
    });
    assert!(error.starts_with("WebSockets is installed twice"), "{error}");
}

#[test]
fn bad_options_and_patterns_are_named() {
    let error = start_error(|app| app.install(WebSockets::new().timeout(Duration::ZERO)));
    assert!(error.starts_with("WebSockets: timeout is 0ns"), "{error}");
    let error = start_error(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/x", |_: &Call| on_message(|_, _| Ok(()))).max_frame_size(0);
        });
    });
    assert!(error.starts_with("route \"/x\": max_frame_size is 0"), "{error}");
    let error = start_error(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            let route = route.web_socket("/x", |_: &Call| on_message(|_, _| Ok(())));
            route.protocol("a").select_protocol(|_, offered| Some(offered[0].to_owned()));
        });
    });
    assert!(error.starts_with("route \"/x\": a route has either protocol or"), "{error}");
    let error = start_error(|app| {
        app.routing(|route| route.get("/{a?}/b", |_| "x"));
    });
    assert!(error.contains("\"/{a?}/b\""), "{error}");
    let error = start_error(|app| {
        let buffer = FlowOptions::new().on_buffer_overflow(BufferOverflow::DropOldest);
        let _: SharedFlow = app.flow(buffer);
    });
    assert!(error.starts_with("Application::flow: DropOldest needs a buffer"), "{error}");
    for wrong in ["box.example", "https://box.example/", "https://"] {
        let error = start_error(move |app| app.install(WebSockets::new().allowed_origins([wrong])));
        assert!(error.starts_with("WebSockets: allowed_origins has \""), "{error}");
    }
    let error = start_error(|app| {
        app.install(WebSockets::new().allowed_origins(["*", "null", "https://box.example:8443"]));
        app.routing(|route| {
            route.web_socket("/open", |_: &Call| on_message(|_, _| Ok(())));
            route.on_upgrade(|_| Err(Response::new(401)));
        });
    });
    assert!(error.starts_with("on_upgrade comes after route \"/open\""), "{error}");
    let error = start_error(|app| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/open", |_: &Call| on_message(|_, _| Ok(())));
        });
        app.routing(|route| route.on_upgrade(|_| Err(Response::new(401))));
    });
    assert!(error.starts_with("on_upgrade comes after route \"/open\""), "{error}");
    let error = start_error(|app| {
        app.install(WebSockets::new().limits(Limits::new().process_bytes(1 << 20)));
        app.routing(|route| {
            route
                .web_socket("/x", |_: &Call| on_message(|_, _| Ok(())))
                .max_message_size((1 << 20) + 1);
        });
    });
    let over = "route \"/x\": max_message_size is 1048577: no such message could arrive";
    assert!(error.starts_with(over), "{error}");
    let error = start_error(|app| app.install(WebSockets::new().max_frame_size(1 << 28)));
    assert!(error.starts_with("WebSockets: max_frame_size is 268435456: no such"), "{error}");
    let bad = Server::bind("8080", |_: &mut Application| {}).unwrap_err();
    assert!(format!("{bad:?}").ends_with("it must be host:port or unix:/path"), "{bad:?}");
    let taken = Server::bind("127.0.0.1:0", |_: &mut Application| {}).unwrap();
    let error = Server::bind(taken.local_addr(), |_: &mut Application| {}).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on 127.0.0.1:"), "{error}");
}

#[test]
fn several_listeners_and_ipv6() {
    let server = Server::bind("127.0.0.1:0", |app: &mut Application| {
        app.routing(|route| {
            route.get("/", |call| call.local_addr().to_string());
        });
    })
    .unwrap();
    let Ok(server) = server.listen("[::1]:0") else {
        println!("this machine has no IPv6 loopback: the IPv6 half is not tested");
        return;
    };
    let server = Running::of(server);
    for &addr in server.0.local_addrs() {
        let mut client = Client::connect(addr);
        let answer = client.request("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(answer.body, addr.to_string());
    }
}

#[test]
fn lenient_switches_let_through_what_ktor_lets_through() {
    let server = serve(
        || WebSockets::new().compat(Compat::new().lenient_rsv(true).accept_unmasked_frames(true)),
        |_| {
            on_message(|session, message| {
                let rsv = message.rsv();
                let bits = [rsv.rsv1(), rsv.rsv2(), rsv.rsv3()];
                session.send(format!("{} {bits:?}", message.text().unwrap_or_default()))
            })
        },
    );
    let mut client = server.upgrade("/");
    client.write(b"\x81\x05Hello");
    client.expect_text("Hello [false, false, false]");
    client.send(0xd1, b"Hello");
    client.expect_text("Hello [true, false, true]");
}
