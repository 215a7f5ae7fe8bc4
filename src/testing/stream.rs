//! A connection to an application in memory as a stream of bytes, for whatever speaks over `Read` and
//! `Write`.

use std::io::{self, ErrorKind, Read, Write};

use crate::core::Disposal;

use super::client::TestClient;
use super::network::FakeSocket;

/// What the client's system holds for a server that does not read.
const SEND_BUFFER: usize = 256 << 10;

/// A connection to a [`TestApplication`](super::TestApplication) that reads and writes bytes, so that another
/// WebSocket client than [`TestClient`] is tested against an application, or an application against it.
///
/// It behaves as a non-blocking socket does: where nothing has arrived a read fails with
/// [`ErrorKind::WouldBlock`], and so does a write where 256 KiB wait for a server that has stopped reading.
/// The server takes its turns within each call, so what answers at once has answered when the call returns;
/// what takes time comes with [`advance`](super::TestApplication::advance). A read gives 0 bytes once the
/// server has ended the connection and everything was read, and
/// [`ErrorKind::ConnectionReset`] where it was reset. Dropping the stream ends the client's side.
///
/// ```
/// use wirewheel::testing::TestApplication;
/// use wirewheel::{Application, Call, WebSockets, on_message};
///
/// let app = TestApplication::new(|app: &mut Application| {
///     app.install(WebSockets::new());
///     app.routing(|route| {
///         route.web_socket("/echo", |_call: &Call| on_message(|session, m| session.send(m)));
///     });
/// })?;
///
/// let stream = app.connect().into_stream();
/// let (mut socket, answer) = tungstenite::client("ws://test/echo", stream).unwrap();
/// assert_eq!(answer.status(), 101);
/// socket.send("hello".into()).unwrap();
/// assert_eq!(socket.read().unwrap().into_text().unwrap(), "hello");
/// assert!(socket.read().is_err_and(|error| error.to_string().contains("would block")));
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Debug)]
pub struct Stream {
    client: TestClient,
}

impl TestClient {
    /// The connection as a stream of bytes, for a client of another crate's; before any upgrade, which is
    /// then that client's.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use wirewheel::Application;
    /// use wirewheel::testing::TestApplication;
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.routing(|route| route.get("/healthz", |_call| "ok"));
    /// })?;
    /// let mut stream = app.connect().into_stream();
    /// stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    /// let mut answer = String::new();
    /// stream.read_to_string(&mut answer).unwrap();
    /// assert!(answer.ends_with("\r\n\r\nok"));
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn into_stream(self) -> Stream {
        self.network.borrow_mut().link(self.id).far_end = None;
        Stream { client: self }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut network = self.client.network.borrow_mut();
        network.pump();
        let socket = &mut network.link(self.client.id).socket;
        let len = socket.got.len().min(buffer.len());
        if len > 0 || buffer.is_empty() {
            socket.got.drain(..len).zip(buffer).for_each(|(byte, place)| *place = byte);
            return Ok(len);
        }
        // The server shuts its side first, and reads on.
        let is_ended = socket.is_end_seen() || socket.gone.is_some();
        if is_reset(socket) {
            Err(ErrorKind::ConnectionReset.into())
        } else if is_ended {
            Ok(0)
        } else {
            Err(ErrorKind::WouldBlock.into())
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut network = self.client.network.borrow_mut();
        network.pump();
        let socket = &network.link(self.client.id).socket;
        if is_reset(socket) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if socket.gone.is_some() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = SEND_BUFFER.saturating_sub(network.link(self.client.id).unread());
        let piece = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        if piece.is_empty() && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        network.send(self.client.id, piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the connection broke, or the server gave it up.
fn is_reset(socket: &FakeSocket) -> bool {
    socket.is_broken() || socket.gone == Some(Disposal::Reset)
}
