//! Prints what a connection costs the server in user-space memory: idle, after one 64 KiB message
//! on each, and when all are gone.
//!
//! Run it with `cargo bench --bench idle_memory [-- CONNECTIONS [MODE]]` (default 10,000 `plain`). The
//! other modes agree on permessage-deflate: `deflate` as it is by default, `client`, `server` and
//! `server9` with a context kept on that side (`server9` in a window of 9 bits); `events` reads event
//! streams; `tls` speaks TLS 1.3 and wants `--features tls`, as does `hello`: clients that fall silent behind
//! their ClientHello. The server is a process of its own, so that the clients' memory does not count; the
//! figures are growth of its resident set, and of what it has allocated and not freed, divided by the
//! connections.
//!
//! glibc keeps small pieces that were freed in caches, and whatever lies below the last of them; with
//! `GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0` it does not.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;

mod echo_server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use echo_server::serve_echo;
use frames::upgrade_request;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
#[cfg(feature = "tls")]
use secured::{begin_handshake, connect_securely, listen_securely};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use wirewheel::extension::Deflate;
use wirewheel::{Limits, Listen, WebSockets};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const MESSAGE_BYTES: usize = 64 << 10;
/// From 127.0.0.1 to one port there are fewer ports than connections may be wanted; every client
/// address takes this many.
const PER_ADDRESS: usize = 20_000;

/// Longer than all of this takes.
const LONG: Duration = Duration::from_secs(300);

type Anything = Result<(), Box<dyn std::error::Error>>;

fn main() -> Anything {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    match words.first().map(String::as_str) {
        Some("serve") => serve(words.get(1).map_or("plain", String::as_str)),
        count => {
            measure(count.unwrap_or("10000").parse()?, words.get(1).map_or("plain", String::as_str))
        }
    }
}

/// The server's side, with all defaults but the number of connections.
fn serve(mode: &str) -> Anything {
    let options = options(mode)?;
    let place = Listen::from("127.0.0.1:0");
    #[cfg(feature = "tls")]
    let place = if matches!(mode, "tls" | "hello") { listen_securely(place) } else { place };
    thread::Builder::new().spawn(answer_with_live_bytes)?;
    serve_echo(place, options)
}

/// Prints how much is allocated and not freed, for each line that comes.
fn answer_with_live_bytes() {
    for _ in std::io::stdin().lines() {
        let stats = ALLOCATOR.stats();
        println!("{}", stats.bytes_allocated - stats.bytes_deallocated);
    }
}

fn options(mode: &str) -> Result<WebSockets, String> {
    let limits = Limits::new().max_connections(PER_ADDRESS).process_bytes(4 << 30);
    let limits = limits.max_pending_handshakes(PER_ADDRESS).handshake_timeout(LONG);
    let options = WebSockets::new().limits(limits);
    Ok(match mode {
        "plain" | "events" => options,
        #[cfg(feature = "tls")]
        "tls" | "hello" => options,
        "deflate" => options.extension(Deflate::new()),
        "client" => options.extension(Deflate::new().client_context_takeover(true)),
        "server" => options.extension(Deflate::new().server_context_takeover(true)),
        "server9" => options
            .extension(Deflate::new().server_context_takeover(true).server_max_window_bits(9)),
        unknown => return Err(format!("no such mode: {unknown}")),
    })
}

fn measure(connections: usize, mode: &str) -> Anything {
    let process = Command::new(std::env::current_exe()?)
        .args(["serve", mode])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut server = Server::new(process)?;
    let outcome = measure_server(&mut server, connections, mode);
    let mut server = server.process;
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&server),
        rustix::process::Signal::TERM,
    )?;
    server.wait()?;
    outcome
}

/// The server's process.
struct Server {
    process: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    fn new(mut process: Child) -> Result<Self, Box<dyn std::error::Error>> {
        let output = BufReader::new(process.stdout.take().ok_or("no output")?);
        let mut server = Self { process, output, address: String::new() };
        server.address = server.line()?;
        Ok(server)
    }

    fn line(&mut self) -> Result<String, Box<dyn std::error::Error>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// What it holds once that does not change any more: its resident bytes, and those that are allocated.
    fn memory(&mut self) -> Result<(usize, usize), Box<dyn std::error::Error>> {
        let mut last = (0, 0);
        let mut the_same = 0;
        while the_same < 10 {
            self.process.stdin.as_mut().ok_or("no input")?.write_all(b"\n")?;
            let memory = (resident_bytes(self.process.id())?, self.line()?.parse()?);
            the_same = if memory == last { the_same + 1 } else { 0 };
            last = memory;
            thread::park_timeout(Duration::from_millis(5));
        }
        Ok(last)
    }
}

