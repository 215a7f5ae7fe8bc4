//! The client of a test: a connection in memory, with its faults, and a session on it.

use std::fmt;
use std::time::Duration;

use crate::core::Disposal;
use crate::words::close::{CloseCode, CloseReason, CloseReasonError};
use crate::words::message::{AsMessage, Payload};

use super::answer::{Answer, take_answer};
use super::far_end::{FarEnd, RawFrame, frame_of};
use super::frames::UPGRADE;
use super::host::Host;
#[cfg(all(repository, test))]
use super::network::{Buffers, Pace};
use super::network::{LinkId, PeerEnd};

/// A client of a [`TestApplication`](super::TestApplication): first it speaks HTTP, after an upgrade
/// frames.
///
/// Everything that can happen at one moment of the virtual time has happened when a method returns;
/// so `expect_*` never wait, and what is not there fails the test at once. After the upgrade it is
/// well-behaved: it answers pings and Closes and hangs up when the server does, until
/// [`answer_pings`](Self::answer_pings) and [`answer_close`](Self::answer_close) say otherwise.
/// Dropping it ends its side of the connection, like a client whose process ends.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::testing::{Ending, Received, TestApplication};
/// use wirewheel::{Application, Call, CloseCode, CloseReason, WebSockets, on_message};
///
/// let app = TestApplication::new(|app: &mut Application| {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket("/echo", |_call: &Call| on_message(|session, m| session.send(m)));
///     });
/// })?;
///
/// // HTTP, and what no correct client sends.
/// let mut client = app.connect();
/// assert_eq!(client.request("GET", "/nowhere").status, 404);
/// client.send_bytes(b"nonsense
///
/// ");
/// assert_eq!(client.expect_answer().status, 400);
///
/// // Messages and frames.
/// let mut client = app.web_socket("/echo");
/// client.send(&[1, 2, 3]);
/// client.expect_binary(&[1, 2, 3]);
/// client.send_frame(0x01, b"in ");
/// client.send_frame(0x80, b"fragments");
/// client.expect_text("in fragments");
/// client.send("as a frame");
/// assert_eq!(client.receive_frame().unwrap().first, 0x81);
/// client.ping(b"there?");
/// assert_eq!(client.receive(), Some(Received::Pong(b"there?".to_vec())));
/// client.expect_nothing();
/// client.close(CloseReason::new(CloseCode::NORMAL, "done").unwrap());
/// client.expect_close(CloseCode::NORMAL);
/// client.expect_end(Ending::Closed);
/// assert_eq!(client.ending(), Some(Ending::Closed));
///
/// // A slow peer, that then reads on.
/// let mut client = app.web_socket("/echo");
/// client.limit_reads(1);
/// client.limit_writes(1);
/// client.read_only(3);
/// client.send("slowly");
/// assert_eq!(client.receive(), None);
/// client.read_on();
/// client.expect_text("slowly");
/// client.block_writes_for(Duration::from_secs(1));
/// client.send("later");
/// client.expect_nothing();
/// app.advance(Duration::from_secs(1));
/// client.expect_text("later");
///
/// // Bad manners, and the ways a connection breaks.
/// client.answer_pings(false);
/// client.answer_close(false);
/// client.half_close();
/// let mut client = app.web_socket("/echo");
/// client.break_after_sending(3);
/// client.break_after_receiving(100);
/// client.send("cut in the middle");
/// app.web_socket("/echo").reset();
/// assert_eq!(app.stats().closed_abnormal, 3);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct TestClient {
    pub(super) network: Host,
    pub(super) id: LinkId,
    /// The message whose last fragment has not arrived.
    pub(super) open: Option<RawFrame>,
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What a client received: a message put together, or a control frame.
///
/// ```
/// use wirewheel::testing::{Received, TestClient};
/// fn texts(client: &mut TestClient) -> Vec<String> {
///     let mut texts = Vec::new();
///     while let Some(received) = client.receive() {
///         if let Received::Text(text) = received {
///             texts.push(text);
///         }
///     }
///     texts
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping that the client did not answer of its own.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A Close: its code (1005 if it is empty) and text.
    Close(CloseCode, String),
}

