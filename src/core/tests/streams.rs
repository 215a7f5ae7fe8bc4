//! Pipelined requests in any pieces: the same are seen, and get the same answers.
#![allow(clippy::print_stdout, reason = "how many there were")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::app::application::{Application, WebSockets};
use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::call::Call;
use crate::app::handler::on_message;
use crate::app::response::Response;
use crate::testing::network::{Network, PeerEnd};

#[path = "../../../tests/support/streams.rs"]
#[allow(
    dead_code,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "shared by tests"
)]
mod generator;

use generator::{Dice, stream};

/// Streams in `cargo test`; WIREWHEEL_STREAMS asks for more.
const STREAMS: u64 = 3_000;

struct Server {
    network: Network,
    seen: Rc<RefCell<Vec<String>>>,
}

/// What a stream amounted to: the requests that handlers saw, and all that was answered.
type Outcome = (Vec<String>, Vec<u8>);

impl Server {
    /// Everything is answered with what was asked, and written down.
    fn new() -> Self {
        let seen: Rc<RefCell<Vec<String>>> = Rc::default();
        let (of_pages, of_sockets) = (Rc::clone(&seen), Rc::clone(&seen));
        let (of_bodies, of_pieces) = (Rc::clone(&seen), Rc::clone(&seen));
        let mut application = Application::new();
        application.install(WebSockets::new().hosts(["h"]));
        application.routing(|route| {
            route.post("/{...}", move |call, body| {
                let told = format!("{} {:02x?}", told(call), body.bytes());
                of_bodies.borrow_mut().push(told.clone());
                told
            });
            for method in ["PUT", "PATCH"] {
                let seen = Rc::clone(&of_pieces);
                route.receive(method, "/{...}", move |call| {
                    Ok(Gather { call: call.clone(), bytes: Vec::new(), seen: Rc::clone(&seen) })
                });
            }
            route.get("/{...}", move |call| {
                let told = told(call);
                of_pages.borrow_mut().push(told.clone());
                told
            });
            route.web_socket("/{...}", move |call: &Call| {
                of_sockets.borrow_mut().push(format!("session: {}", told(call)));
                on_message(|session, message| session.send(message))
            });
        });
        Self { network: Network::new(application.build().unwrap()), seen }
    }

    fn outcome<'a>(&mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
        let id = self.network.connect(SocketAddr::from(([127, 0, 0, 1], 4000)));
        for piece in pieces {
            self.network.send(id, piece);
        }
        let answers = std::mem::take(&mut self.network.link(id).socket.got);
        self.network.end(id, PeerEnd::Shut);
        (std::mem::take(&mut *self.seen.borrow_mut()), final_answers(&answers))
    }
}

/// Puts pieces together.
struct Gather {
    call: Call,
    bytes: Vec<u8>,
    seen: Rc<RefCell<Vec<String>>>,
}

impl BodyHandler for Gather {
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        self.bytes.extend_from_slice(piece);
        assert_eq!(body.received(), self.bytes.len() as u64);
        BodyNext::Continue
    }

    fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
        let told = format!("{} {:02x?}", told(&self.call), self.bytes);
        self.seen.borrow_mut().push(told.clone());
        Response::text(told)
    }
}

/// Answers without the requests for bodies between them, which come only where a body did not.
fn final_answers(answers: &[u8]) -> Vec<u8> {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut kept = Vec::new();
    let mut rest = answers;
    while let Some(&first) = rest.first() {
        rest = match rest.strip_prefix(CONTINUE) {
            Some(later) => later,
            None => {
                kept.push(first);
                &rest[1..]
            }
        };
    }
    kept
}

fn told(call: &Call) -> String {
    let lines: Vec<_> = call.headers().collect();
    format!("{} {} {lines:?}", call.method(), call.uri())
}

/// Cuts at up to ten places, or everywhere.
fn pieces<'a>(dice: &mut Dice, bytes: &'a [u8]) -> Vec<&'a [u8]> {
    if dice.one_in(20) {
        return bytes.chunks(1).collect();
    }
    let mut cuts: Vec<usize> = (0..dice.below(10)).map(|_| dice.below(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect()
}

#[test]
fn streams_in_any_pieces_are_the_same_requests() {
    let count = std::env::var("WIREWHEEL_STREAMS").map_or(STREAMS, |count| count.parse().unwrap());
    let mut server = Server::new();
    let (mut requests, mut refused, mut sessions, mut bodies) = (0, 0, 0, 0);
    for number in 0..count {
        if number % 1_000 == 0 {
            server = Server::new(); // a network in memory remembers every link
        }
        let mut dice = Dice(number);
        let bytes = stream(&mut dice, true);
        let whole = server.outcome([&bytes[..]].into_iter());
        let cut = server.outcome(pieces(&mut dice, &bytes).into_iter());
        let shown = String::from_utf8_lossy(&bytes);
        assert_eq!(cut.0, whole.0, "stream {number}: {shown:?}");
        // What is no head may be refused only when its end is there, which may not come.
        let waits =
            whole.1.strip_prefix(&cut.1[..]).is_some_and(|rest| rest.starts_with(b"HTTP/1.1 4"));
        assert!(
            cut.1 == whole.1 || waits,
            "stream {number}: {shown:?}\n{}\n{}",
            String::from_utf8_lossy(&whole.1),
            String::from_utf8_lossy(&cut.1)
        );
        requests += whole.0.len();
        bodies += whole.0.iter().filter(|told| told.starts_with('P')).count();
        sessions += whole.0.iter().filter(|told| told.starts_with("session")).count();
        refused += usize::from(String::from_utf8_lossy(&whole.1).contains("HTTP/1.1 400 "));
    }
    println!(
        "{count} streams, {requests} requests, {bodies} with a body, {sessions} sessions, {refused} refused"
    );
    // Neither is everything refused nor everything taken.
    let count = usize::try_from(count).unwrap();
    assert!(requests > count && refused > count / 10 && sessions > count / 100);
    assert!(bodies > count / 3, "{bodies}");
}
