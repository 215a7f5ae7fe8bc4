//! Decompression bombs against a server in a process of its own: each ends in 1009, and the server
//! holds hardly more than the limit meanwhile.

mod support;

use flate2::{Compress, Compression, FlushCompress};
use support::program::Program;
use support::{Client, masked, measured, upgrade_request};

/// Zeros that a bomb inflates to.
const GIB: usize = 1 << 30;
/// What a server may hold beyond the limit while a bomb arrives: the state of one stream and what a small
/// heap costs, and a read buffer (64 KiB) of input that waits for its turn, since inflating so much takes
/// more than a turn.
const ALLOWANCE: usize = (128 + 64) << 10;

/// The example `deflate`.
struct Server(Program);

impl Server {
    fn start(limit: usize) -> Self {
        Self(Program::with_arguments("deflate", &["127.0.0.1:0", &limit.to_string()]))
    }

    fn upgrade(&self) -> Client {
        let mut client = self.0.connect();
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let answer = client.request(&upgrade_request("/", offer));
        assert!(answer.header("sec-websocket-extensions").is_some(), "{answer:?}");
        client
    }

    /// A figure of the server's memory, in bytes.
    fn memory(&self, figure: &str) -> usize {
        let path = format!("/proc/{}/status", self.0.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    /// Sends the frames, expects 1009, and says by how much the server's memory peaked.
    fn growth(&self, frames: &[u8]) -> usize {
        // Small messages first: what all sessions share is there before, the read buffer above all.
        let mut warm = self.upgrade();
        let hello = masked(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
        warm.write(hello.repeat(6_000));
        for _ in 0..6_000 {
            warm.expect_text("Hello");
        }
        let mut client = self.upgrade();
        let before = self.memory("VmRSS");
        std::fs::write(format!("/proc/{}/clear_refs", self.0.child.id()), "5").unwrap();
        // It may hang up before all is written.
        let _ = std::io::Write::write_all(&mut client.stream, frames);
        client.expect_close(1009);
        self.memory("VmHWM").saturating_sub(before)
    }
}

/// Zeros, compressed as one stream; flushed after every `flush_bytes` if that is given.
fn zeros(bytes: usize, flush_bytes: Option<usize>) -> Vec<u8> {
    let mut stream = Compress::new(Compression::new(9), false);
    let step = flush_bytes.unwrap_or(1 << 20);
    let flush = if flush_bytes.is_some() { FlushCompress::Full } else { FlushCompress::None };
    let chunk = vec![0; step];
    let mut out = Vec::with_capacity(bytes / 250);
    for _ in 0..bytes / step {
        stream.compress_vec(&chunk, &mut out, flush).unwrap();
    }
    stream.compress_vec(&[], &mut out, FlushCompress::Sync).unwrap();
    assert_eq!(stream.total_in(), bytes as u64);
    assert!(out.len() < out.capacity(), "all of it has come out");
    out
}

fn check(name: &str, limit: usize, frames: &[u8]) {
    // The system counts resident pages in batches of each processor.
    measured(|| {
        let growth = Server::start(limit).growth(frames);
        assert!(growth <= limit + ALLOWANCE, "{name}: grew by {growth} with a limit of {limit}");
    });
}

#[test]
fn sixty_kib_that_inflate_to_fifty_mib_under_the_default_limit() {
    let bomb = zeros(50 << 20, None);
    assert!(bomb.len() <= 60 << 10, "{}", bomb.len());
    check("60 KiB", 64 << 10, &masked(0xc2, &bomb));
}

#[test]
fn a_gibibyte_of_zeros_whole_in_fragments_and_in_flushed_blocks() {
    let limit = 2 << 20;
    let bomb = zeros(GIB, None);
    check("whole", limit, &masked(0xc2, &bomb));
    let pieces: Vec<&[u8]> = bomb.chunks(bomb.len().div_ceil(1_000)).collect();
    let last = pieces.len() - 1;
    let fragments = pieces.iter().enumerate().flat_map(|(number, piece)| {
        let opcode = if number == 0 { 0x42 } else { 0 };
        masked(opcode | if number == last { 0x80 } else { 0 }, piece)
    });
    check("1,000 fragments", limit, &fragments.collect::<Vec<u8>>());
    check("full-flush blocks", limit, &masked(0xc2, &zeros(GIB, Some(1 << 20))));
}