/// How the server ended a connection.
///
/// ```
/// use wirewheel::testing::{Ending, TestClient};
/// fn is_cut(client: &TestClient) -> bool {
///     client.ending() == Some(Ending::Reset)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In order: everything sent has arrived, then the end.
    Closed,
    /// By a reset.
    Reset,
}

/// An upgrade to be made; see [`TestApplication::upgrade`](super::TestApplication::upgrade).
///
/// ```
/// use wirewheel::testing::{Answer, TestApplication};
/// use wirewheel::{Application, Call, WebSockets, on_message};
/// let app = TestApplication::new(|app: &mut Application| {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket("/echo", |_call: &Call| on_message(|session, m| session.send(m)))
///             .protocol("echo.v1");
///     });
/// })?;
/// let (mut client, answer) =
///     app.upgrade("/echo").header("Cookie", "id=1").protocol("echo.v1").connect().unwrap();
/// assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("echo.v1"));
/// client.send("hello");
/// client.expect_text("hello");
/// let refused: Answer = app.upgrade("/echo").connect().unwrap_err();
/// assert!(refused.status == 400 && refused.text().contains("no subprotocol on offer"));
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Debug)]
#[must_use = "call connect"]
pub struct Upgrade {
    client: TestClient,
    path: String,
    lines: String,
}

impl Upgrade {
    pub(super) fn new(client: TestClient, path: &str) -> Self {
        Self { client, path: path.into(), lines: String::new() }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.lines.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Offers a subprotocol; in the order of the calls.
    pub fn protocol(self, protocol: &str) -> Self {
        self.header("Sec-WebSocket-Protocol", protocol)
    }

    /// Makes the upgrade: the client and the answer, or the answer alone if it was refused.
    ///
    /// # Errors
    /// An answer other than 101.
    pub fn connect(self) -> Result<(TestClient, Answer), Answer> {
        let mut client = self.begin();
        let answer = client.expect_upgrade()?;
        Ok((client, answer))
    }

    /// Sends the request alone, for an upgrade whose answer is [deferred](crate::Call::defer):
    /// [`TestClient::expect_upgrade`] takes it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Accept, Application, Call, Response, WebSockets, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         route.on_upgrade(|call| {
    ///             let pending = call.defer();
    ///             std::thread::spawn(move || pending.accept(Accept::new())).join().unwrap();
    ///             Err(Response::deferred())
    ///         });
    ///         route.web_socket("/", |_call: &Call| on_message(|session, m| session.send(m)));
    ///     });
    /// })?;
    /// let mut client = app.upgrade("/").begin();
    /// app.advance(Duration::ZERO); // what threads have sent is taken
    /// client.expect_upgrade().unwrap();
    /// client.send("hello");
    /// client.expect_text("hello");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn begin(self) -> TestClient {
        let Self { mut client, path, lines } = self;
        client.send_bytes(
            format!("GET {path} HTTP/1.1\r\nHost: test\r\n{UPGRADE}{lines}\r\n").as_bytes(),
        );
        client
    }
}

/// HTTP.
impl TestClient {
    pub(super) fn new(network: Host, id: LinkId) -> Self {
        Self { network, id, open: None }
    }

