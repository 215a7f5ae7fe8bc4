//! What TLS keeps back because the socket has no room: the peer takes it in its own time, and who takes none
//! of it is ended, whatever else it does.

use std::io::Write;
use std::time::Duration;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::response::Response;
use crate::core::Disposal;
use crate::testing::network::{Buffers, LinkId, Network, Pace};
use crate::words::limits::Limits;

const PAGE: &str = "GET /page HTTP/1.1\r\nHost: h\r\n\r\n";

/// A server over TLS that does so much in a turn, and a connection to it with so large a buffer.
fn net(share: usize, send: usize) -> (Network, LinkId) {
    let limits = Limits::new().read_budget_bytes(share);
    let mut application = Application::new();
    application.install(WebSockets::new().limits(limits));
    application.routing(|route| {
        route.get("/page", |_| "x".repeat(200));
        route.get("/long", |_| {
            Response::stream_sized(1 << 20, |piece| piece.write_all(&[b'x'; 4 << 10]))
        });
    });
    let mut net = Network::new(application.build().unwrap());
    net.use_tls();
    let id = net.connect(([127, 0, 0, 1], 4000).into());
    net.link(id).set_buffers(Buffers { send, receive: 1_000, segment: 536 });
    net.advance(secs(1));
    (net, id)
}

fn is_reset(net: &mut Network, id: LinkId) -> bool {
    net.link(id).socket.gone == Some(Disposal::Reset) && net.core.next_connection(0).is_none()
}

#[test]
fn requests_behind_answers_that_are_taken_slowly_are_not_late() {
    const PAGES: usize = 200;
    let (mut net, id) = net(4 << 10, 20_000);
    net.link(id).set_pace(Pace::Steadily { bytes: 300, every: secs(1) });
    net.send(id, PAGE.repeat(PAGES).as_bytes());
    net.advance(secs(300));
    let got = String::from_utf8(std::mem::take(&mut net.link(id).socket.got)).unwrap();
    let answers = |status: &str| got.matches(&format!("HTTP/1.1 {status} ")).count();
    assert_eq!((answers("200"), answers("408")), (PAGES, 0));
}

#[test]
fn who_takes_none_of_a_long_answer_is_ended_wherever_it_stops() {
    for taken in 0..40 {
        let (mut net, id) = net(4 << 10, 4_000);
        net.link(id).set_pace(Pace::Steadily { bytes: 500, every: Duration::from_millis(1) });
        net.send(id, b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n");
        net.advance(Duration::from_millis(taken));
        net.link(id).set_pace(Pace::Nothing);
        net.advance(secs(32));
        assert!(is_reset(&mut net, id), "stopped after {taken} ms");
    }
}

#[test]
fn a_hang_up_is_waited_for_once_whatever_the_peer_sends_meanwhile() {
    let (mut net, id) = net(256 << 10, 4_000);
    net.link(id).set_pace(Pace::Nothing);
    let last = "GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    net.send(id, [&PAGE.repeat(30), last].concat().as_bytes());
    net.send_raw(id, b"this is no record");
    net.advance(secs(60));
    assert!(is_reset(&mut net, id));
}
