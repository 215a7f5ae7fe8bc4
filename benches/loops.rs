//! Prints what two loops cost beside one, and what they win: CPU time for each message of 20 bytes that is
//! echoed, for each delivery in a room, and how many messages are served where each takes 5 us of work.
//!
//! Run it with `cargo bench --bench loops [-- SUBSCRIBERS]` (default 10,000; a room takes as many
//! descriptors here and in the server, and is as large as they allow). The server is a process of its own,
//! whose CPU time is what the system says of all its threads; each figure is the median of five rounds, in
//! which one loop and two take turns.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(missing_docs, reason = "a program, not a library")]

mod figures;
#[path = "../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use figures::{median, verdict};
use frames::{masked, upgrade_request};
use wirewheel::flow::{FlowOptions, SharedFlow};
use wirewheel::{Application, Call, Limits, Server, WebSockets, on_connect, on_message};

const ROUNDS: usize = 5;
const ECHO_MAX: f64 = 1.15;
const ROOM_MAX: f64 = 1.1;
const WORK_MIN: f64 = 1.6;

/// Connections that echo, and messages on each.
const ECHOING: usize = 8;
const ECHOES: usize = 60_000;
const BURST: usize = 100;
/// Messages that a room hears.
const SAID: usize = 40;
const PAYLOAD: &[u8] = b"20 bytes of payload.";
/// As a server frames it.
const FRAME_BYTES: usize = PAYLOAD.len() + 2;
const WORK: Duration = Duration::from_micros(5);
/// Descriptors of a process that are no connections.
const SPARE: usize = 64;

type Anything<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Anything {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [first, loops] = words.as_slice() {
        if first == "serve" {
            return serve(loops.parse()?);
        }
    }
    let wanted: usize = words.first().map_or("10000", String::as_str).parse()?;
    compare(wanted.min(descriptors()?.saturating_sub(SPARE)))
}

fn descriptors() -> Anything<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).ok_or("no limit")?;
    Ok(line.split_whitespace().nth(3).ok_or("no limit")?.parse().unwrap_or(usize::MAX))
}

/// The server's side: `/echo`, `/work` the same with work, `/room` what any of them says.
fn serve(loops: usize) -> Anything {
    let server = Server::bind("127.0.0.1:0", |app: &mut Application| {
        let room: SharedFlow<[u8]> =
            app.shared_flow_of("room", FlowOptions::new().extra_buffer(64));
        let limits = Limits::new().max_connections(20_000);
        app.install(WebSockets::new().ping_period(None).limits(limits));
        app.routing(move |route| {
            route.web_socket("/echo", |_: &Call| on_message(|session, it| session.send(it)));
            route.web_socket("/work", |_: &Call| {
                on_message(|session, it| {
                    work();
                    session.send(it)
                })
            });
            let spoken = room.clone();
            route.web_socket("/say", move |_: &Call| {
                let room = spoken.clone();
                on_message(move |session, it| session.emit(&room, it.bytes()))
            });
            route.web_socket("/room", move |_: &Call| {
                let room = room.clone();
                on_connect(move |session, _| session.collect(&room))
            });
        });
    })?;
    println!("{}", server.local_addr());
    server.loops(loops).run()?;
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn work() {
    let begun = now();
    while begun.elapsed() < WORK {
        black_box(PAYLOAD);
    }
}

fn compare(subscribers: usize) -> Anything {
    let cores = thread::available_parallelism()?;
    let (mut echo, mut room, mut served) = (Vec::new(), Vec::new(), Vec::new());
    let (mut costs, mut deliveries) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        let (one, two) = (echo_cost(1)?, echo_cost(2)?);
        echo.push(two / one);
        costs.0.push(one);
        costs.1.push(two);
        let (one, two) = (room_cost(1, subscribers)?, room_cost(2, subscribers)?);
        room.push(two / one);
        deliveries.0.push(one);
        deliveries.1.push(two);
        served.push(rate_of_work(2)? / rate_of_work(1)?);
    }
    let (echo, room, served) = (median(echo), median(room), median(served));
    println!(
        "echo of 20 B: {:.0} ns a message with one loop, {:.0} with two: {echo:.2} ({})",
        median(costs.0),
        median(costs.1),
        verdict(echo <= ECHO_MAX)
    );
    println!(
        "room of {subscribers}: {:.0} ns a delivery with one loop, {:.0} with two: {room:.2} ({})",
        median(deliveries.0),
        median(deliveries.1),
        verdict(room <= ROOM_MAX)
    );
    println!(
        "with 5 us of work: two loops serve {served:.2} times as many messages; {cores} cores are there, of \
         which the load takes its part ({})",
        verdict(served >= WORK_MIN)
    );
    Ok(())
}