    /// Sends bytes as they are, legal or not.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.network.borrow_mut().send(self.id, bytes);
    }

    /// Takes the answer that has arrived.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn expect_answer(&mut self) -> Answer {
        self.answer(false)
    }

    /// Takes the answer that has arrived and has a head alone: to a request with HEAD, or `100 Continue`.
    ///
    /// ```
    /// use wirewheel::testing::TestApplication;
    /// let app = TestApplication::new(|app: &mut wirewheel::Application| {
    ///     app.routing(|route| {
    ///         route.post("/", |_call, body| format!("{} bytes", body.bytes().len()));
    ///     });
    /// })?;
    /// let mut client = app.connect();
    /// client.send_bytes(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    /// assert_eq!(client.expect_head().status, 100);
    /// client.send_bytes(b"abc");
    /// assert_eq!(client.expect_answer().text(), "3 bytes");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn expect_head(&mut self) -> Answer {
        self.answer(true)
    }

    /// Sends a request without a body, and takes its answer.
    ///
    /// # Panics
    /// If none came.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str) -> Answer {
        self.send_bytes(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        self.answer(method == "HEAD")
    }

    /// Sends a request with a body of this type, and takes its answer.
    ///
    /// ```
    /// use wirewheel::testing::TestApplication;
    /// let app = TestApplication::new(|app: &mut wirewheel::Application| {
    ///     app.routing(|route| {
    ///         route.put("/limit", |_call, body| body.text().map(str::to_owned));
    ///     });
    /// })?;
    /// let mut client = app.connect();
    /// assert_eq!(client.send_body("PUT", "/limit", "text/plain", "7").text(), "7");
    /// assert_eq!(client.send_body("PATCH", "/limit", "text/plain", "8").status, 405);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// If no answer came.
    #[track_caller]
    pub fn send_body(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let (body, line) = (body.as_ref(), format!("{method} {path} HTTP/1.1\r\nHost: test\r\n"));
        let lines =
            format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send_bytes(&[line.as_bytes(), lines.as_bytes(), body].concat());
        self.answer(false)
    }

    #[track_caller]
    fn answer(&self, head_only: bool) -> Answer {
        let mut network = self.network.borrow_mut();
        let socket = &mut network.link(self.id).socket;
        let ended = socket.is_end_seen() || socket.gone == Some(Disposal::Close);
        match take_answer(&mut socket.got, head_only, ended) {
            Ok(answer) => answer,
            Err(missing) => {
                drop(network);
                self.fail(&missing, None);
            }
        }
    }

    /// Takes the answer to an upgrade that has [begun](Upgrade::begin): from here on the client is in its
    /// session.
    ///
    /// ```
    /// use wirewheel::testing::TestApplication;
    /// let app = TestApplication::new(|_app: &mut wirewheel::Application| {})?;
    /// let refused = app.upgrade("/nowhere").begin().expect_upgrade().unwrap_err();
    /// assert_eq!(refused.status, 404);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Errors
    /// An answer other than 101.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn expect_upgrade(&mut self) -> Result<Answer, Answer> {
        let answer = self.answer(false);
        if answer.status != 101 {
            return Err(answer);
        }
        self.begin_session(FarEnd::new());
        Ok(answer)
    }

    /// From here on what arrives is frames.
    pub(super) fn begin_session(&self, far_end: FarEnd) {
        let mut network = self.network.borrow_mut();
        network.link(self.id).far_end = Some(far_end);
        network.react(self.id);
        network.pump();
    }
}

/// Sending.
impl TestClient {
    /// Sends a text or binary message.
    pub fn send(&mut self, message: impl AsMessage) {
        match message.as_message().payload() {
            Payload::Text(text) => self.send_frame(0x81, text.as_bytes()),
            Payload::Binary(bytes) => self.send_frame(0x82, bytes),
        }
    }

    /// Sends one masked frame whose first byte (FIN, reserved bits, opcode) is given.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let is_server = {
            let mut network = self.network.borrow_mut();
            network.link(self.id).far_end.as_ref().is_some_and(|far_end| far_end.is_server)
        };
        self.send_bytes(&frame_of(is_server, first, payload));
    }

    /// Sends a message in fragments of so many bytes, the last of which may have fewer.
    ///
    /// ```
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Call, WebSockets, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         route.web_socket("/echo", |_call: &Call| on_message(|session, m| session.send(m)));
    ///     });
    /// })?;
    /// let mut client = app.web_socket("/echo");
    /// client.send_fragments("hello", 2); // "he", "ll", "o"
    /// client.expect_text("hello");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// With fragments of 0 bytes.
    #[track_caller]
    pub fn send_fragments(&mut self, message: impl AsMessage, bytes: usize) {
        let message = message.as_message();
        let kind = if message.is_text() { 0x01 } else { 0x02 };
        let (mut first, mut rest) = (kind, message.bytes());
        assert!(bytes > 0, "fragments of 0 bytes never end");
        while rest.len() > bytes {
            let (fragment, later) = rest.split_at(bytes);
            self.send_frame(first, fragment);
            (first, rest) = (0, later);
        }
        self.send_frame(first | 0x80, rest);
    }

    /// Sends a ping.
    pub fn ping(&mut self, payload: &[u8]) {
        self.send_frame(RawFrame::PING, payload);
    }

    /// Sends a Close, unless one was sent: a [`CloseReason`], or a code without a text.
    ///
    /// # Panics
    /// With a code that may not be sent; [`send_frame`](Self::send_frame) sends that too.
    #[track_caller]
    pub fn close(&mut self, reason: impl TryInto<CloseReason, Error: Into<CloseReasonError>>) {
        let reason = match CloseReason::checked(reason) {
            Ok(reason) => reason,
            Err(mistake) => panic!("{mistake}"),
        };
        let payload = [&u16::from(reason.code()).to_be_bytes()[..], reason.text().as_bytes()];
        let first = self.far_end(|far_end| !std::mem::replace(&mut far_end.close_sent, true));
        if first {
            self.send_frame(RawFrame::CLOSE, &payload.concat());
        }
    }
}

