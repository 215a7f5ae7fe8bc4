//! Certificates of clients, judged by a clock that is told.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};

use crate::app::application::{Application, WebSockets};
use crate::context::stats::Stats;
use crate::testing::network::Network;
use crate::testing::network::tls_peer::BothEnds;
use crate::words::tls::{ClientCertificates, Pem};

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../../../tests/certificates/", $name))
    };
}

/// It is valid in 2001.
const LATE: (&str, &str) = (pem!("late.pem"), pem!("late.key"));

/// Somebody connects in the middle of that year and asks: what the server has counted then.
fn visit(network: &mut Network, year: u64) -> Stats {
    let since_1970 = Duration::from_secs((year - 1970) * 31_557_600 + 15_000_000);
    network.set_wall_clock(since_1970);
    let client = network.connect(SocketAddr::from(([127, 0, 0, 1], 4000)));
    network.send(client, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    network.run(|server| server.stats()).unwrap()
}

/// A ticket is followed by the next one as long as its client comes back.
#[test]
fn a_certificate_that_has_expired_resumes_nothing() {
    for version in [&TLS12, &TLS13] {
        let mut app = Application::new();
        app.install(WebSockets::new());
        app.routing(|route| route.get("/", |_| "in"));
        let mut network = Network::new(app.build().unwrap());
        let clients = ClientCertificates::required(Pem::bytes(pem!("clients.pem")));
        network.use_tls_of(BothEnds::showing(clients, version, LATE));
        let told = |stats: &Stats| {
            (stats.tls_handshakes_full, stats.tls_handshakes_resumed, stats.requests_total)
        };
        assert_eq!(told(&visit(&mut network, 2001)), (1, 0, 1));
        for round in 1..3 {
            assert_eq!(told(&visit(&mut network, 2001)), (1, round, 1 + round));
        }
        for round in 1..3 {
            let stats = visit(&mut network, 2003);
            assert_eq!(told(&stats), (1, 2, 3), "{version:?}: nobody is let in");
            assert_eq!(stats.tls_handshakes_failed, round);
        }
        // Of TLS 1.3 each ticket is shown once, and no further one was given.
        let alert = network.link(network.link_count() - 1).tls_fault().map(str::to_owned);
        assert_eq!(alert.is_some_and(|it| it.contains("Expired")), version == &TLS13);
    }
}
