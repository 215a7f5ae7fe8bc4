//! What a server tells of itself: the figures on a route, after traffic whose figures are known.

mod support;

use support::*;
use wirewheel::{Application, Call, Limits, WebSockets, on_message};

fn module(app: &mut Application, limits: Limits) {
    app.install(WebSockets::new().limits(limits));
    app.routing(|route| {
        route.stats("/metrics");
        route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

/// The figures as they are told on a connection that exists already.
struct Figures(String);

impl Figures {
    const REQUEST: &str = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";

    fn ask(monitor: &mut Client) -> Self {
        Self::of(monitor.request(Self::REQUEST))
    }

    fn of(answer: Answer) -> Self {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self(answer.body)
    }

    #[track_caller]
    fn expect(&self, name: &str, figure: &str) {
        let line = format!("\nwirewheel_{name} {figure}\n");
        assert!(self.0.contains(&line), "no {line:?} in {}", self.0);
    }
}

#[test]
fn traffic_is_told_in_figures() {
    let server = Running::start(|app| module(app, Limits::new()));
    let mut monitor = server.connect();
    let request = upgrade_request("/", "");
    let mut client = server.connect();
    assert_eq!(client.request(&request).status, 101);
    for text in ["a", "bc", "def"] {
        client.text(text);
        client.expect_text(text);
    }
    client.send(PING, b"!");
    assert_eq!(client.frame().first, PONG);
    assert_eq!(server.connect().request("GET /x HTTP/1.1\r\nHost: h\r\n\r\n").status, 404);

    let told = Figures::ask(&mut monitor);
    told.expect("sessions_open", "1");
    told.expect("sessions_total", "1");
    told.expect("messages_total{direction=\"in\"}", "3");
    told.expect("messages_total{direction=\"out\"}", "3");
    told.expect("control_frames_total{type=\"ping\",direction=\"in\"}", "1");
    told.expect("requests_refused_total{reason=\"not_found\"}", "1");
    told.expect("connections_total", "3");
    let own = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n".len();
    let stray = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n".len();
    let frames = 3 * 6 + 6 + 6 + 1; // masked headers and payloads
    let all = own + stray + request.len() + frames;
    told.expect("bytes_total{direction=\"in\"}", &all.to_string());

    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_close(1000);
    client.expect_eof();
    let told = Figures::ask(&mut monitor);
    told.expect("sessions_open", "0");
    told.expect("sessions_closed_total{code=\"1000\"}", "1");
}

#[test]
fn timeouts_and_ends_are_told() {
    let limits = Limits::new().handshake_timeout(millis(200));
    let server = Running::start(move |app| module(app, limits));
    let mut slow = server.saying("GET");
    assert_eq!(slow.answer(false).status, 408);
    drop(server.upgrade_at_once("/"));
    let mut boaster = server.upgrade_at_once("/");
    boaster.write([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0]);
    boaster.expect_close(1009);
    boaster.expect_eof();
    let told = Figures::of(server.saying(Figures::REQUEST).answer(false));
    told.expect("timeouts_total{kind=\"handshake\"}", "1");
    told.expect("requests_refused_total{reason=\"timeout\"}", "1");
    told.expect("sessions_closed_total{code=\"1006\"}", "1");
    told.expect("sessions_closed_total{code=\"1009\"}", "1");
    told.expect("bytes_held", "0");
}