/// Receiving.
impl TestClient {
    /// The next frame as it came.
    pub fn receive_frame(&mut self) -> Option<RawFrame> {
        self.far_end(FarEnd::next)
    }

    /// The next message or control frame that has arrived.
    ///
    /// # Panics
    /// At a frame out of place or of an unknown opcode, a Close of one byte, and text that is not UTF-8.
    /// Reserved bits and codes are not looked at: [`receive_frame`](Self::receive_frame) has the frame.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Received> {
        loop {
            let RawFrame { first, payload } = self.receive_frame()?;
            let received = match (first & 15, self.open.take()) {
                (8, open) => {
                    self.open = open;
                    let (code, text) = match payload.as_slice() {
                        [] => (CloseCode::NO_STATUS, &[][..]),
                        [high, low, text @ ..] => {
                            (CloseCode::new(u16::from_be_bytes([*high, *low])), text)
                        }
                        [_] => panic!("a Close of one byte"),
                    };
                    Received::Close(code, utf8(text.to_vec()))
                }
                (9, open) => {
                    self.open = open;
                    Received::Ping(payload)
                }
                (10, open) => {
                    self.open = open;
                    Received::Pong(payload)
                }
                (0, Some(mut open)) => {
                    open.payload.extend(payload);
                    if first & 0x80 == 0 {
                        self.open = Some(open);
                        continue;
                    }
                    whole(open)
                }
                (1 | 2, None) if first & 0x80 == 0 => {
                    self.open = Some(RawFrame { first, payload });
                    continue;
                }
                (1 | 2, None) => whole(RawFrame { first, payload }),
                _ => panic!("the server sent a frame out of place, {first:#04x}"),
            };
            return Some(received);
        }
    }

    /// The next thing that arrived is this text.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        self.expect(&Received::Text(text.into()));
    }

    /// The next thing that arrived are these bytes.
    ///
    /// # Panics
    /// If they are not.
    #[track_caller]
    pub fn expect_binary(&mut self, bytes: &[u8]) {
        self.expect(&Received::Binary(bytes.into()));
    }

    /// The next thing that arrived is text that is such a value in JSON, which comes back; feature `json`.
    ///
    /// ```
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Call, WebSockets, on_connect};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         let hello = |_: &Call| on_connect(|session, _call| session.send(r#"["greenhouse", 21.5]"#));
    ///         route.web_socket("/", hello);
    ///     });
    /// })?;
    /// let (name, celsius): (String, f32) = app.web_socket("/").expect_json();
    /// assert_eq!((name.as_str(), celsius), ("greenhouse", 21.5));
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// If it is not.
    #[cfg(feature = "json")]
    #[track_caller]
    pub fn expect_json<T: serde::de::DeserializeOwned>(&mut self) -> T {
        let came = self.receive();
        let value = match &came {
            Some(Received::Text(text)) => {
                serde_json::from_str(text).map_err(|error| error.to_string())
            }
            _ => Err("no text".into()),
        };
        match value {
            Ok(value) => value,
            Err(reason) => {
                let expected = format!("{} in JSON ({reason})", std::any::type_name::<T>());
                self.fail(&expected, came.as_ref())
            }
        }
    }

    #[track_caller]
    fn expect(&mut self, expected: &Received) {
        let came = self.receive();
        if came.as_ref() != Some(expected) {
            self.fail(&format!("{expected:?}"), came.as_ref());
        }
    }

    /// The next thing that arrived is a Close with this code; its text comes back.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn expect_close(&mut self, expected: CloseCode) -> String {
        match self.receive() {
            Some(Received::Close(code, text)) if code == expected => text,
            other => self.fail(&format!("a Close with {expected}"), other.as_ref()),
        }
    }

    /// Nothing has arrived that was not asked for.
    ///
    /// # Panics
    /// If something has: half a frame too, or a message whose last fragment is missing.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let mut network = self.network.borrow_mut();
        let link = network.link(self.id);
        let has_frames = link.far_end.as_ref().is_some_and(|far_end| !far_end.rest().is_empty());
        let is_empty = !has_frames && link.socket.got.is_empty();
        drop(network);
        assert!(is_empty && self.open.is_none(), "expected nothing\n{}", self.state());
    }

    /// The server has ended the connection like this, after everything that was asked for.
    ///
    /// # Panics
    /// If it has not, or something arrived before the end.
    #[track_caller]
    pub fn expect_end(&mut self, expected: Ending) {
        self.expect_nothing();
        assert!(self.ending() == Some(expected), "expected {expected:?}\n{}", self.state());
    }

    /// How the server has ended the connection, if it has.
    pub fn ending(&self) -> Option<Ending> {
        let mut network = self.network.borrow_mut();
        network.link(self.id).socket.gone.map(|disposal| match disposal {
            Disposal::Close | Disposal::Detach => Ending::Closed,
            Disposal::Reset => Ending::Reset,
        })
    }

    #[track_caller]
    fn far_end<R>(&self, act: impl FnOnce(&mut FarEnd) -> R) -> R {
        let mut network = self.network.borrow_mut();
        match &mut network.link(self.id).far_end {
            Some(far_end) => act(far_end),
            None => panic!("this client was not upgraded: it has no frames"),
        }
    }
}

