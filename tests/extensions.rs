//! Extensions over real sockets: the header, the negotiation, the order of several, what each may do
//! to a message, and the faults of Ktor's extension interface one by one.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{
    BINARY, CLOSE, Events, Running, TEXT, close_payload, masked, recorder, upgrade_request,
};
use wirewheel::compat::Compat;
use wirewheel::error::{HandlerError, SendError};
use wirewheel::extension::{
    Agreement, Extension, ExtensionError, ExtensionFactory, ExtensionMessage, ExtensionOffer,
};
use wirewheel::flow::SharedFlow;
use wirewheel::raw::{Frame, OpCode, Rsv, on_frame};
use wirewheel::{
    Application, Call, CloseCode, HandlerResult, Message, Server, Session, WebSockets, on_connect,
    on_message,
};

/// Puts a letter behind every message and takes it off again, with a reserved bit as the sign of it.
#[derive(Clone)]
struct Letter {
    name: &'static str,
    letter: u8,
    rsv: Rsv,
    alive: Arc<AtomicUsize>,
}

struct Lettered(Letter);

impl Drop for Lettered {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

fn letter(name: &'static str, rsv: Rsv) -> Letter {
    let letter = name.as_bytes()[name.len() - 1];
    Letter { name, letter, rsv, alive: Arc::default() }
}

impl ExtensionFactory for Letter {
    fn name(&self) -> &str {
        self.name
    }

    fn rsv(&self) -> Rsv {
        self.rsv
    }

    fn negotiate(&self, offer: &ExtensionOffer) -> Option<Agreement> {
        if offer.parameters().any(|(name, value)| name != "ok" || value == Some("no")) {
            return None;
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        let agreement = Agreement::new(Lettered(self.clone()));
        Some(match offer.parameter("ok") {
            Some(Some(value)) => agreement.parameter("ok", value),
            Some(None) => agreement.flag("ok"),
            None => agreement,
        })
    }
}

impl Extension for Lettered {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        match message.payload() {
            b"drop me" => message.discard(),
            b"fail me" => {
                return Err(ExtensionError::failed(CloseCode::new(4001), "encoding failed"));
            }
            payload => {
                let longer = [payload, &[self.0.letter]].concat();
                message.replace(longer);
                message.set_rsv(Rsv::RSV1.with(Rsv::RSV2).with(Rsv::RSV3)); // only its own counts
            }
        }
        Ok(())
    }

    fn decode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        if message.rsv().without(self.0.rsv) == message.rsv() {
            return Ok(()); // not encoded by the peer
        }
        let Some((&last, shorter)) = message.payload().split_last() else {
            return Err(ExtensionError::failed(CloseCode::NOT_CONSISTENT, "no letter"));
        };
        if last != self.0.letter {
            return Err(ExtensionError::failed(CloseCode::NOT_CONSISTENT, "another letter"));
        }
        let shorter = shorter.to_vec();
        message.set_rsv(Rsv::NONE);
        if shorter == b"ignored" {
            message.discard();
        }
        message.replace(shorter);
        Ok(())
    }
}

/// A server with these extensions that echoes on `/` and mirrors frames on `/raw`.
fn start(extensions: Vec<Letter>, lenient: bool) -> (Running, Events) {
    let (factory, events) = recorder(true);
    let server = Running::start(move |app: &mut Application| {
        let mut web_sockets = WebSockets::new()
            .compat(Compat::new().lenient_rsv(lenient))
            .max_message_size(1_000)
            .max_outgoing_message_size(1_000);
        for extension in extensions {
            web_sockets = web_sockets.extension(extension);
        }
        app.install(web_sockets);
        app.routing(|route| {
            route.web_socket("/", factory);
            route.web_socket_raw("/raw", |_call| mirror());
            route.web_socket_raw("/raw/agreed", |_call| mirror()).negotiate_extensions(true);
        });
    });
    (server, events)
}

fn mirror() -> impl wirewheel::raw::RawHandler {
    on_frame(|session: &mut Session<'_>, frame: Frame<'_>| {
        if frame.payload == b"names" {
            let names = session.extensions().collect::<Vec<_>>().join("+");
            return session.send_frame(Frame::new(OpCode::Text, names.as_bytes()));
        }
        session.send_frame(frame)
    })
}

