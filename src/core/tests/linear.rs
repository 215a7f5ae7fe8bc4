//! Work on a head grows with its length and not with its square, whatever the head is made of.
#![allow(clippy::print_stdout, reason = "read by `.ci/linear`")]

use std::fmt::Write;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::on_connect;
use crate::testing::network::Network;
use crate::words::limits::Limits;
use crate::words::proxy::ProxyHeader;

/// What a head is filled with: its request line, what is in front of the filling and between its
/// parts, a part, and what stands behind. `#` is a number, another in each part.
struct Filling {
    name: &'static str,
    before: &'static str,
    part: &'static str,
    behind: &'static str,
}

const fn filling(
    name: &'static str,
    before: &'static str,
    part: &'static str,
    behind: &'static str,
) -> Filling {
    Filling { name, before, part, behind }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n";
const FILLINGS: &[Filling] = &[
    filling("lines", "GET / HTTP/1.1\r\nHost: h\r\n", "n#: v\r\n", "Z: z\r\n\r\n"),
    filling("lines of one name", GET, "Cookie: c#=1\r\n", "Cookie: last=1\r\n\r\n"),
    filling("a name", GET, "n", ": v\r\n\r\n"),
    filling("a value", "GET / HTTP/1.1\r\nHost: h\r\nX: ", "v", "\r\n\r\n"),
    filling("spaces", "GET / HTTP/1.1\r\nHost: h\r\nX: a", " ", "b\r\n\r\n"),
    filling("spaces behind a value", "GET / HTTP/1.1\r\nHost: h\r\nX: a", " \t", "\r\n\r\n"),
    filling("bytes that are no text", "GET / HTTP/1.1\r\nHost: h\r\nX: ", "~", "\r\n\r\n"),
    filling("lines that are no text", GET, "User-Agent: ~\r\n", "\r\n"),
    filling("Host", "GET / HTTP/1.1\r\nHost: ", "%41h.", "\r\n\r\n"),
    filling("Connection", "GET / HTTP/1.1\r\nHost: h\r\nConnection: ", "close#,", "x\r\n\r\n"),
    filling("empty members", "GET / HTTP/1.1\r\nHost: h\r\nConnection: ", ",", "x\r\n\r\n"),
    filling(
        "Upgrade",
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: ",
        "websocket#,",
        "x\r\n\r\n",
    ),
    filling(
        "Expect",
        "GET / HTTP/1.1\r\nHost: h\r\nExpect: ",
        "100-continue,",
        "100-continue\r\n\r\n",
    ),
    filling(
        "Transfer-Encoding",
        "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ",
        "gzip,",
        "chunked\r\n\r\n",
    ),
    filling("Content-Length", "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: ", "0", "\r\n\r\n"),
    filling("cookies", "GET / HTTP/1.1\r\nHost: h\r\nCookie: ", "c#=\"#\"; ", "last=1\r\n\r\n"),
    filling("Origin", WS_HEAD, "o", "\r\n\r\n"),
    filling("subprotocols", WS_PROTOCOL, "p#, ", "last\r\n\r\n"),
    filling("one subprotocol", WS_PROTOCOL, "p", "\r\n\r\n"),
    filling("lines of subprotocols", WS_HEAD, "\r\nSec-WebSocket-Protocol: p#", "\r\n\r\n"),
    filling("subprotocols of two letters", WS_PROTOCOL, "@,", "last\r\n\r\n"),
    filling("extensions", WS_EXTENSION, "e#, ", "last\r\n\r\n"),
    filling(
        "an extension, again and again",
        WS_EXTENSION,
        "permessage-deflate; x=#, ",
        "last\r\n\r\n",
    ),
    filling("parameters", WS_EXTENSION, "; p#=#", "\r\n\r\n"),
    filling("quoted parameters", WS_EXTENSION, "; p=\"\\a\\b\"", "\r\n\r\n"),
    filling(
        "X-Forwarded-For",
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: ",
        "127.0.0.1, ",
        "127.0.0.1\r\n\r\n",
    ),
    filling(
        "Forwarded",
        "GET / HTTP/1.1\r\nHost: h\r\nForwarded: ",
        "for=127.0.0.1;by=\"_\\x,;\", ",
        "for=127.0.0.1\r\n\r\n",
    ),
    filling(
        "pairs of Forwarded",
        "GET / HTTP/1.1\r\nHost: h\r\nForwarded: ",
        "x#=y;",
        "for=127.0.0.1\r\n\r\n",
    ),
    filling(
        "quotes of Forwarded",
        "GET / HTTP/1.1\r\nHost: h\r\nForwarded: for=127.0.0.1;x=",
        "\"=;\\",
        "for=127.0.0.1\r\n\r\n",
    ),
    filling(
        "X-Forwarded-Proto",
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: ",
        "http, ",
        "https\r\n\r\n",
    ),
    filling("labels of Origin", WS_ORIGIN, "a.", "example:80\r\n\r\n"),
    filling("a zone of Origin", WS_ORIGIN, "[::1%", "]\r\n\r\n"),
    filling("a path", "GET /", "s#/", " HTTP/1.1\r\nHost: h\r\n\r\n"),
    filling("slashes", "GET /", "/", " HTTP/1.1\r\nHost: h\r\n\r\n"),
    filling("escapes", "GET /", "%41", " HTTP/1.1\r\nHost: h\r\n\r\n"),
    filling("a query", "GET /?", "q#=%41+&", "last=1 HTTP/1.1\r\nHost: h\r\n\r\n"),
    filling("an authority", "GET http://", "h.", "/x HTTP/1.1\r\nHost: h\r\n\r\n"),
    filling("line ends before", "", "\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
];

const WS_HEAD: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: x";
const WS_ORIGIN: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://";
const WS_PROTOCOL: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: ";
const WS_EXTENSION: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: x";

impl Filling {
    /// A head of about so many bytes.
    fn head(&self, bytes: usize) -> Vec<u8> {
        let mut head = self.before.to_owned();
        let mut number = 0_usize;
        while head.len() + self.behind.len() < bytes {
            for letter in self.part.chars() {
                match letter {
                    '#' => write!(head, "{number:04}").unwrap(),
                    // Two letters that are another two each time.
                    '@' => {
                        let letters =
                            b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
                        head.push(char::from(letters[number / letters.len() % letters.len()]));
                        head.push(char::from(letters[number % letters.len()]));
                    }
                    _ => head.push(letter),
                }
            }
            number += 1;
        }
        head.push_str(self.behind);
        head.bytes().map(|byte| if byte == b'~' { 0xe9 } else { byte }).collect()
    }
}

/// A server that looks at everything that a request has. Of the headers of proxies one counts.
fn server(filling: &Filling) -> Network {
    let by_standard = filling.before.contains("\nForwarded: ");
    let header = if by_standard { ProxyHeader::Forwarded } else { ProxyHeader::XForwardedFor };
    let look = |call: &Call| {
        let values =
            (call.cookie("last"), call.query_parameter("last"), call.parameters("rest").len());
        let headers = (call.header("user-agent"), call.header_bytes("x"), call.headers().count());
        black_box((values, headers, call.client_addr()));
    };
    let mut application = Application::new();
    let limits = Limits::new().max_head_bytes(16 << 10).max_head_lines(4_096);
    let options =
        WebSockets::new().limits(limits).trusted_proxies(["127.0.0.1"]).proxy_header(header);
    #[cfg(feature = "deflate")]
    let options = options.extension(crate::extension::Deflate::new());
    application.install(options);
    application.routing(|route| {
        route.get("/{rest...}", move |call| {
            look(call);
            "page"
        });
        route
            .web_socket("/chat", move |call: &Call| {
                look(call);
                on_connect(|session, _| session.send("in"))
            })
            .select_protocol(|_, offered| offered.last().map(|&last| last.to_owned()));
    });
    Network::new(application.build().unwrap())
}

/// What is counted and measured: one head, on a connection that is there already. Under callgrind there is
/// no clock: rustix asks the kernel's own code for the time, which is not mapped there.
#[inline(never)]
fn one_head(network: &mut Network, head: &[u8], clock: fn() -> Duration) -> Duration {
    let id = network.connect(SocketAddr::from(([127, 0, 0, 1], 4000)));
    network.link(id).socket.got.reserve(1 << 12);
    let begun = clock();
    counted(network, id, head);
    let took = clock().saturating_sub(begun);
    end_of_count(network.link_count());
    assert!(network.link(id).socket.got.starts_with(b"HTTP/1.1 "));
    took
}

/// What this thread alone has used, whatever else the machine does.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

#[inline(never)]
fn counted(network: &mut Network, id: usize, head: &[u8]) {
    network.send(black_box(id), black_box(head));
}

/// Where callgrind is told to write down what it has counted.
#[inline(never)]
fn end_of_count(links: usize) {
    black_box(links);
}

/// Eight times the bytes take some eight times as long; of quadratic work it would be sixty-four. Noise
/// only adds to a time, so the shortest of many tries is near the truth: they end when it is found.
#[test]
fn heads_take_time_in_proportion_to_their_length() {
    const TRIES: usize = 400;
    for filling in FILLINGS {
        let (short, long) = (filling.head(1 << 10), filling.head(8 << 10));
        let mut network = server(filling);
        let mut least = [Duration::MAX; 2];
        let in_proportion = (0..TRIES).any(|number| {
            least[0] = least[0].min(one_head(&mut network, &short, processor_time));
            least[1] = least[1].min(one_head(&mut network, &long, processor_time));
            number >= 5 && least[1] < least[0] * 20
        });
        assert!(in_proportion, "{}: {least:?} for 1 KiB and 8 KiB", filling.name);
    }
}

/// For `.ci/linear`, which counts the instructions of each call of `counted`, up to `end_of_count`.
#[test]
#[ignore = "run by .ci/linear under callgrind"]
fn heads_for_callgrind() {
    for filling in FILLINGS {
        let mut network = server(filling);
        for kib in [1, 2, 4, 8] {
            let head = filling.head(kib << 10);
            println!("counted: {} {}", head.len(), filling.name);
            one_head(&mut network, &head, || Duration::ZERO);
        }
    }
}
