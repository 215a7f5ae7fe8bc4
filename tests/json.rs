//! Messages as values over real sockets: round trips, a converter of one's own, and the three ways in
//! which a message is no value.

mod support;

use std::error::Error;

use serde::{Deserialize, Serialize};
use support::{BINARY, Events, Running, TEXT, recorder};
use wirewheel::error::{ConvertError, HandlerError, SessionError};
use wirewheel::json::{ContentConverter, JsonConverter, ReadValue, erased_serde, on_value};
use wirewheel::message::MessageBuf;
use wirewheel::{
    Application, Call, CloseInfo, Handler, HandlerResult, Message, Session, WebSockets, on_connect,
    on_message,
};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Data {
    name: String,
    id: u32,
}

/// The test kit reads values; what is none fails the test, with what came and why it is none.
#[test]
fn the_test_kit_expects_values() {
    let app = wirewheel::testing::TestApplication::new(|app: &mut Application| {
        app.install(json());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
    })
    .unwrap();
    let mut client = app.web_socket("/");
    client.send(r#"{"name":"seven","id":7}"#);
    assert_eq!(client.expect_json::<Data>(), Data { name: "seven".into(), id: 7 });
    client.send("[1, null]");
    assert_eq!(client.expect_json::<(u8, Option<u8>)>(), (1, None));
    for (sent, said) in [
        (Message::from(r#"{"name":"seven"}"#), "missing field `id`"),
        (Message::from("no json"), "received Text(\"no json\")"),
        (Message::from(b"7"), "no text"),
    ] {
        client.send(sent);
        let expects = std::panic::AssertUnwindSafe(|| client.expect_json::<Data>());
        let failure = std::panic::catch_unwind(expects).unwrap_err();
        let failure = failure.downcast_ref::<String>().unwrap();
        assert!(failure.contains(said) && failure.contains("Data in JSON"), "{failure}");
    }
}

/// Sends values back as they come, and reports its end.
struct Back(std::sync::mpsc::Sender<String>);

impl Handler for Back {
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let data: Option<Data> = session.deserialize(&message)?;
        session.send_serialized(&data)
    }

    fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
        let what = match error {
            SessionError::Content(ConvertError::WrongKind { text, bytes }) => {
                format!("wrong kind, text {text}, {bytes} bytes")
            }
            SessionError::Content(ConvertError::BadData { text, bytes, reason }) => {
                format!("bad data, text {text}, {bytes} bytes: {reason}")
            }
            SessionError::Handler(HandlerError::Convert(error)) => error.to_string(),
            other => format!("{other:?}"),
        };
        let _ = self.0.send(what);
    }

    fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
        let _ = self.0.send(format!("close {}", close.code()));
    }
}

fn start(options: fn() -> WebSockets) -> (Running, Events) {
    let (events, inbox) = std::sync::mpsc::channel();
    let server = Running::start(move |app: &mut Application| {
        app.install(options());
        app.routing(|route| {
            route.web_socket("/", move |_call| Back(events.clone()));
        });
    });
    (server, Events::from_channel(inbox))
}

fn json() -> WebSockets {
    WebSockets::new().content_converter(JsonConverter)
}