/// Upgrades with this offer; the client, and the answer's header.
fn offer(server: &Running, path: &str, lines: &[&str]) -> (support::Client, Option<String>) {
    let mut client = server.connect();
    let lines: String =
        lines.iter().map(|line| format!("Sec-WebSocket-Extensions: {line}\r\n")).collect();
    let answer = client.request(&upgrade_request(path, &lines));
    assert_eq!(answer.status, 101, "{answer:?}");
    let header = answer.header("sec-websocket-extensions").map(|value| value.trim().to_owned());
    (client, header)
}

fn mistake(extensions: Vec<Letter>) -> String {
    let server = Server::bind("127.0.0.1:0", |app: &mut Application| {
        let installed = extensions.into_iter().fold(WebSockets::new(), WebSockets::extension);
        app.install(installed);
    });
    server.unwrap().spawn().unwrap_err().to_string()
}

#[test]
fn a8_offers_of_nobody_are_answered_without_the_header() {
    let (server, _) = start(vec![letter("x-a", Rsv::RSV1)], false);
    let (mut client, header) = offer(&server, "/", &["superspeed, colormode; depth=16"]);
    assert_eq!(header, None);
    client.text("plain");
    client.expect_text("plain");
}

#[test]
fn a_malformed_header_is_400() {
    let (server, _) = start(vec![letter("x-a", Rsv::RSV1)], false);
    for value in ["x-a; ok=\"two words\"", "x-a;", "x a"] {
        let line = format!("Sec-WebSocket-Extensions: {value}\r\n");
        let status = |path| server.connect().request(&upgrade_request(path, &line)).status;
        assert_eq!((status("/"), status("/raw/agreed")), (400, 400), "{value}");
    }
}

/// Agents of home routers offer `bbf-usp-protocol; eid="proto::id"`, whose value is no token.
#[test]
fn a_malformed_header_is_not_looked_at_where_no_extension_is_installed() {
    let (server, _) = start(vec![], false);
    let (with_one, _) = start(vec![letter("x-a", Rsv::RSV1)], false);
    for value in ["bbf-usp-protocol; eid=\"proto::id\"", "x-a;", "\u{e9}", "\"", "; =,"] {
        let line = format!("Sec-WebSocket-Extensions: {value}\r\n");
        for (server, path) in [(&server, "/"), (&server, "/raw"), (&with_one, "/raw")] {
            let mut client = server.connect();
            let answer = client.request(&upgrade_request(path, &line));
            assert_eq!(
                (answer.status, answer.header("sec-websocket-extensions")),
                (101, None),
                "{value}"
            );
            client.text("plain");
            client.expect_text("plain");
        }
    }
}

/// Ktor reads the first header line, takes an extension's first offer and knows no quotes.
#[test]
fn every_line_and_every_offer_is_tried_in_the_clients_order() {
    let (server, _) = start(vec![letter("x-a", Rsv::RSV1), letter("x-b", Rsv::RSV2)], false);
    for (lines, agreed) in [
        (&["x-a; ok=no, x-a; ok=\"1\""][..], Some("x-a; ok=1")),
        (&["x-b", "x-a"], Some("x-b, x-a")),
        (&["x-c, x-a; unknown, x-b; ok"], Some("x-b; ok")),
        (&["x-a", "x-a; ok"], Some("x-a")),
        (&["x-a; ok=no"], None),
    ] {
        assert_eq!(offer(&server, "/", lines).1.as_deref(), agreed, "{lines:?}");
    }
}

/// Ktor never detects a conflict.
#[test]
fn two_claims_on_one_bit_are_refused_at_start_up_by_name() {
    let conflict =
        mistake(vec![letter("x-a", Rsv::RSV2), letter("x-b", Rsv::RSV2.with(Rsv::RSV3))]);
    assert_eq!(conflict, "extensions x-a and x-b claim the same reserved bit");
    let twice = mistake(vec![letter("x-a", Rsv::NONE), letter("x-a", Rsv::NONE)]);
    assert_eq!(twice, "extension x-a is installed twice");
    assert!(mistake(vec![letter("x a", Rsv::NONE)]).contains("no token"));
}

/// Any factory with RSV3 makes Ktor throw.
#[test]
fn rsv3_can_be_claimed_and_is_the_only_bit_that_its_owner_sets() {
    let (server, events) = start(vec![letter("x-a", Rsv::RSV3)], false);
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    client.send(0x91, b"helloa");
    let frame = client.frame();
    assert_eq!((frame.first, &frame.payload[..]), (0x91, &b"helloa"[..]));
    client.send(0xa1, b"another's bit");
    client.expect_close(1002);
    drop(client);
    drop(server);
    assert_eq!(events.rest()[1], "text hello");
}