#[track_caller]
fn utf8(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => panic!("the server sent text that is not UTF-8: {error}"),
    }
}

#[track_caller]
fn whole(message: RawFrame) -> Received {
    if message.first & 15 == 1 {
        Received::Text(utf8(message.payload))
    } else {
        Received::Binary(message.payload)
    }
}

/// Manners and faults.
impl TestClient {
    /// Whether pings are answered at once (the default); else they are received like messages, and
    /// nobody answers.
    pub fn answer_pings(&mut self, on: bool) {
        self.far_end(|far_end| far_end.answers_pings = on);
    }

    /// Whether a Close is answered, and the server's hang-up with one's own (the default).
    pub fn answer_close(&mut self, on: bool) {
        self.far_end(|far_end| far_end.answers_close = on);
    }

    /// The server's reads give at most `bytes` at once: 1 is a peer that dribbles.
    pub fn limit_reads(&mut self, bytes: usize) {
        self.network.borrow_mut().link(self.id).read_piece = bytes.max(1);
    }

    /// The server's writes take at most `bytes` at once: every longer one is a short write.
    pub fn limit_writes(&mut self, bytes: usize) {
        self.network.borrow_mut().link(self.id).socket.write_piece = bytes.max(1);
    }

    /// The server's writes take nothing until `time` has passed (`WouldBlock` for a while).
    pub fn block_writes_for(&mut self, time: Duration) {
        let mut network = self.network.borrow_mut();
        let until = network.now.after(time);
        network.link(self.id).socket.blocked_until = Some(until);
    }

    /// The client reads only `bytes` more: what is sent beyond that stays in the server.
    pub fn read_only(&mut self, bytes: usize) {
        let mut network = self.network.borrow_mut();
        network.link(self.id).socket.room = bytes;
        network.pump();
    }

    /// The client reads everything again.
    pub fn read_on(&mut self) {
        self.read_only(usize::MAX);
    }

    /// The connection breaks after `bytes` more bytes towards the server.
    pub fn break_after_sending(&mut self, bytes: usize) {
        self.network.borrow_mut().link(self.id).breaks_after_in = Some(bytes);
    }

    /// The connection breaks after `bytes` more bytes towards the client.
    pub fn break_after_receiving(&mut self, bytes: usize) {
        self.network.borrow_mut().link(self.id).socket.breaks_after_out = Some(bytes);
    }

    /// The client sends nothing more, and still reads.
    pub fn half_close(&mut self) {
        self.network.borrow_mut().end(self.id, PeerEnd::Shut);
    }

