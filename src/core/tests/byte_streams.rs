//! Sessions of bytes that are dialled, under virtual time: what a policy of their outbox may drop.

use super::secs;
use crate::app::application::Application;
use crate::app::byte_handler::ByteHandler;
use crate::app::connect_options::ConnectOptions;
use crate::session::Session;
use crate::structures::ids::TimerId;
use crate::testing::TestApplication;
use crate::words::error::HandlerResult;
use crate::words::options::OutboxOverflow;

/// Sends three records a second. What ends an event stands within each of them.
struct Recorder {
    next: u32,
}

impl ByteHandler for Recorder {
    fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
        session.set_timer(secs(1)).map(drop).map_err(Into::into)
    }

    fn on_bytes(&mut self, _session: &mut Session<'_>, _bytes: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
        for _ in 0..3 {
            session.send(format!("<{:03}\n\n:\n\n>", self.next).into_bytes())?;
            self.next += 1;
        }
        session.set_timer(secs(1)).map(drop).map_err(Into::into)
    }
}

/// They would be counted, and a device that is slow to acknowledge would be ended for want of a pong.
#[test]
fn a_session_of_bytes_takes_no_ping_period() {
    struct Asking;
    impl ByteHandler for Asking {
        fn on_connect(&mut self, session: &mut Session<'_>) -> HandlerResult {
            let refused = session.set_ping_period(secs(5)).unwrap_err().to_string();
            assert!(refused.contains("a byte stream has no pings"), "{refused}");
            session.set_ping_period(None)?;
            session.send(b"ready".to_vec())
        }

        fn on_bytes(&mut self, _session: &mut Session<'_>, _bytes: &[u8]) -> HandlerResult {
            Ok(())
        }
    }
    let app = TestApplication::new(|app: &mut Application| {
        app.connect_bytes("tcp://meter.example:502", ConnectOptions::new(), || Asking);
    });
    let app = app.unwrap();
    let far = app.far_server("meter.example", 502);
    let peer = far.expect_connection_within(secs(0)).into_client();
    app.advance(secs(60));
    assert_eq!((peer.take_bytes(), app.stats().pings_out), (b"ready".to_vec(), 0));
}

/// What waits has no ends that could be seen in it: a policy that looked for those of events would drop a
/// half of a message.
#[test]
fn policies_drop_whole_messages_of_bytes() {
    for policy in [OutboxOverflow::DropOldest, OutboxOverflow::DropNewest] {
        for cut in 0..40 {
            let app = TestApplication::new(|app: &mut Application| {
                let options = ConnectOptions::new().outbox_bytes(50).on_outbox_full(policy);
                app.connect_bytes("tcp://meter.example:502", options, || Recorder { next: 0 });
            })
            .unwrap();
            let far = app.far_server("meter.example", 502);
            app.advance(secs(0));
            let mut peer = far.next_connection().unwrap().into_client();
            peer.read_only(cut);
            app.advance(secs(6));
            peer.read_on();
            app.advance(secs(2));
            let bytes = String::from_utf8(peer.take_bytes()).unwrap();
            let numbers: Vec<u32> = bytes
                .split_inclusive('>')
                .map(|record| {
                    let number =
                        record.strip_prefix('<').and_then(|it| it.strip_suffix("\n\n:\n\n>"));
                    number.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("{bytes:?}"))
                })
                .collect();
            assert!(numbers.is_sorted() && numbers.len() < 20, "{policy:?} {cut}: {numbers:?}");
            assert!(numbers.len() > 5, "{policy:?} {cut}: {numbers:?}");
        }
    }
}

/// RFC 7301 section 3.2: who speaks none of the protocols that are offered ends the handshake, as a broker
/// does that knows `mqtt` alone.
#[cfg(feature = "tls")]
#[test]
fn what_is_not_spoken_is_not_offered() {
    use crate::app::call::Call;
    use crate::app::handler::on_connect;
    use crate::testing::AUTHORITY;
    use crate::words::tls::Pem;
    use crate::words::tls_client::Roots;
    let app = TestApplication::new(|app: &mut Application| {
        let options = ConnectOptions::new().roots(Roots::pem(Pem::bytes(AUTHORITY)));
        app.connect_bytes("tls://small.example:8883", options.clone(), || Recorder { next: 0 });
        app.connect("wss://small.example/", options, |_: &Call| on_connect(|_, _| Ok(())));
    })
    .unwrap();
    let servers = [(8883, false), (443, true)]
        .map(|(port, offers_http)| (app.far_server("small.example", port), port, offers_http));
    for (server, port, offers_http) in servers {
        let connection = server.expect_connection_within(secs(0));
        let hello = connection.into_client().take_bytes();
        assert_eq!(hello[0], 0x16, "a record of a handshake");
        assert_eq!(hello.windows(8).any(|part| part == b"http/1.1"), offers_http, "{port}");
    }
}