/// Ktor applies extensions in one order both ways.
#[test]
fn what_is_encoded_last_is_decoded_first() {
    let (server, events) = start(vec![letter("x-a", Rsv::RSV1), letter("x-b", Rsv::RSV2)], false);
    let (mut client, _) = offer(&server, "/", &["x-b, x-a"]);
    client.send(0xe1, b"helloba");
    let frame = client.frame();
    assert_eq!((frame.first, &frame.payload[..]), (0xe1, &b"helloba"[..]));
    client.send(0xe1, b"helloab");
    assert_eq!(client.expect_close(1007), "another letter");
    drop(client);
    drop(server);
    let told = "error another letter, close 1007 \"another letter\" by Local unclean";
    let expected =
        ["connect /", "text hello", told, "close 1007 \"another letter\" by Local unclean"];
    assert_eq!(events.rest(), expected);
}

/// Writes behind each message how many it has encoded, so that no two sessions encode alike.
struct Count(u8);

impl ExtensionFactory for Count {
    fn name(&self) -> &str {
        "x-count"
    }

    fn negotiate(&self, _offer: &ExtensionOffer) -> Option<Agreement> {
        Some(Agreement::new(Self(b'0')))
    }
}

impl Extension for Count {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        self.0 += 1;
        let counted = [message.payload(), &[self.0]].concat();
        message.replace(counted);
        Ok(())
    }
}

#[test]
fn without_a_share_key_each_session_encodes_what_all_get_for_itself() {
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new().extension(Count(0)));
        let flow = SharedFlow::new();
        app.routing(move |route| {
            route.web_socket("/", move |_call: &Call| {
                let (joined, said) = (flow.clone(), flow.clone());
                on_connect(move |session, _call| session.collect(&joined)).on_message(
                    move |session, message| match message.text() {
                        Some("all") => session.emit(&said, "for all "),
                        _ => session.send(message),
                    },
                )
            });
        });
    });
    let (mut first, _) = offer(&server, "/", &["x-count"]);
    let (mut second, _) = offer(&server, "/", &["x-count"]);
    second.text("mine ");
    second.expect_text("mine 1");
    first.text("all");
    first.expect_text("for all 1");
    second.expect_text("for all 2");
}

