//! Prints what a message in pieces costs the server that echoes it: the memory that it holds, and the time
//! or the instructions for each byte beside as many bytes in messages of 64 KiB; with deflate and without.
//!
//! Run it with `cargo bench --bench pieces [-- MEBIBYTES [instructions]]` (default 1,024, which is one
//! message of a gibibyte). The server is a process of its own, whose CPU time is what the system says of it,
//! the median of three rounds; with `instructions` it runs under callgrind, and the figure is the difference
//! of two sizes, so that what start and handshake take cancels out. What is held is the growth of what the
//! server has allocated and not freed, looked at in each hook and every millisecond, over what it had when
//! a short message had come back: the buffers of the loop are in that.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(missing_docs, reason = "a program, not a library")]

mod figures;
#[path = "../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use figures::{median, verdict};
use flate2::{Compress, Compression, FlushCompress};
use frames::{masked, upgrade_request};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wirewheel::extension::Deflate;
use wirewheel::pieces::on_piece;
use wirewheel::{Application, Call, HandlerResult, Server, Session, WebSockets, on_message};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The most that was allocated and not freed since this was asked last.
static PEAK: AtomicUsize = AtomicUsize::new(0);

const FRAME_BYTES: usize = 64 << 10;
const HELD_MAX: usize = 128 << 10;
const RATIO_MAX: f64 = 1.1;
const ROUNDS: usize = 3;

type Anything<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Anything {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.first().map(String::as_str) {
        Some("serve") => serve(),
        count => {
            let mebibytes: usize = count.unwrap_or("1024").parse()?;
            let counts = words.get(1).is_some_and(|word| word == "instructions");
            compare(mebibytes << 20, counts)
        }
    }
}

/// The server's side: `/pieces` and `/whole` echo, with all defaults.
fn serve() -> Anything {
    let server = Server::bind("127.0.0.1:0", |app: &mut Application| {
        app.install(WebSockets::new().extension(Deflate::new()));
        app.routing(|route| {
            route.web_socket_pieces("/pieces", |_: &Call| {
                on_piece(|session, piece| {
                    session.send_piece(piece, piece.is_last())?;
                    wait_if_it_does_not_read(session);
                    Ok(())
                })
                .on_drain(read_on)
            });
            route.web_socket("/whole", |_: &Call| {
                on_message(|session, message| {
                    session.send(message)?;
                    wait_if_it_does_not_read(session);
                    Ok(())
                })
                .on_drain(read_on)
            });
        });
    })?;
    println!("{}", server.local_addr());
    thread::Builder::new().spawn(answer_with_peaks)?;
    thread::Builder::new().spawn(|| {
        loop {
            note_live_bytes();
            thread::park_timeout(Duration::from_millis(1));
        }
    })?;
    server.run()?;
    Ok(())
}

fn wait_if_it_does_not_read(session: &mut Session<'_>) {
    note_live_bytes();
    if session.awaits_drain() {
        session.pause();
    }
}

fn read_on(session: &mut Session<'_>) -> HandlerResult {
    session.resume();
    Ok(())
}

fn note_live_bytes() {
    let stats = ALLOCATOR.stats();
    PEAK.fetch_max(stats.bytes_allocated - stats.bytes_deallocated, Ordering::Relaxed);
}

/// Prints the peak, for each line that comes, and begins anew.
fn answer_with_peaks() {
    for _ in std::io::stdin().lines() {
        note_live_bytes();
        println!("{}", PEAK.swap(0, Ordering::Relaxed));
    }
}

fn compare(bytes: usize, counts: bool) -> Anything {
    for deflate in [false, true] {
        let what = if deflate { "deflated" } else { "plain" };
        let (mut pieces, mut whole, mut held) = (Vec::new(), Vec::new(), 0);
        for _ in 0..if counts { 1 } else { ROUNDS } {
            let (cost, of_pieces) = cost(bytes, true, deflate, counts)?;
            pieces.push(cost);
            held = held.max(of_pieces);
            whole.push(self::cost(bytes, false, deflate, counts)?.0);
        }
        let (pieces, whole) = (median(pieces), median(whole));
        let (unit, ratio) = (if counts { "instructions" } else { "ns" }, pieces / whole);
        println!(
            "{what}: {} KiB held ({}), {pieces:.3} {unit} a byte in pieces, {whole:.3} in messages of \
             64 KiB: {ratio:.2} ({})",
            held >> 10,
            verdict(held <= HELD_MAX),
            verdict(ratio <= RATIO_MAX)
        );
    }
    Ok(())
}

/// What an echoed byte costs, and what is held at most.
fn cost(bytes: usize, in_pieces: bool, deflate: bool, counts: bool) -> Anything<(f64, usize)> {
    if !counts {
        let (cost, held) = run(bytes, in_pieces, deflate, false)?;
        return Ok((cost / bytes as f64, held));
    }
    let (less, _) = run(bytes / 4, in_pieces, deflate, true)?;
    let (more, held) = run(bytes, in_pieces, deflate, true)?;
    Ok(((more - less) / (bytes - bytes / 4) as f64, held))
}