#[test]
fn a17_values_and_null_make_the_round_trip() {
    let (server, _events) = start(json);
    let mut client = server.upgrade("/");
    for text in [r#"{"name":"user","id":123}"#, "null"] {
        client.text(text);
        client.expect_text(text);
    }
    client.text(" { \"id\" : 7 , \"name\" : \"\\u20ac\" } ");
    client.expect_text(r#"{"name":"€","id":7}"#);
}

#[test]
fn a17_a_binary_message_is_the_wrong_kind() {
    let (server, events) = start(json);
    let mut client = server.upgrade("/");
    client.send(BINARY, b"null");
    assert_eq!(client.expect_close(1003), "Wrong kind of message");
    events.expect("wrong kind, text false, 4 bytes");
    events.expect("close 1003");
}

#[test]
fn bad_data_is_1007_and_says_where() {
    let (server, events) = start(json);
    for (text, reason) in [
        ("{\"name\":\"user\"}", "missing field `id` at line 1 column 15"),
        ("null null", "trailing characters at line 1 column 6"),
        ("{\"name\":\"user\",\"id\":-1}", "invalid value: integer `-1`, expected u32"),
        ("", "EOF while parsing a value at line 1 column 0"),
    ] {
        let mut client = server.upgrade("/");
        client.text(text);
        assert_eq!(client.expect_close(1007), "Bad data");
        let told = events.next();
        let expected = format!("bad data, text true, {} bytes: {reason}", text.len());
        assert!(told.starts_with(&expected), "{told}");
        events.expect("close 1007");
    }
}

#[test]
fn nesting_without_end_is_bad_data_and_no_stack_overflow() {
    let server = Running::start(|app: &mut Application| {
        app.install(json());
        app.routing(|route| {
            route.web_socket("/", |_call: &Call| {
                on_value(|session, value: serde_json::Value| session.send_serialized(&value))
            });
        });
    });
    let mut client = server.upgrade("/");
    client.text("[[[1]]]");
    client.expect_text("[[[1]]]");
    client.text(&"[".repeat(60_000));
    client.expect_close(1007);
}

#[test]
fn a_missing_converter_is_our_fault_and_says_what_to_do() {
    let (server, events) = start(WebSockets::new);
    let mut client = server.upgrade("/");
    client.text("null");
    client.expect_close(1011);
    events.expect("no converter: call WebSockets::content_converter, or the route's");
    events.expect("close 1011");
}

/// A handler that wants to go on after bad data does.
#[test]
fn the_three_errors_are_distinct_and_can_be_answered() {
    let server = Running::start(|app: &mut Application| {
        app.install(json());
        app.routing(|route| {
            route.web_socket("/", |_call: &Call| {
                on_message(|session: &mut Session<'_>, message: Message<'_>| {
                    match session.deserialize::<(&str, u8)>(&message) {
                        Ok((borrowed, number)) => session.send(format!("{borrowed}{number}")),
                        Err(ConvertError::WrongKind { .. }) => session.send("wrong kind"),
                        Err(ConvertError::BadData { .. }) => session.send("bad data"),
                        Err(error) => Err(error.into()),
                    }
                })
            });
        });
    });
    let mut client = server.upgrade("/");
    for (first, sent, answer) in [
        (BINARY, "[\"a\",1]", "wrong kind"),
        (TEXT, "[\"a\",256]", "bad data"),
        (TEXT, "[\"a\",255]", "a255"),
    ] {
        client.send(first, sent.as_bytes());
        client.expect_text(answer);
    }
}

/// Four bytes of a number, in binary messages.
struct Numbers;

impl ContentConverter for Numbers {
    fn accepts(&self, text: bool) -> bool {
        !text
    }

    fn serialize(&self, value: &dyn erased_serde::Serialize) -> Result<MessageBuf, Box<dyn Error>> {
        let number: u32 = serde_json::from_value(serde_json::to_value(value)?)?;
        Ok(MessageBuf::from(&number.to_be_bytes()))
    }

    fn deserialize<'de>(
        &self,
        bytes: &'de [u8],
        read: ReadValue<'_, 'de>,
    ) -> Result<(), Box<dyn Error>> {
        let number = u32::from_be_bytes(bytes.try_into()?);
        let value = serde::de::value::U32Deserializer::<serde::de::value::Error>::new(number);
        Ok(read(&mut <dyn erased_serde::Deserializer<'_>>::erase(value))?)
    }
}

#[test]
fn a_route_may_have_a_converter_of_its_own() {
    let (factory, _events) = recorder(false);
    let server = Running::start(move |app: &mut Application| {
        app.install(json());
        app.routing(|route| {
            route.web_socket("/recorder", factory);
            route
                .web_socket("/numbers", |_call: &Call| {
                    on_value(|session, number: u32| session.send_serialized(&(number + 1)))
                })
                .content_converter(Numbers);
            route.web_socket("/unserializable", |_call: &Call| {
                on_connect(|session, _call| {
                    let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
                    session.send_serialized(&keys)
                })
            });
        });
    });
    let mut client = server.upgrade("/numbers");
    client.send(BINARY, &[0, 0, 0, 41]);
    assert_eq!(client.frame().payload, [0, 0, 0, 42]);
    client.send(BINARY, &[0, 0, 41]);
    client.expect_close(1007);
    let mut client = server.upgrade("/unserializable");
    client.expect_close(1011);
}
