//! A session that is piped to another server, and backpressure through both: whoever is slow, at
//! either end, slows the other down, and nothing piles up in between.
//!
//! Run it with `cargo run --release --example proxy -- 127.0.0.1:8080 127.0.0.1:9000`: what comes to
//! port 8080, at any path, goes to the server at port 9000, and back. The connections to it live on
//! the loop as watched descriptors; the protocol on them is spoken by tungstenite, without blocking.
//! Compression and subprotocols are agreed on with neither side.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tungstenite::client::client_with_config;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message as Upstreams, WebSocket};
use wirewheel::flow::SharedFlow;
use wirewheel::message::{Payload, ToMessage};
use wirewheel::watch::{Ready, Watch};
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message, Server,
    ServerRef, Session, SessionId, TimerId, WebSockets,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most that is read from the other server before its client is looked at again.
const READ_BYTES: usize = 16 << 10;
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// The connection to the other server, of which only so much is read at a time.
struct Stream {
    socket: TcpStream,
    allowed: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.allowed);
        if most == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = self.socket.read(&mut buffer[..most])?;
        self.allowed -= length;
        Ok(length)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// How far the connection to the other server is.
enum Link {
    Connecting(TcpStream),
    Greeting(MidHandshake<ClientHandshake<Stream>>),
    Open(Box<WebSocket<Stream>>),
    Over,
}

/// A message on its way to the client.
enum Piece {
    Text(tungstenite::Utf8Bytes),
    Binary(tungstenite::Bytes),
}

impl ToMessage for Piece {
    fn to_message(&self, take: &mut dyn FnMut(Message<'_>)) {
        match self {
            Self::Text(text) => take(text.as_str().into()),
            Self::Binary(bytes) => take(bytes.as_ref().into()),
        }
    }
}

/// One session and its connection to the other server.
struct Pipe {
    session: SessionId,
    url: String,
    link: RefCell<Link>,
    /// The connection once more, for those who watch it.
    socket: TcpStream,
    /// What the other server says. It has one subscriber and no buffer: it would suspend its
    /// publisher as long as the client has not taken everything.
    down: SharedFlow<Piece>,
    /// The other server is not read, because the client does not read.
    stalled: Cell<bool>,
}

fn bad_gateway(text: &str) -> Option<CloseReason> {
    CloseReason::truncated(CloseCode::BAD_GATEWAY, text).ok()
}

impl Pipe {
    fn open(session: &Session<'_>, call: &Call, upstream: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(upstream), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&upstream.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        Ok(Self {
            session: session.id(),
            url: format!("ws://{upstream}{}", call.uri()),
            socket: socket.try_clone()?,
            link: RefCell::new(Link::Connecting(socket)),
            down: SharedFlow::new(),
            stalled: Cell::new(false),
        })
    }

    /// Watches the connection until `act` has enough.
    fn watch(
        self: &Rc<Self>,
        server: &mut ServerRef<'_>,
        interest: Ready,
        act: fn(&Rc<Self>, &mut ServerRef<'_>) -> Watch,
    ) -> io::Result<()> {
        let pipe = Rc::clone(self);
        // Each watch needs a descriptor of its own.
        server.watch(self.socket.try_clone()?, interest, move |server, _, _| act(&pipe, server));
        Ok(())
    }

    /// The connection is there, or the answer to the upgrade, or messages.
    fn go_on(self: &Rc<Self>, server: &mut ServerRef<'_>) -> Watch {
        if matches!(*self.link.borrow(), Link::Open(_)) {
            return self.read(server);
        }
        let step = match self.link.replace(Link::Over) {
            Link::Connecting(socket) => {
                if let Ok(Some(error)) | Err(error) = socket.take_error() {
                    return self.end(server, bad_gateway(&error.to_string()));
                }
                let config = WebSocketConfig::default()
                    .read_buffer_size(READ_BYTES)
                    .max_message_size(Some(MAX_MESSAGE_BYTES))
                    .max_frame_size(Some(MAX_MESSAGE_BYTES));
                let stream = Stream { socket, allowed: usize::MAX };
                client_with_config(self.url.as_str(), stream, Some(config))
            }
            Link::Greeting(unfinished) => unfinished.handshake(),
            Link::Open(_) | Link::Over => return Watch::Stop, // the session is over
        };
        match step {
            Ok((socket, _answer)) => {
                self.link.replace(Link::Open(Box::new(socket)));
                let _ = server.resume(self.session); // if it is gone, so is the pipe, soon
                self.read(server) // what came with the answer would not be announced again
            }
            Err(HandshakeError::Interrupted(unfinished)) => {
                self.link.replace(Link::Greeting(unfinished));
                Watch::For(Ready::READABLE)
            }
            Err(HandshakeError::Failure(error)) => {
                self.end(server, bad_gateway(&error.to_string()))
            }
        }
    }

    /// Takes what the other server sent, unless the client has not taken what came before.
    fn read(self: &Rc<Self>, server: &mut ServerRef<'_>) -> Watch {
        if self.down.would_suspend() {
            self.stalled.set(true); // on_drain goes on
            return Watch::Stop;
        }
        let ending = match &mut *self.link.borrow_mut() {
            Link::Open(socket) => self.pass_on(socket),
            _ => return Watch::Stop,
        };
        match ending {
            None => Watch::For(Ready::READABLE),
            Some(reason) => self.end(server, Some(reason)),
        }
    }

    /// Passes on what is there, and a little at most; says how the session is to end if it is to.
    fn pass_on(&self, socket: &mut WebSocket<Stream>) -> Option<CloseReason> {
        socket.get_mut().allowed = READ_BYTES;
        loop {
            let sent = match socket.read() {
                Ok(Upstreams::Text(text)) => self.down.emit(&Piece::Text(text)),
                Ok(Upstreams::Binary(bytes)) => self.down.emit(&Piece::Binary(bytes)),
                Ok(Upstreams::Close(frame)) => {
                    let _ = socket.flush(); // the answer to it
                    return reason_of(frame);
                }
                Ok(_) => Ok(()), // pings are answered by tungstenite
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return bad_gateway(&error.to_string()),
            };
            if let Err(error) = sent {
                return bad_gateway(&error.to_string());
            }
        }
    }

    /// Nothing more comes from the other server: the session ends behind what came before.
    fn end(&self, server: &mut ServerRef<'_>, reason: Option<CloseReason>) -> Watch {
        self.hang_up();
        if let Some(reason) = reason {
            let _ = server.close(self.session, reason); // if it is gone, it needs none
        }
        Watch::Stop
    }

    /// Ends the connection, also for those who watch it.
    fn hang_up(&self) {
        self.link.replace(Link::Over);
        let _ = self.socket.shutdown(Shutdown::Both); // fails where it never was there
    }

    /// Sends, or keeps the message and says false: no other may be sent until `flush` says true.
    fn send(&self, message: Upstreams) -> Result<bool, Error> {
        match &mut *self.link.borrow_mut() {
            Link::Open(socket) => all_written(socket.send(message)),
            _ => Ok(true), // about to be closed
        }
    }

    fn flush(self: &Rc<Self>, server: &mut ServerRef<'_>) -> Watch {
        let written = match &mut *self.link.borrow_mut() {
            Link::Open(socket) => all_written(socket.flush()),
            _ => return Watch::Stop,
        };
        match written {
            Ok(false) => Watch::For(Ready::WRITABLE),
            Ok(true) => {
                let _ = server.resume(self.session); // if it is gone, it needs none
                Watch::Stop
            }
            Err(error) => self.end(server, bad_gateway(&error.to_string())),
        }
    }
}