/// CPU nanoseconds for each message.
fn echo_cost(loops: usize) -> Anything<f64> {
    let server = Running::start(loops)?;
    let clients = server.connect("/echo", ECHOING)?;
    exchange(&clients, BURST)?;
    let before = server.cpu_time()?;
    exchange(&clients, ECHOES)?;
    Ok((server.cpu_time()? - before) / (ECHOING * ECHOES) as f64)
}

/// Messages a second, where each takes work.
fn rate_of_work(loops: usize) -> Anything<f64> {
    let server = Running::start(loops)?;
    let clients = server.connect("/work", ECHOING)?;
    exchange(&clients, BURST)?;
    let begun = now();
    let each = ECHOES / 10;
    exchange(&clients, each)?;
    Ok((ECHOING * each) as f64 / begun.elapsed().as_secs_f64())
}

/// Each client sends so many messages, in bursts that all send before any is read.
fn exchange(clients: &[TcpStream], each: usize) -> Anything {
    let burst = masked(0x82, PAYLOAD).repeat(BURST);
    let mut back = vec![0; FRAME_BYTES * BURST];
    for _ in 0..each / BURST {
        clients.iter().try_for_each(|mut client| client.write_all(&burst))?;
        clients.iter().try_for_each(|mut client| client.read_exact(&mut back))?;
    }
    Ok(())
}

/// CPU nanoseconds for each delivery of what one says to so many.
fn room_cost(loops: usize, subscribers: usize) -> Anything<f64> {
    let server = Running::start(loops)?;
    let speaker = server.connect("/say", 1)?;
    let listeners = server.connect("/room", subscribers)?;
    say(&speaker, &listeners)?;
    let before = server.cpu_time()?;
    for _ in 0..SAID {
        say(&speaker, &listeners)?;
    }
    Ok((server.cpu_time()? - before) / (SAID * subscribers) as f64)
}

fn say(speaker: &[TcpStream], listeners: &[TcpStream]) -> Anything {
    let message = masked(0x82, PAYLOAD);
    speaker.iter().try_for_each(|mut it| it.write_all(&message))?;
    let mut heard = [0; FRAME_BYTES];
    for mut listener in listeners {
        listener.read_exact(&mut heard)?;
    }
    Ok(())
}

/// The server's process; ended with this.
struct Running {
    process: Child,
    address: String,
}

impl Running {
    fn start(loops: usize) -> Anything<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process =
            command.args(["serve", &loops.to_string()]).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        Ok(Self { process, address: address.trim().to_owned() })
    }

    fn connect(&self, path: &str, count: usize) -> Anything<Vec<TcpStream>> {
        let request = upgrade_request(path, "");
        let connect = |_| {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_nodelay(true)?;
            stream.write_all(request.as_bytes())?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                head.extend(byte);
            }
            if !head.starts_with(b"HTTP/1.1 101 ") {
                return Err(String::from_utf8_lossy(&head).into());
            }
            Ok(stream)
        };
        (0..count).map(connect).collect()
    }

    /// Nanoseconds on processors, of all its threads.
    fn cpu_time(&self) -> Anything<f64> {
        let mut sum = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().ok_or("no time")?.parse::<f64>()?;
        }
        Ok(sum)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
