//! Compressed messages in any framing, and what has begun of them.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress};
use wirewheel::extension::Deflate;
use wirewheel::{Application, WebSockets};

use crate::held_input::held;
use crate::support::streams::Dice;
use crate::support::{
    BINARY, Client, Events, PATIENCE, Running, masked, recorder, upgrade_request, wait_until,
};

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut stream = Compress::new(Compression::new(6), false);
    let mut out = Vec::with_capacity(data.len() + 1_000);
    stream.compress_vec(data, &mut out, FlushCompress::Sync).unwrap();
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
    out
}

fn compressing(options: fn() -> WebSockets) -> (Running, Events) {
    let (factory, events) = recorder(false);
    let server = Running::start(move |app: &mut Application| {
        app.install(options().extension(Deflate::new()));
        app.routing(|route| {
            route.web_socket("/", factory);
        });
    });
    (server, events)
}

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

fn offering(server: &Running) -> Client {
    let mut client = server.connect();
    let answer = client.request(&upgrade_request("/", OFFER));
    assert!(answer.header("sec-websocket-extensions").is_some(), "{answer:?}");
    client
}

/// What does not get smaller gets a little larger.
#[test]
fn what_inflates_to_an_allowed_message_is_allowed_in_any_framing() {
    let (server, events) = compressing(WebSockets::new);
    let packed = deflated(&Dice(1).bytes(65_536));
    assert!(packed.len() > 65_536, "{}", packed.len());
    let fragments = |sizes: &[usize]| {
        let (mut frames, mut rest, mut first) = (Vec::new(), &packed[..], 0x42);
        for &size in sizes {
            let (piece, later) = rest.split_at(size);
            frames.extend(masked(first, piece));
            (rest, first) = (later, 0x00);
        }
        frames.extend(masked(first | 0x80, rest));
        frames
    };
    for sizes in [&[][..], &[0], &[1], &[65_550], &[20_000, 20_000]] {
        let mut client = offering(&server);
        client.write(fragments(sizes));
        assert!(events.next().starts_with("connect"));
        assert_eq!(events.next(), "binary 65536", "first fragments of {sizes:?}");
        drop(client);
        assert!(events.next().starts_with("close 1006"));
    }
}

/// The allowance is that of the encoding, not of the message.
#[test]
fn what_is_larger_than_allowed_stays_refused_in_any_framing() {
    let (server, _events) =
        compressing(|| WebSockets::new().max_frame_size(65_536).max_message_size(200_000));
    let plain = |first, bytes| masked(first, &vec![b'x'; bytes]);
    let announced =
        |first: u8, bytes: u64| [&[first, 0xff][..], &bytes.to_be_bytes(), &[0; 4]].concat();
    for frames in [
        plain(BINARY, 65_537),
        [plain(0x02, 10), plain(0x80, 65_537)].concat(),
        announced(0xc2, 65_537 + 65_536 / 4),
        [masked(0x42, b""), announced(0x80, 65_537 + 65_536 / 4)].concat(),
        masked(0xc2, &deflated(&vec![b'x'; 200_001])),
    ] {
        let mut client = offering(&server);
        let _ = client.stream.write_all(&frames); // it may hang up before all is written
        client.expect_close(1009);
    }
}

#[test]
fn a_few_bytes_of_a_compressed_message_reserve_no_more_than_a_few() {
    let (server, _events) = compressing(|| WebSockets::new().max_message_size(1 << 20));
    let zeros = deflated(&vec![0; 1 << 20]);
    assert!((1_000..1_100).contains(&zeros.len()), "{}", zeros.len());
    let mut sent = 0;
    for arrive in [7, 1_000] {
        let mut begun: Vec<Client> = (0..505).map(|_| offering(&server)).collect();
        let idle = held(&server);
        for client in &mut begun {
            // Of a frame that announces more, or of one that would inflate to a mebibyte.
            let bytes = &masked(0xc2, &[&zeros[..], &[0; 500]].concat())[..8 + arrive];
            client.write(bytes);
            sent += bytes.len() as u64;
        }
        wait_until("it has arrived", || {
            let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
            let requests = stats.sessions_total * upgrade_request("/", OFFER).len() as u64;
            stats.bytes_in == requests + sent
        });
        let each = (held(&server) - idle) / 505;
        assert!(each <= arrive as u64 * 2 + 300, "{each} for {arrive}");
    }
}
