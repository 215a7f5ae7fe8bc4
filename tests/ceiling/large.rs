//! Large messages: what the loop keeps of their buffers, against the resident set.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use wirewheel::{Application, Call, Limits, WebSockets, on_message};

use super::{Victim, raise_descriptors};
use crate::support::*;

pub(super) const LARGE: &str = "large";

/// A quarter of it, 16 MiB, may be spare buffers.
const PROCESS_BYTES: usize = 64 << 20;
const MESSAGE_BYTES: usize = 2 << 20;

fn limits() -> Limits {
    Limits::new().process_bytes(PROCESS_BYTES)
}

/// In the server's process.
pub(super) fn module(app: &mut Application) {
    let options = WebSockets::new().max_frame_size(MESSAGE_BYTES).outbox_bytes(MESSAGE_BYTES);
    app.install(options.ping_period(None).limits(limits()));
    app.routing(|route| {
        route.stats("/metrics");
        route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
    });
}

/// All at once send more than is ever kept, twice over.
fn send_large_messages(clients: &mut [Client]) {
    let payload = vec![7; MESSAGE_BYTES];
    let message = masked(BINARY, &payload);
    let (first, second) = message.split_at(MESSAGE_BYTES / 2);
    let mut echo = vec![0; 10 + MESSAGE_BYTES];
    for _ in 0..2 {
        clients.iter_mut().for_each(|client| client.write(first));
        for client in &mut *clients {
            client.write(second);
            client.stream.read_exact(&mut echo).unwrap();
            assert!(echo[0] == BINARY && echo[10..] == payload);
        }
    }
}

/// How much larger it is at present than it was at first.
fn more(victim: &Victim) -> usize {
    victim.memory("VmRSS").saturating_sub(victim.before)
}

#[test]
fn spare_buffers_of_16_mib_stay_under_the_ceiling_and_are_given_back_in_ten_seconds() {
    raise_descriptors();
    let mut victim = Victim::serving(LARGE);
    victim.note_memory();
    let connect = |_| {
        let client = Client::connect(victim.addr);
        // With less room than a segment of the loopback has, a system waits 200 ms for each.
        let socket = socket2::SockRef::from(&client.stream);
        socket.set_recv_buffer_size(2 * MESSAGE_BYTES).unwrap();
        client.upgraded("/")
    };
    let mut clients: Vec<Client> = (0..12).map(connect).collect();
    let mut out = std::io::stdout();
    // Once more when all was given back: an allocator may have learned from the first time.
    for _ in 0..2 {
        let (mut ended, mut held, mut growth) = (Instant::now(), 0, 0);
        let spare = PROCESS_BYTES / 4;
        // Once more where the machine was so slow that some have gone by now.
        for _ in 0..5 {
            let begun = Instant::now();
            send_large_messages(&mut clients);
            ended = Instant::now();
            (held, growth) = (victim.figure("wirewheel_bytes_held"), victim.growth());
            if begun.elapsed() < Duration::from_secs(4) {
                assert!(held >= spare / 2, "{held} are held"); // how many fit depends on their sizes
                break;
            }
        }
        assert!(held < spare + 4_096, "{held} are held");
        let ceiling = limits().memory_ceiling();
        assert!(growth <= ceiling, "grew by {growth}, ceiling {ceiling}");
        // Small messages go on meanwhile, for which nothing has to be kept. A time in which the machine stood
        // still is not the server's.
        let mut stood_still = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let left = more(&victim);
            if left <= 1 << 20 {
                break;
            }
            let allowed = Duration::from_secs(10) + stood_still;
            assert!(asked - ended < allowed, "{left} bytes are still there");
            clients[0].text("small");
            clients[0].expect_text("small");
            stood_still += asked.elapsed().saturating_sub(millis(50));
        }
        let (seconds, left) = (ended.elapsed().as_secs_f32(), more(&victim));
        writeln!(out, "grew by {} KiB, by {} KiB after {seconds:.1} s", growth >> 10, left >> 10)
            .unwrap();
    }
    assert_eq!(victim.figure("wirewheel_over_budget_total"), 0);
    victim.expect_connections(12);
}