fn all_written(result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// The close reason of the other server, for the client.
fn reason_of(frame: Option<CloseFrame>) -> Option<CloseReason> {
    let (code, text) = frame.map_or((1000, String::new()), |frame| {
        (frame.code.into(), frame.reason.as_str().to_owned())
    });
    CloseReason::truncated(CloseCode::new(code), &text).ok()
}

/// A session of the proxy.
struct Client {
    upstream: SocketAddr,
    pipe: Option<Rc<Pipe>>,
}

impl Handler for Client {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let pipe = Rc::new(Pipe::open(session, call, self.upstream)?);
        session.collect(&pipe.down)?;
        session.pause(); // until the other server is there
        session.set_timer(CONNECT_TIMEOUT)?;
        pipe.watch(&mut session.server(), Ready::WRITABLE, Pipe::go_on)?;
        self.pipe = Some(pipe);
        Ok(())
    }

    fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let too_late = matches!(*pipe.link.borrow(), Link::Connecting(_) | Link::Greeting(_));
        if too_late {
            pipe.hang_up();
            return session.close(CloseReason::new(CloseCode::BAD_GATEWAY, "no answer in time")?);
        }
        Ok(())
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let all_written = pipe.send(match message.payload() {
            Payload::Text(text) => Upstreams::text(text),
            Payload::Binary(bytes) => Upstreams::binary(bytes.to_vec()),
        })?;
        if !all_written {
            session.pause();
            pipe.watch(&mut session.server(), Ready::WRITABLE, Pipe::flush)?;
        }
        Ok(())
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        if pipe.stalled.replace(false) {
            pipe.watch(&mut session.server(), Ready::READABLE, Pipe::read)?;
        }
        Ok(())
    }

    fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
        let Some(pipe) = self.pipe.take() else { return };
        if let Link::Open(socket) = &mut *pipe.link.borrow_mut() {
            // 1005 and 1006 are told, never sent. What does not fit in the socket now is lost.
            let told = close.code();
            let code = if told.may_be_sent() { told } else { CloseCode::GOING_AWAY };
            let reason = close.text().to_owned().into();
            let _ = socket.close(Some(CloseFrame { code: u16::from(code).into(), reason }));
            let _ = socket.flush();
        }
        pipe.hang_up();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let upstream = words.next().unwrap_or_else(|| "127.0.0.1:9000".into());
    let upstream: SocketAddr =
        upstream.parse().map_err(|_| format!("{upstream}: the other server is ADDRESS:PORT"))?;
    let server = Server::bind(address.as_str(), move |app: &mut Application| {
        app.install(WebSockets::new().max_frame_size(MAX_MESSAGE_BYTES));
        app.routing(|route| {
            route.web_socket("/{path...}", move |_call: &Call| Client { upstream, pipe: None });
        });
    })?;
    println!("listening on http://{}", server.local_addr());
    let _ = io::stdout().flush();
    server.run()?;
    Ok(())
}
