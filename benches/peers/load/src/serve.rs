//! The load of a program that dials out: each of its connections gets messages, and has to send them back
//! masked.
//!
//! Says `listening`, reads the program's process id from a line on stdin (an empty one measures nothing), and
//! waits for its connections.

use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use sha1::{Digest, Sha1};

use crate::echo::exchange;
use crate::measure::Window;
use crate::swarm::Swarm;
use crate::traffic::{Stream, payload};
use crate::{Outcome, Plan};

/// How long the program may take to dial, under valgrind too.
const PATIENCE: Duration = Duration::from_secs(60);
const HEAD_MAX: usize = 4096;

pub(crate) fn run(plan: &Plan) -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", plan.port))?;
    set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
    println!("listening");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let pid = line.trim();
    let window = Window::of(plan, if pid.is_empty() { None } else { Some(pid.parse()?) });
    let mut swarm = Swarm::new(plan, false)?;
    for _ in 0..plan.connections {
        let (stream, _) = listener.accept()?;
        swarm.adopt(upgrade(stream)?.into())?;
    }
    let out = Stream::incoming(plan.size, plan.text);
    let expected = payload(plan.size);
    exchange(plan, &mut swarm, window, "serve", &out, |swarm, _, index, buffer| {
        swarm.receive_masked(index, &expected, buffer)
    })
}

/// RFC 6455 section 4.2.2, for a request that is what it should be.
fn upgrade(mut stream: TcpStream) -> Outcome<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; HEAD_MAX];
        let n = stream.read(&mut piece)?;
        if n == 0 || head.len() > HEAD_MAX {
            return Err("the request has no end".into());
        }
        head.extend_from_slice(&piece[..n]);
    }
    let head = String::from_utf8(head)?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("Sec-WebSocket-Key").then(|| value.trim())
    });
    let digest = Sha1::new()
        .chain_update(key.ok_or("a request without a key")?)
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
        .finalize();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        data_encoding::BASE64.encode(&digest)
    );
    stream.write_all(answer.as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