    /// Sends bytes of whose records only so many arrive.
    #[cfg(all(repository, test, feature = "client", feature = "tls"))]
    pub(crate) fn send_part(&self, bytes: &[u8], arrives: usize) {
        let mut network = self.network.borrow_mut();
        network.link(self.id).send(bytes);
        network.link(self.id).keep_first(arrives);
        network.pump();
    }

    /// Sends bytes and ends its side, so that both come at once.
    #[cfg(all(repository, test, feature = "client"))]
    pub(crate) fn send_and_end(&self, bytes: &[u8]) {
        let mut network = self.network.borrow_mut();
        network.link(self.id).send(bytes);
        network.end(self.id, PeerEnd::Shut);
    }

    /// The same where the end is a reset.
    #[cfg(all(repository, test, feature = "client"))]
    pub(crate) fn send_and_reset(&self, bytes: &[u8]) {
        let mut network = self.network.borrow_mut();
        network.link(self.id).send(bytes);
        network.link(self.id).end_with_reset();
        network.pump();
    }

    /// The client's system ends its side, and its TLS says nothing of it: more may have been meant to
    /// come. Without TLS as [`half_close`](Self::half_close).
    #[cfg(feature = "tls")]
    pub fn cut(&mut self) {
        self.network.borrow_mut().end(self.id, PeerEnd::Cut);
    }

    /// The next record that the client sends is broken. Without TLS nothing is.
    ///
    /// ```
    /// use wirewheel::testing::{TestApplication, TestClient};
    /// use wirewheel::{Application, Call, WebSockets, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         route.web_socket("/echo", |_call: &Call| on_message(|s, message| s.send(message)));
    ///     });
    /// })?
    /// .over_tls();
    /// let mut client: TestClient = app.web_socket("/echo");
    /// client.break_next_record();
    /// client.send("never understood");
    /// assert!(client.tls_fault().is_some()); // the server's alert
    /// let mut other = app.web_socket("/echo");
    /// other.send_beside_tls(b"no record at all");
    /// assert!(other.tls_fault().is_some() && !other.is_tls_closed()); // an alert, and no close_notify
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn break_next_record(&mut self) {
        self.network.borrow_mut().link(self.id).break_next_record();
    }

    /// Sends bytes beside the client's TLS, legal or not: pieces of records, or no records at all.
    #[cfg(feature = "tls")]
    pub fn send_beside_tls(&mut self, bytes: &[u8]) {
        self.network.borrow_mut().send_raw(self.id, bytes);
    }

    /// What the client's TLS finds wrong with what came, or what the server's alert says.
    #[cfg(feature = "tls")]
    pub fn tls_fault(&self) -> Option<String> {
        self.network.borrow_mut().link(self.id).tls_fault().map(str::to_owned)
    }

    /// Whether the server's TLS has said that nothing more comes (close_notify).
    #[cfg(feature = "tls")]
    pub fn is_tls_closed(&self) -> bool {
        self.network.borrow_mut().link(self.id).is_tls_closed()
    }

    /// The client resets the connection.
    pub fn reset(&mut self) {
        self.network.borrow_mut().end(self.id, PeerEnd::Reset);
    }
}

/// For the tests and fuzz targets of this crate.
#[cfg(all(repository, any(test, fuzzing)))]
impl TestClient {
    /// What has arrived and is not looked at otherwise.
    pub(crate) fn take_bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.network.borrow_mut().link(self.id).socket.got)
    }
}

/// For the tests of this crate.
#[cfg(all(repository, test))]
impl TestClient {
    /// From now on nobody takes what is sent, and nobody says so.
    pub(crate) fn vanish(&self) {
        let mut network = self.network.borrow_mut();
        let link = network.link(self.id);
        let buffers = Buffers { send: 100_000, receive: 100_000, segment: 1_448 };
        link.set_buffers(buffers);
        link.set_pace(Pace::Vanished);
    }

    /// Whether the application's side is shut.
    #[cfg(feature = "client")]
    pub(crate) fn server_has_shut(&self) -> bool {
        self.network.borrow_mut().link(self.id).socket.shut
    }
}

impl Drop for TestClient {
    fn drop(&mut self) {
        // A test that fails has its own message; and inside a hook the network is busy.
        if !std::thread::panicking() {
            if let Some(mut network) = self.network.try_borrow_mut() {
                network.end(self.id, PeerEnd::Shut);
            }
        }
    }
}
