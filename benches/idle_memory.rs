//! Prints what a connection costs the server in user-space memory: idle, after one 64 KiB message
//! on each, and when all are gone.
//!
//! Run it with `cargo bench --bench idle_memory [-- CONNECTIONS [MODE]]` (default 10,000 `plain`). The
//! other modes agree on permessage-deflate: `deflate` as it is by default, `client`, `server` and
//! `server9` with a context kept on that side (`server9` in a window of 9 bits); `events` reads
//! event streams; `tls` speaks TLS 1.3 and wants `--features tls`. The server is a process of its own, so
//! that the clients' memory does not count; the figures are growth of its resident set divided by the
//! connections.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../src/testing/frames.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod frames;

mod echo_server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use echo_server::serve_echo;
use frames::upgrade_request;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
#[cfg(feature = "tls")]
use secured::{connect_securely, listen_securely};
use wirewheel::extension::Deflate;
use wirewheel::{Limits, Listen, WebSockets};

const MESSAGE_BYTES: usize = 64 << 10;
/// From 127.0.0.1 to one port there are fewer ports than connections may be wanted; every client
/// address takes this many.
const PER_ADDRESS: usize = 20_000;

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
    let place = if mode == "tls" { listen_securely(place) } else { place };
    serve_echo(place, options)
}

fn options(mode: &str) -> Result<WebSockets, String> {
    let limits = Limits::new().max_connections(PER_ADDRESS).process_bytes(4 << 30);
    let options = WebSockets::new().limits(limits);
    Ok(match mode {
        "plain" | "events" => options,
        #[cfg(feature = "tls")]
        "tls" => options,
        "deflate" => options.extension(Deflate::new()),
        "client" => options.extension(Deflate::new().client_context_takeover(true)),
        "server" => options.extension(Deflate::new().server_context_takeover(true)),
        "server9" => options
            .extension(Deflate::new().server_context_takeover(true).server_max_window_bits(9)),
        unknown => return Err(format!("no such mode: {unknown}")),
    })
}

fn measure(connections: usize, mode: &str) -> Anything {
    let mut server = Command::new(std::env::current_exe()?)
        .args(["serve", mode])
        .stdout(Stdio::piped())
        .spawn()?;
    let outcome = measure_server(&server_address(&mut server)?, server.id(), connections, mode);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&server),
        rustix::process::Signal::TERM,
    )?;
    server.wait()?;
    outcome
}

fn server_address(server: &mut Child) -> Result<String, Box<dyn std::error::Error>> {
    let mut line = String::new();
    BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn measure_server(address: &str, pid: u32, connections: usize, mode: &str) -> Anything {
    // The first session takes what all share: the transmit buffer and the allocator's own.
    let mut first = connect(address, if mode == "events" { "plain" } else { mode })?;
    let is_compressed = !matches!(mode, "plain" | "tls" | "events");
    echo(&mut first, MESSAGE_BYTES)?;
    if is_compressed {
        echo_compressed(&mut first)?;
    }
    let base = resident_bytes(pid)?;
    println!("server alone: {} KiB resident", base >> 10);
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        clients.push(connect(address, mode)?);
    }
    let report = |what: &str| -> Anything {
        let grown = resident_bytes(pid)?.saturating_sub(base);
        println!(
            "{what}: {} bytes per connection ({connections} connections)",
            grown / connections
        );
        Ok(())
    };
    report("idle")?;
    // Of what the client of an event stream sends nothing comes back.
    for client in clients.iter_mut().filter(|_| mode != "events") {
        echo(client, MESSAGE_BYTES)?;
        if is_compressed {
            echo_compressed(client)?;
        }
    }
    report("after 64 KiB each")?;
    drop(clients);
    echo(&mut first, 1)?; // the loop has taken the hang-ups that came before
    report("all closed")
}

/// A client's connection, with TLS or without.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

type Client = Box<dyn Stream>;

fn connect(address: &str, mode: &str) -> Result<Client, Box<dyn std::error::Error>> {
    let client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
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