fn measure_server(server: &mut Server, connections: usize, mode: &str) -> Anything {
    let address = server.address.clone();
    // The first session takes what all share: the transmit buffer and the allocator's own.
    let first_mode = match mode {
        "hello" => "tls",
        "events" => "plain",
        mode => mode,
    };
    let mut first = connect(&address, first_mode)?;
    let is_compressed = !matches!(mode, "plain" | "tls" | "hello" | "events");
    echo(&mut first, MESSAGE_BYTES)?;
    if is_compressed {
        echo_compressed(&mut first)?;
    }
    let (base, live) = server.memory()?;
    println!("server alone: {} KiB resident", base >> 10);
    let mut clients: Vec<Client> = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(match mode {
            #[cfg(feature = "tls")]
            "hello" => Box::new(begin_handshake(TcpStream::connect(&address)?)?),
            _ => connect(&address, mode)?,
        });
    }
    let mut report = |what: &str| -> Anything {
        let (resident, allocated) = server.memory()?;
        println!(
            "{what}: {} bytes per connection ({connections} connections), {} of them allocated",
            resident.saturating_sub(base) / connections,
            allocated.saturating_sub(live) / connections
        );
        Ok(())
    };
    report("idle")?;
    // Of what the client of an event stream sends nothing comes back.
    for client in clients.iter_mut().filter(|_| !matches!(mode, "hello" | "events")) {
        echo(client, MESSAGE_BYTES)?;
        if is_compressed {
            echo_compressed(client)?;
        }
    }
    if mode != "hello" {
        report("after 64 KiB each")?;
    }
    drop(clients);
    report("all closed")
}

/// A client's connection, with TLS or without.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

type Client = Box<dyn Stream>;

fn connect(address: &str, mode: &str) -> Result<Client, Box<dyn std::error::Error>> {
    let client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    client.set_nodelay(true)?; // a handshake and the request behind it are two writes
    let mut client: Client = match mode {
        #[cfg(feature = "tls")]
        "tls" => Box::new(connect_securely(client)?),
        _ => Box::new(client),
    };
    if mode == "events" {
        begin_events(&mut client)?;
        return Ok(client);
    }
    let offer = match mode {
        "plain" | "tls" => "",
        _ => "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    };
    client.write_all(upgrade_request("/", offer).as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0; 64];
        let n = client.read(&mut byte)?;
        if n == 0 {
            return Err("the server hung up".into());
        }
        head.extend_from_slice(&byte[..n]);
    }
    Ok(client)
}

/// Asks for an event stream, and reads what it begins with.
fn begin_events(client: &mut Client) -> Anything {
    client.write_all(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")?;
    let mut start = Vec::new();
    while !(start.windows(6).any(|six| six == b"retry:") && start.ends_with(b"\n\n")) {
        let mut bytes = [0; 512];
        let n = client.read(&mut bytes)?;
        if n == 0 {
            return Err("the server hung up".into());
        }
        start.extend_from_slice(&bytes[..n]);
    }
    Ok(())
}

/// Sends one message, masked with zeros, and reads its echo. Pings in between are passed over.
fn echo(client: &mut Client, bytes: usize) -> Anything {
    let mut frame = vec![0x82];
    match u16::try_from(bytes) {
        Ok(short @ 0..=125) => frame.extend([0x80 | u8::try_from(short)?]),
        Ok(medium) => frame.extend([&[0xfe], &medium.to_be_bytes()[..]].concat()),
        Err(_) => frame.extend([&[0xff], &(bytes as u64).to_be_bytes()[..]].concat()),
    }
    frame.extend([0; 4]);
    frame.resize(frame.len() + bytes, 7);
    exchange(client, &frame)
}

/// A message that is compressed, as both sides agreed; what comes back may be, too.
fn echo_compressed(client: &mut Client) -> Anything {
    exchange(client, b"\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\x00")
}

/// Sends a frame and reads until an answer that is no ping.
fn exchange(client: &mut Client, frame: &[u8]) -> Anything {
    client.write_all(frame)?;
    loop {
        let mut header = [0; 2];
        client.read_exact(&mut header)?;
        let mut length = [0; 8];
        let extended = match header[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        client.read_exact(&mut length[8 - extended..])?;
        let length = if extended == 0 { header[1].into() } else { u64::from_be_bytes(length) };
        let mut payload = vec![0; usize::try_from(length)?];
        client.read_exact(&mut payload)?;
        if header[0] & 0x08 == 0 {
            return Ok(());
        }
    }
}

fn resident_bytes(pid: u32) -> Result<usize, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).ok_or("no RssAnon")?;
    let kib: usize = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kib << 10)
}

#[cfg(feature = "tls")]
mod secured {
    use std::net::TcpStream;
    use std::path::PathBuf;
    use std::sync::Arc;

    use rustls::client::Resumption;
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
    use wirewheel::Listen;
    use wirewheel::tls::TlsOptions;

    fn file(name: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "../tests/certificates", name].iter().collect()
    }

    pub(super) fn listen_securely(place: Listen) -> Listen {
        Listen::tls(place, TlsOptions::new(file("box.pem"), file("box.key")))
    }

    /// Says hello, and hears the server's answer to that.
    pub(super) fn begin_handshake(
        socket: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, Box<dyn std::error::Error>> {
        let mut client = connect_securely(socket)?;
        client.conn.write_tls(&mut client.sock)?;
        client.sock.peek(&mut [0])?;
        Ok(client)
    }

    pub(super) fn connect_securely(
        socket: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>, Box<dyn std::error::Error>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("authority.pem"))?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        Ok(StreamOwned::new(client, socket))
    }
}