/// Nanoseconds or instructions of a server that echoes so many bytes, and what it held.
fn run(bytes: usize, in_pieces: bool, deflate: bool, counts: bool) -> Anything<(f64, usize)> {
    let out = std::env::temp_dir().join(format!("pieces-{}.callgrind", std::process::id()));
    let mut command = if counts {
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
        command.arg(std::env::current_exe()?).stderr(Stdio::null());
        command
    } else {
        Command::new(std::env::current_exe()?)
    };
    let process = command.arg("serve").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut server = Running::new(process)?;
    let path = if in_pieces { "/pieces" } else { "/whole" };
    let client = Client::connect(&server.address, path, deflate)?;
    client.echo(&[FRAME_BYTES / 2], in_pieces)?;
    let (base, before) = (server.peak()?, server.cpu_time()?);
    server.peak()?; // the peak begins anew behind what was allocated for it
    client.echo(&vec![FRAME_BYTES; bytes.div_ceil(FRAME_BYTES)], in_pieces)?;
    let (after, peak) = (server.cpu_time()?, server.peak()?);
    drop(client);
    server.stop()?;
    let held = peak.saturating_sub(base);
    if !counts {
        return Ok((after - before, held));
    }
    let text = fs::read_to_string(&out)?;
    fs::remove_file(&out)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")).ok_or("no totals")?;
    Ok((total.trim().parse()?, held))
}

/// The server's process.
struct Running {
    process: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Running {
    fn new(mut process: Child) -> Anything<Self> {
        let output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut server = Self { process, output, address: String::new() };
        server.address = server.line()?;
        Ok(server)
    }

    fn line(&mut self) -> Anything<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn peak(&mut self) -> Anything<usize> {
        self.process.stdin.as_mut().ok_or("no input")?.write_all(b"\n")?;
        Ok(self.line()?.parse()?)
    }

    /// Nanoseconds on a processor, of the thread that serves.
    fn cpu_time(&self) -> Anything<f64> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.process.id()))?;
        Ok(text.split(' ').next().ok_or("no time")?.parse()?)
    }

    fn stop(mut self) -> Anything {
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        self.process.wait()?;
        Ok(())
    }
}

/// A client that sends while it reads, and counts the messages that come back.
struct Client {
    stream: TcpStream,
    deflate: bool,
}

impl Client {
    fn connect(address: &str, path: &str, deflate: bool) -> Anything<Self> {
        let mut stream = TcpStream::connect(address)?;
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        stream.write_all(upgrade_request(path, if deflate { offer } else { "" }).as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(String::from_utf8_lossy(&head).into());
        }
        Ok(Self { stream, deflate })
    }

    /// Sends so many bytes in each frame, one message in all or each its own, and waits for what comes back.
    fn echo(&self, frames: &[usize], in_pieces: bool) -> Anything {
        let mut sending = self.stream.try_clone()?;
        let (count, deflate) = (frames.len(), self.deflate);
        let (frame_bytes, messages) = (frames[0], if in_pieces { 1 } else { count });
        let writer = thread::Builder::new().spawn(move || -> std::io::Result<()> {
            let rsv = if deflate { 0x40 } else { 0 };
            let content = content(frame_bytes);
            let frame = |first: u8, last: bool| masked(first, &payload(&content, deflate, last));
            if !in_pieces {
                let whole = frame(0x81 | rsv, true);
                return (0..count).try_for_each(|_| sending.write_all(&whole));
            }
            sending
                .write_all(&frame(0x01 | rsv | if count == 1 { 0x80 } else { 0 }, count == 1))?;
            let between = frame(0x00, false);
            (2..count).try_for_each(|_| sending.write_all(&between))?;
            if count > 1 { sending.write_all(&frame(0x80, true)) } else { Ok(()) }
        })?;
        let mut reading = BufReader::with_capacity(256 << 10, &self.stream);
        let (mut came, mut bytes) = (0, 0);
        while came < messages {
            let (fin, length) = skip_frame(&mut reading)?;
            came += usize::from(fin);
            bytes += length;
        }
        writer.join().map_err(|_| "the writer panicked")??;
        if !self.deflate && bytes != count * frame_bytes {
            return Err(format!("{bytes} bytes came back of {}", count * frame_bytes).into());
        }
        Ok(())
    }
}

/// Reads past a frame of the server: whether it ends a message, and its payload's length.
fn skip_frame(reading: &mut impl BufRead) -> Anything<(bool, usize)> {
    let mut start = [0; 2];
    reading.read_exact(&mut start)?;
    let mut length = [0; 8];
    let extended = match start[1] {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    reading.read_exact(&mut length[8 - extended..])?;
    let length = if extended == 0 { u64::from(start[1]) } else { u64::from_be_bytes(length) };
    let skipped = std::io::copy(&mut reading.by_ref().take(length), &mut std::io::sink())?;
    if skipped < length {
        return Err("it ended within a frame".into());
    }
    let is_data = start[0] & 0x08 == 0;
    Ok((is_data && start[0] & 0x80 != 0, if is_data { usize::try_from(length)? } else { 0 }))
}

/// Readings, as a box sends them.
fn content(length: usize) -> Vec<u8> {
    let mut text = String::with_capacity(length + 100);
    let mut state = 1_u32;
    while text.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (sensor, value) = (state >> 28, f64::from(state >> 8 & 0xffff) / 100.0);
        text.push_str(&format!("{{\"sensor\":\"cellar-{sensor}\",\"celsius\":{value:.2}}},"));
    }
    text.truncate(length);
    text.into_bytes()
}

/// What goes on the wire for it: compressed by itself, which any place of a message can hold.
fn payload(content: &[u8], deflate: bool, last: bool) -> Vec<u8> {
    if !deflate {
        return content.to_vec();
    }
    let mut out = Vec::with_capacity(content.len() + 1_000);
    let mut stream = Compress::new(Compression::new(6), false);
    let compressed = stream.compress_vec(content, &mut out, FlushCompress::Sync);
    assert!(compressed.is_ok() && stream.total_in() == content.len() as u64, "it has room");
    if last {
        out.truncate(out.len() - 4); // RFC 7692 section 7.2.1
    }
    out
}
