//! Clients come and go for half an hour, with messages of all sizes, compressed or not; the server's
//! resident memory at the end must be within 5 % of what it was after a sixth of the time.
//!
//! Run it with `cargo bench --bench soak [-- SECONDS]` (default 1,800). The server is a process of its
//! own.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_methods, reason = "half an hour is half an hour")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;

mod echo_server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wirewheel::extension::Deflate;
use wirewheel::{Limits, WebSockets};

use echo_server::serve_echo;
use frames::upgrade_request;

type Anything<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Clients that are connected at once.
const CLIENTS: usize = 300;
/// "Hello" as permessage-deflate has it (RFC 7692 section 7.2.3.1).
const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

fn main() -> Anything {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.first().map(String::as_str) {
        Some("serve") => serve(),
        seconds => soak(Duration::from_secs(seconds.unwrap_or("1800").parse()?)),
    }
}

fn serve() -> Anything {
    let deflate = Deflate::new().server_context_takeover(true).client_context_takeover(true);
    // Kept contexts take some 360 KiB a session.
    let limits = Limits::new().process_bytes(256 << 20);
    let options = WebSockets::new().max_frame_size(256 << 10).limits(limits);
    serve_echo("127.0.0.1:0".into(), options.extension(deflate))
}

/// A client with what it needs to say how long an answer is.
struct Client {
    stream: TcpStream,
    compresses: bool,
}

impl Client {
    fn connect(addr: SocketAddr, compresses: bool) -> Anything<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let offer =
            if compresses { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
        stream.write_all(upgrade_request("/", offer).as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(Self { stream, compresses })
    }

    /// Sends a message and reads the one that comes back.
    fn exchange(&mut self, size: usize) -> Anything {
        let (first, payload) = if self.compresses && size % 2 == 0 {
            (0xc2, HELLO.to_vec())
        } else {
            (0x82, vec![u8::try_from(size % 251)?; size])
        };
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | u8::try_from(len)?),
            len @ 126..=65_535 => {
                frame.push(0xfe);
                frame.extend(u16::try_from(len)?.to_be_bytes());
            }
            len => {
                frame.push(0xff);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame)?;
        loop {
            let mut header = [0; 2];
            self.stream.read_exact(&mut header)?;
            let len = match header[1] & 127 {
                126 => {
                    let mut len = [0; 2];
                    self.stream.read_exact(&mut len)?;
                    u64::from(u16::from_be_bytes(len))
                }
                127 => {
                    let mut len = [0; 8];
                    self.stream.read_exact(&mut len)?;
                    u64::from_be_bytes(len)
                }
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(len)?];
            self.stream.read_exact(&mut payload)?;
            match header[0] {
                0x89 => {
                    let len = 0x80 | u8::try_from(len)?;
                    let pong = [&[0x8a, len, 0, 0, 0, 0][..], &payload].concat();
                    self.stream.write_all(&pong)?;
                }
                first if first & 0x08 != 0 => return Err("the server closed".into()),
                _ => return Ok(()),
            }
        }
    }
}

/// The server's resident memory in KiB.
fn resident(server: &Child) -> Anything<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn soak(time: Duration) -> Anything {
    let mut server =
        Command::new(std::env::current_exe()?).arg("serve").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
    let outcome = churn(&server, line.trim().parse()?, time);
    server.kill()?;
    server.wait()?;
    outcome
}

fn churn(server: &Child, addr: SocketAddr, time: Duration) -> Anything {
    let begun = Instant::now();
    let mut clients: Vec<Client> = Vec::new();
    let (mut round, mut connections, mut messages) = (0_usize, 0_u64, 0_u64);
    let (mut early, mut told) = (None, Duration::ZERO);
    while begun.elapsed() < time {
        round += 1;
        while clients.len() < CLIENTS {
            connections += 1;
            clients.push(Client::connect(addr, connections % 2 == 0)?);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let sizes = [0, 20, 125, 1_000, 20_000, 100_000];
            client.exchange(sizes[(number + round) % 6] + number % 7)?;
            messages += 1;
        }
        // A third of them goes, most without a word.
        for number in (0..CLIENTS).rev().filter(|number| (number + round) % 3 == 0) {
            let mut gone = clients.swap_remove(number);
            if number % 4 == 0 {
                gone.stream.write_all(b"\x88\x82\0\0\0\0\x03\xe8")?;
            }
        }
        if early.is_none() && begun.elapsed() >= time / 6 {
            early = Some(resident(server)?);
        }
        if begun.elapsed() >= told + Duration::from_secs(60) {
            told = begun.elapsed();
            println!(
                "{:>5} s  {} KiB  {connections} connections",
                told.as_secs(),
                resident(server)?
            );
        }
    }
    let (early, late) = (early.ok_or("too short")?, resident(server)?);
    let within = late.abs_diff(early) * 20 <= early;
    println!(
        "soak: {} s, {connections} connections, {messages} messages, {early} KiB after a sixth, \
         {late} KiB at the end: {}",
        time.as_secs(),
        if within { "within 5 %" } else { "NOT within 5 %" }
    );
    if within { Ok(()) } else { Err("memory grew".into()) }
}
