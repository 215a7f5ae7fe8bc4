//! What a broker that misbehaves costs the sessions beside its link: the median round trip of an echo on a
//! server with such a broker, against that on one with an honest broker, in turns.
//!
//! Run it with `cargo bench -p wirewheel-mqtt --bench neighbours [-- NAME...]`: `refuses`, `is-silent`,
//! `never-reads`, `talks-nonsense`, `takes-over`, `sends-steadily`, `floods`. It fails where a limit is not met.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(clippy::disallowed_methods, reason = "what is measured is real time")]

#[path = "figures/mod.rs"]
mod figures;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use figures::{median, verdict};
use wirewheel::flow::{BufferOverflow, FlowOptions};
use wirewheel::{Application, Call, Handle, Server, WebSockets, on_message};
use wirewheel_mqtt::Link;

const ROUNDS: usize = 4_000;
/// The most by which a median may be longer.
const STRETCH_MAX: f64 = 1.1;
/// The same beside one that sends 1 MiB a second.
const STEADY_STRETCH_MAX: f64 = 2.0;
/// Beside one that sends as fast as it can, which is a core's work: the median round trip.
const FLOODED_MAX: Duration = Duration::from_millis(5);

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const SUBACK: &[u8] = &[0x90, 5, 0, 1, 0, 0, 0];
const PINGRESP: &[u8] = &[0xd0, 0];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Honest,
    /// It takes nobody.
    Refuses,
    /// It says nothing, as one does whose packets are lost.
    IsSilent,
    /// It takes the link, and not a byte after that.
    NeverReads,
    TalksNonsense,
    /// It gives the link's name to somebody else.
    TakesOver,
    /// It sends messages, 1 MiB a second.
    IsSteady,
    /// As fast as it can.
    Floods,
}

const CONDUCTS: [(&str, Conduct); 7] = [
    ("refuses", Conduct::Refuses),
    ("is-silent", Conduct::IsSilent),
    ("never-reads", Conduct::NeverReads),
    ("talks-nonsense", Conduct::TalksNonsense),
    ("takes-over", Conduct::TakesOver),
    ("sends-steadily", Conduct::IsSteady),
    ("floods", Conduct::Floods),
];

/// A broker of that conduct, for as long as this process runs.
fn broker(conduct: Conduct) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let _ = serve(stream, conduct); // the link may have hung up
        }
    });
    place
}

fn serve(mut stream: TcpStream, conduct: Conduct) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    if stream.read(&mut buffer)? == 0 {
        return Ok(()); // it has not even said CONNECT
    }
    match conduct {
        Conduct::Refuses => return stream.write_all(&[0x20, 3, 0, 0x87, 0]),
        Conduct::IsSilent => return until_hung_up(stream),
        Conduct::TalksNonsense => return stream.write_all(&[0xff; 1_024]),
        _ => stream.write_all(CONNACK)?,
    }
    if stream.read(&mut buffer)? > 0 {
        stream.write_all(SUBACK)?; // to what can only be SUBSCRIBE
    }
    match conduct {
        // Until the link gives up: nothing else tells.
        Conduct::NeverReads => {
            while stream.write(PINGRESP).is_ok() && pace(Duration::from_secs(1)) {}
        }
        Conduct::TakesOver => return stream.write_all(&[0xe0, 2, 0x8e, 0]),
        Conduct::IsSteady => send(stream, Some(Duration::from_millis(1)))?,
        Conduct::Floods => send(stream, None)?,
        _ => return answer(stream),
    }
    Ok(())
}

fn until_hung_up(mut stream: TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 4_096])? > 0 {}
    Ok(())
}

/// Waits for so long; true, for loops.
fn pace(time: Duration) -> bool {
    thread::park_timeout(time);
    true
}

/// Reads all, and answers each read, whose pings are as many as may be.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 64 << 10];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if buffer[..length].windows(2).any(|pair| pair == [0xc0, 0]) {
            stream.write_all(PINGRESP)?;
        }
    }
}

/// Sends messages of 128 bytes, some at each pace, and answers.
fn send(mut stream: TcpStream, each: Option<Duration>) -> io::Result<()> {
    let answering = stream.try_clone()?;
    thread::spawn(move || answer(answering));
    let message = [&[0x30, 126, 0, 4][..], b"room", &[0], &[b'x'; 119]].concat();
    let messages = message.repeat(if each.is_some() { 8 } else { 64 });
    loop {
        stream.write_all(&messages)?;
        if let Some(time) = each {
            pace(time);
        }
    }
}

/// A server that echoes and publishes, with a link to a broker of that conduct.
fn server(conduct: Conduct) -> (Handle, SocketAddr) {
    let broker = broker(conduct);
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        let options = FlowOptions::new().extra_buffer(64);
        let room = app.flow_of::<[u8]>(options.on_buffer_overflow(BufferOverflow::DropOldest));
        let link = Link::to(format!("mqtt://{broker}")).keep_alive(Duration::from_secs(1));
        link.share(&room, "room").start(app).unwrap();
        app.every(Duration::from_millis(8), move |_| room.emit(&[b'x'; 1_000]).unwrap());
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
    });
    let server = server.unwrap();
    let place = server.local_addrs()[0];
    (server.spawn().unwrap(), place)
}

struct Echo(TcpStream);

impl Echo {
    fn connect(place: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(place).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        Self(stream)
    }

    /// The time of one round trip.
    fn exchange(&mut self) -> Duration {
        let begun = Instant::now();
        let mut frame = [0; 26];
        frame[..2].copy_from_slice(&[0x82, 0x80 | 20]); // under a mask of zeros
        self.0.write_all(&frame).unwrap();
        self.0.read_exact(&mut [0; 22]).unwrap();
        begun.elapsed()
    }
}

/// Whether the limit is met in most of three runs: where the system puts a server's thread may double its
/// round trips for a whole run.
fn measure(name: &str, conduct: Conduct) -> bool {
    (0..3).filter(|_| measure_once(name, conduct)).count() >= 2
}

fn measure_once(name: &str, conduct: Conduct) -> bool {
    let (servers, mut echoes): (Vec<_>, Vec<_>) = [Conduct::Honest, conduct]
        .map(|conduct| {
            let (server, place) = server(conduct);
            (server, Echo::connect(place))
        })
        .into_iter()
        .unzip();
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        // Whoever is first wakes a processor that slept; in turns.
        for at in [round % 2, (round + 1) % 2] {
            let time = echoes[at].exchange();
            // The first rounds are of before the link is there.
            if round >= ROUNDS / 8 {
                times[at].push(time);
            }
        }
        pace(Duration::from_micros(500));
    }
    for server in servers {
        server.shutdown(Duration::ZERO);
        server.join().unwrap();
    }
    let [honest, beside] = times.map(median);
    let stretch = beside.as_secs_f64() / honest.as_secs_f64();
    let (is_met, limit) = match conduct {
        Conduct::Floods => (beside <= FLOODED_MAX, format!("{FLOODED_MAX:?}")),
        Conduct::IsSteady => (stretch <= STEADY_STRETCH_MAX, format!("{STEADY_STRETCH_MAX} times")),
        _ => (stretch <= STRETCH_MAX, format!("{STRETCH_MAX} times")),
    };
    println!(
        "a broker that {name}: median {beside:?} beside {honest:?}, {stretch:.2} times; limit {limit}: {}",
        verdict(is_met)
    );
    is_met
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| word == name);
    let chosen = CONDUCTS.iter().filter(|(name, _)| wanted(name));
    let met: Vec<bool> = chosen.map(|(name, conduct)| measure(name, *conduct)).collect();
    if met.iter().all(|is_met| *is_met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