/// Ktor makes every extension's state for every handshake and has no hook for its end.
#[test]
fn state_is_made_on_agreement_and_dropped_with_the_session() {
    let extension = letter("x-a", Rsv::RSV1);
    let alive = Arc::clone(&extension.alive);
    let (server, events) = start(vec![extension], false);
    let (plain, _) = offer(&server, "/", &[]);
    events.expect("connect /");
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    events.expect("connect /");
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_close(1000);
    client.expect_eof();
    drop(plain);
    drop(server);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_message_in_fragments_and_reads_is_decoded_once_whole() {
    let (server, events) = start(vec![letter("x-a", Rsv::RSV1)], false);
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    events.expect("connect /");
    let fragments =
        [masked(0x41, b"hel"), masked(0x89, b"!"), masked(0x00, b"lo"), masked(0x80, b"a")];
    for byte in fragments.concat() {
        client.write([byte]);
    }
    assert_eq!(client.frame().first, 0x8a);
    events.expect("text hello");
    assert_eq!(client.frame().payload, b"helloa");
    // RFC 7692 section 6: the bit of a message stands on its first frame alone.
    client.send(0x41, b"hel");
    client.send(0xc0, b"loa");
    client.expect_close(1002);
}

#[test]
fn messages_that_are_not_encoded_pass_and_dropped_ones_do_not() {
    let (server, events) = start(vec![letter("x-a", Rsv::RSV1)], false);
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    client.send(0xc2, b"ignoreda");
    client.send(BINARY, b"drop me");
    client.text("plain");
    let frame = client.frame();
    assert_eq!((frame.first, &frame.payload[..]), (0xc1, &b"plaina"[..]));
    let told = [events.next(), events.next(), events.next()];
    assert_eq!(told, ["connect /", "binary 7", "text plain"]);
}

/// After a failure of an extension Ktor's `closeReason` never completes.
#[test]
fn a_failure_while_sending_ends_with_the_extensions_code_and_on_close() {
    let (server, events) = start(vec![letter("x-a", Rsv::RSV1)], false);
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    client.text("fail me");
    assert_eq!(client.expect_close(4001), "encoding failed");
    drop(client);
    drop(server);
    let close = "close 4001 \"encoding failed\" by Local unclean";
    let error = format!("error encoding failed, {close}");
    assert_eq!(events.rest(), ["connect /", "text fail me", &error, close]);
}

#[test]
fn what_extensions_make_is_held_to_utf8_and_to_the_limit() {
    let (server, _events) = start(vec![letter("x-a", Rsv::RSV1)], false);
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    client.send(0xc1, b"\xffa");
    client.expect_close(1007);
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    client.send(0x41, &[b'x'; 700]);
    client.send(0x80, &[b'x'; 700]);
    client.expect_close(1009);
    // The echo would be a byte over the limit, and an extension without a share key may build on it.
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    client.send(TEXT, &[b'x'; 1_000]);
    client.expect_close(1011);
}

#[test]
fn fragments_that_are_sent_are_encoded_as_one_message() {
    let server = Running::start(|app: &mut Application| {
        let extension = letter("x-a", Rsv::RSV1);
        app.install(
            WebSockets::new().extension(extension).max_frame_size(4).max_outgoing_message_size(8),
        );
        app.routing(|route| {
            route.web_socket("/", |_call| {
                on_message(|session: &mut Session<'_>, _: Message<'_>| -> HandlerResult {
                    session.send_fragment("he", false)?;
                    let mixed = session.send_fragment(b"l", true).unwrap_err();
                    assert!(matches!(mixed, HandlerError::Send(SendError::Fragments)));
                    let long = session.send_fragment("1234567", true).unwrap_err();
                    assert!(matches!(long, HandlerError::Send(SendError::TooBig { .. })));
                    session.send_fragment("llo", true)?;
                    session.send("next")
                })
            });
        });
    });
    let (mut client, _) = offer(&server, "/", &["x-a"]);
    client.text("go");
    let frames: Vec<_> = (0..4).map(|_| client.frame()).map(|f| (f.first, f.payload)).collect();
    let expected: [(u8, &[u8]); 4] =
        [(0x41, b"hell"), (0x80, b"oa"), (0x41, b"next"), (0x80, b"a")];
    assert!(
        frames.iter().map(|(first, payload)| (*first, &payload[..])).eq(expected),
        "{frames:?}"
    );
}

/// Ktor negotiates for raw sessions and then shows their handlers an empty list.
#[test]
fn raw_sessions_agree_where_they_are_told_to_and_see_what_they_agreed_on() {
    let (server, _events) = start(vec![letter("x-a", Rsv::RSV1)], false);
    let (mut client, header) = offer(&server, "/raw", &["x-a"]);
    assert_eq!(header, None);
    client.send(TEXT, b"names");
    client.expect_text("");
    client.send(0xc1, b"x");
    client.expect_close(1002);
    let (mut client, header) = offer(&server, "/raw/agreed", &["x-a"]);
    assert_eq!(header.as_deref(), Some("x-a"));
    client.send(TEXT, b"names");
    client.expect_text("x-a");
    client.send(0xc1, b"as it is");
    let frame = client.frame();
    assert_eq!((frame.first, &frame.payload[..]), (0xc1, &b"as it is"[..]));
}

/// Ktor's RSV test: fragments whose first one has RSV1, which nobody owns.
#[test]
fn a14_bits_without_an_owner() {
    let first = [0x41, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let last = [0x80, 0x87, 0x37, 0xfa, 0x21, 0x3d, 0x1b, 0xda, 0x76, 0x52, 0x45, 0x96, 0x45];
    let message = [&first[..], &last].concat();
    let server = Running::start(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            let show = |_call: &Call| {
                on_message(|session: &mut Session<'_>, message: Message<'_>| {
                    let (text, rsv) = (message.text().unwrap_or_default(), message.rsv());
                    session.send(format!("{text} {} {} {}", rsv.rsv1(), rsv.rsv2(), rsv.rsv3()))
                })
            };
            route.web_socket("/lenient", show).compat(Compat::new().lenient_rsv(true));
            route.web_socket("/", show);
        });
    });
    let mut client = server.upgrade("/lenient");
    client.write([&message[..], &message].concat());
    client.expect_text("Hello, World true false false");
    client.expect_text("Hello, World true false false");
    let mut client = server.upgrade("/");
    client.write(&message);
    client.expect_close(1002);
}
