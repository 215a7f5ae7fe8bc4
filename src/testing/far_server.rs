//! A server that an application dials, played by a test.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::protocol::handshake::AcceptKey;

use super::TestApplication;
use super::client::TestClient;
use super::far_end::FarEnd;
use super::host::Host;
use super::network::far_servers::{FarName, FarPort};
#[cfg(feature = "tls")]
use super::network::tls_peer::{FarTls, VERSIONS};

/// A server that the application of a test dials: the test says whether its name is known, what becomes of
/// who connects, and what is answered. By [`TestApplication::far_server`].
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::{ConnectOptions, DialerState};
/// use wirewheel::testing::TestApplication;
/// use wirewheel::{Application, Call, on_connect};
///
/// let mut cloud = None;
/// let app = TestApplication::new(|app: &mut Application| {
///     cloud = Some(app.connect("ws://cloud.example/dev/42", ConnectOptions::new(), |_call: &Call| {
///         on_connect(|session, _call| session.send("here I am"))
///             .on_message(|session, message| session.send(message))
///     }));
/// })?;
/// let cloud = cloud.unwrap();
/// let server = app.far_server("cloud.example", 80);
/// let request = server.expect_request();
/// assert!(request.head().starts_with("GET /dev/42 HTTP/1.1\r\n"));
/// request.answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
/// assert_eq!(cloud.state(), DialerState::Waiting);
///
/// // The first delay is drawn from 0 to 3 s.
/// let mut session = server.expect_request_within(Duration::from_secs(4)).accept();
/// session.expect_text("here I am");
/// session.send("hello");
/// session.expect_text("hello");
///
/// server.refuse(); // or vanish: nothing comes back; or name_is_known(false); or lose_name_server
/// assert_eq!(server.address().port(), 80);
/// session.reset();
/// app.advance(Duration::from_secs(3600)); // an hour of outage takes no time
/// server.listen();
/// server.expect_request_within(Duration::from_secs(61)).accept().expect_text("here I am");
/// server.vanish();
/// server.name_is_known(false);
/// server.lose_name_server();
/// assert!(server.next_request().is_none());
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct FarServer {
    network: Host,
    name: String,
    address: SocketAddr,
}

/// A connection that the application has made to a [`FarServer`], with the request that came on it.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::ConnectOptions;
/// use wirewheel::testing::TestApplication;
/// use wirewheel::{Application, Call, on_message};
///
/// let app = TestApplication::new(|app: &mut Application| {
///     let options = ConnectOptions::new().protocol("v1").proxy("http://proxy.example:3128");
///     app.connect("ws://cloud.example/", options, |_call: &Call| on_message(|session, m| session.send(m)));
/// })?;
/// let proxy = app.far_server("proxy.example", 3128);
/// assert_eq!(proxy.address().port(), 3128);
/// let mut request = proxy.expect_request();
/// assert!(request.head().starts_with("CONNECT cloud.example:80"));
/// request.say("HTTP/1.1 200 Connection established\r\n\r\n");
/// let request = request.next_request().expect("the handshake behind the tunnel");
/// assert_eq!(request.header("sec-websocket-protocol"), Some("v1"));
/// assert!(!request.accept_key().is_empty());
/// let mut session = request.accept_with("Sec-WebSocket-Protocol: v1\r\n"); // or accept()
/// session.send("hello");
/// session.expect_text("hello");
///
/// session.reset();
/// proxy.vanish(); // nothing comes back from there
/// app.advance(Duration::from_secs(60));
/// proxy.name_is_known(false);
/// app.advance(Duration::from_secs(60));
/// proxy.lose_name_server();
/// app.advance(Duration::from_secs(60));
/// assert!(proxy.next_request().is_none());
/// proxy.name_is_known(true);
/// proxy.listen();
/// let minute = Duration::from_secs(61);
/// drop(proxy.expect_request_within(minute).into_client()); // hangs up
/// proxy.expect_request_within(minute).answer("HTTP/1.1 502 Bad Gateway\r\n\r\n");
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct FarRequest {
    client: TestClient,
    head: String,
}

impl fmt::Debug for FarServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarServer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for FarRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FarRequest").field("head", &self.head).finish_non_exhaustive()
    }
}

impl TestApplication {
    /// A server under this name, which gets an address of its own, and listens at this port. Where the
    /// application dials an address, `name` is that. What nobody plays is an unknown name, or refuses.
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Call, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.connect("ws://192.0.2.7/", ConnectOptions::new(), |_call: &Call| {
    ///         on_message(|session, message| session.send(message))
    ///     });
    /// })?;
    /// let mut session = app.far_server("192.0.2.7", 80).expect_request().accept();
    /// session.send("echo");
    /// session.expect_text("echo");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// If there are more than 250 of them.
    #[track_caller]
    pub fn far_server(&self, name: &str, port: u16) -> FarServer {
        let mut network = self.network.borrow_mut();
        let far = &mut network.sockets.far;
        let address = match (name.parse(), far.names.get(name)) {
            (Ok(ip), _) => SocketAddr::new(ip, port),
            (Err(_), Some(FarName::Addresses(known))) => SocketAddr::new(known[0].ip(), port),
            (Err(_), _) => {
                let last = u8::try_from(far.names.len() + 1).ok().filter(|last| *last <= 250);
                let Some(last) = last else { panic!("more than 250 far servers") };
                SocketAddr::from(([198, 51, 100, last], port)) // for documentation (RFC 5737)
            }
        };
        far.names.insert(name.to_owned(), FarName::Addresses(vec![address]));
        far.ports.insert(address, FarPort::Accepts);
        drop(network);
        FarServer { network: self.network.clone(), name: name.to_owned(), address }
    }
}

/// For the tests of this crate.
#[cfg(all(repository, any(test, fuzzing)))]
impl TestApplication {
    #[cfg(test)]
    pub(crate) fn far<R>(
        &self,
        act: impl FnOnce(&mut super::network::far_servers::FarServers) -> R,
    ) -> R {
        act(&mut self.network.borrow_mut().sockets.far)
    }

    /// Every session holds nothing beyond its slot.
    #[cfg(test)]
    pub(crate) fn audit_bare(&self) {
        let network = self.network.borrow();
        assert_eq!(crate::core::audit::Audit(&network.core).check_bare(), Ok(()));
    }

    /// Everything but what the application holds is given back.
    pub(crate) fn audit_empty(&self) {
        let network = self.network.borrow();
        assert_eq!(crate::core::audit::Audit(&network.core).check_empty(), Ok(()));
    }
}

impl FarServer {
    /// The address that its name has.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections, as it does at first.
    pub fn listen(&self) {
        self.set(FarPort::Accepts);
    }

    /// Refuses connections from now on.
    pub fn refuse(&self) {
        self.set(FarPort::Refuses);
    }

    /// Is off the network from now on: who connects hears nothing.
    pub fn vanish(&self) {
        self.set(FarPort::Silent);
    }

    fn set(&self, port: FarPort) {
        self.network.borrow_mut().sockets.far.ports.insert(self.address, port);
    }

    /// Whether its name is known, as it is at first.
    pub fn name_is_known(&self, known: bool) {
        let name = if known { FarName::Addresses(vec![self.address]) } else { FarName::Unknown };
        self.network.borrow_mut().sockets.far.names.insert(self.name.clone(), name);
    }

    /// The name server is away: nobody hears anything of this name.
    pub fn lose_name_server(&self) {
        self.network.borrow_mut().sockets.far.names.insert(self.name.clone(), FarName::Silent);
    }

    /// Speaks TLS from now on. Its certificate is for `small.example` and signed by
    /// [`AUTHORITY`](super::AUTHORITY): a client that dials another name, or trusts others, refuses it.
    ///
    /// ```
    /// use wirewheel::client::{ConnectError, ConnectOptions, Reconnect};
    /// use wirewheel::testing::{AUTHORITY, TestApplication};
    /// use wirewheel::tls::Roots;
    /// use wirewheel::{Application, Call, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     let options = ConnectOptions::new().roots(Roots::pem(AUTHORITY));
    ///     app.connect("wss://small.example/", options, |call: &Call| {
    ///         assert!(call.is_secure());
    ///         on_message(|session, message| session.send(message))
    ///     });
    /// })?;
    /// let server = app.far_server("small.example", 443);
    /// server.speak_tls();
    /// let mut session = server.expect_request().accept();
    /// session.send("echo");
    /// session.expect_text("echo");
    /// session.cut(); // an end of which TLS says nothing
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn speak_tls(&self) {
        self.network.borrow_mut().sockets.far.tls.insert(self.address, FarTls::new());
    }

    /// The same with a certificate of the test, both PEM: one that has expired, or is for another name.
    ///
    /// ```no_run
    /// use wirewheel::testing::FarServer;
    /// fn show_the_old_one(server: &FarServer) -> std::io::Result<()> {
    ///     let read = std::fs::read_to_string;
    ///     server.speak_tls_with(&read("tests/old.pem")?, &read("tests/old.key")?);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Panics
    /// If they are no certificate with its key.
    #[cfg(feature = "tls")]
    #[track_caller]
    pub fn speak_tls_with(&self, chain: &str, key: &str) {
        let tls = FarTls::with(chain, key, VERSIONS);
        self.network.borrow_mut().sockets.far.tls.insert(self.address, tls);
    }

    /// Of what arrives on each connection from now on, so many bytes do, and then it breaks: in the middle of
    /// a handshake, or wherever they end. `None` for all of it.
    ///
    /// ```
    /// use wirewheel::testing::FarServer;
    /// fn break_in_the_handshake(server: &FarServer) {
    ///     server.break_after(100);
    ///     server.expect_request().accept();
    ///     server.break_after(None);
    /// }
    /// ```
    pub fn break_after(&self, bytes: impl Into<Option<usize>>) {
        let breaks_after = &mut self.network.borrow_mut().sockets.far.breaks_after;
        match bytes.into() {
            Some(bytes) => breaks_after.insert(self.address, bytes),
            None => breaks_after.remove(&self.address),
        };
    }

    /// The next connection whose request has arrived.
    pub fn next_request(&self) -> Option<FarRequest> {
        self.next(take_head)
    }

    /// The next connection, whatever has come on it: its head is empty. For a server that speaks another
    /// protocol.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use wirewheel::client::{ByteHandler, ConnectOptions};
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, HandlerResult, Session};
    /// struct Echo;
    /// impl ByteHandler for Echo {
    ///     fn on_bytes(&mut self, session: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
    ///         session.send(bytes)
    ///     }
    /// }
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.connect_bytes("tcp://meter.example:502", ConnectOptions::new(), || Echo);
    /// })?;
    /// let meter = app.far_server("meter.example", 502);
    /// let mut stream = meter.next_connection().unwrap().into_client().into_stream();
    /// stream.write_all(b"hello").unwrap();
    /// let mut heard = [0; 5];
    /// stream.read_exact(&mut heard).unwrap();
    /// assert_eq!(&heard, b"hello");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn next_connection(&self) -> Option<FarRequest> {
        self.next(|_| Some(String::new()))
    }

    fn next(&self, take: impl Fn(&mut Vec<u8>) -> Option<String>) -> Option<FarRequest> {
        let mut network = self.network.borrow_mut();
        network.pump();
        let address = self.address;
        let arrived = std::mem::take(&mut network.sockets.far.arrived);
        let mut found = None;
        for id in arrived {
            let link = network.link(id);
            if link.socket.gone.is_some() {
                continue; // the application has given it up
            }
            if found.is_none() && link.address == address {
                if let Some(head) = take(&mut link.socket.got) {
                    found = Some((id, head));
                    continue;
                }
            }
            network.sockets.far.arrived.push_back(id);
        }
        drop(network);
        let (id, head) = found?;
        Some(FarRequest { client: TestClient::new(self.network.clone(), id), head })
    }

    /// The next connection whose request arrives within a time: the clock moves until it has.
    ///
    /// # Panics
    /// If none does.
    #[track_caller]
    pub fn expect_request_within(&self, time: Duration) -> FarRequest {
        match self.within(time, Self::next_request) {
            Some(request) => request,
            None => panic!("no request has come to {} within {time:?}", self.name),
        }
    }

    /// The same where there has to be one.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn expect_request(&self) -> FarRequest {
        match self.next_request() {
            Some(request) => request,
            None => panic!("no request has come to {}", self.name),
        }
    }

    /// The next connection within a time, whatever has come on it: a server that speaks another protocol, or
    /// none. Its [`head`](FarRequest::head) is empty.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::{Application, Call, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     app.connect("ws://cloud.example/", ConnectOptions::new(), |_call: &Call| {
    ///         on_message(|session, message| session.send(message))
    ///     });
    /// })?;
    /// let server = app.far_server("cloud.example", 80);
    /// let connection = server.expect_connection_within(Duration::ZERO);
    /// connection.answer("SSH-2.0-OpenSSH\r\n"); // the wrong port
    /// assert_eq!(app.stats().dials_failed, 1);
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    ///
    /// # Panics
    /// If none comes.
    #[track_caller]
    pub fn expect_connection_within(&self, time: Duration) -> FarRequest {
        match self.within(time, Self::next_connection) {
            Some(connection) => connection,
            None => panic!("nobody has connected to {} within {time:?}", self.name),
        }
    }

    fn within(
        &self,
        time: Duration,
        next: impl Fn(&Self) -> Option<FarRequest>,
    ) -> Option<FarRequest> {
        let end = {
            let network = self.network.borrow_mut();
            network.now.after(network.until_fired(time))
        };
        loop {
            if let Some(found) = next(self) {
                return Some(found);
            }
            let mut network = self.network.borrow_mut();
            if network.now >= end {
                return None;
            }
            let left = end.since(network.now);
            network.advance(LOOK.min(left));
        }
    }
}

/// How far the clock moves between two looks: less than a server that is dialled has to answer.
const LOOK: Duration = Duration::from_millis(50);

fn take_head(got: &mut Vec<u8>) -> Option<String> {
    let end = got.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    Some(String::from_utf8_lossy(&got.drain(..end).collect::<Vec<u8>>()).into_owned())
}

impl FarRequest {
    /// The request line and the header lines, as they came.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// The value of a header line.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The value of `Sec-WebSocket-Accept` that belongs to this request.
    pub fn accept_key(&self) -> String {
        AcceptKey::of(self.header("sec-websocket-key").unwrap_or_default()).as_str().to_owned()
    }

    /// Accepts the handshake: what is sent and received from here are frames of a server.
    pub fn accept(self) -> TestClient {
        self.accept_with("")
    }

    /// The same with further header lines, each with its end: `"Sec-WebSocket-Protocol: a\r\n"`.
    pub fn accept_with(self, lines: &str) -> TestClient {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n{lines}\r\n",
            self.accept_key()
        );
        let mut client = self.into_client();
        client.begin_session(FarEnd::server());
        client.send_bytes(answer.as_bytes());
        client
    }

    /// Answers with these bytes, and leaves the connection open.
    pub fn answer(self, bytes: &str) -> TestClient {
        let mut client = self.into_client();
        client.send_bytes(bytes.as_bytes());
        client
    }

    /// The connection, for everything else.
    pub fn into_client(self) -> TestClient {
        self.client
    }

    /// Takes a further request on the same connection: the one behind a tunnel.
    pub fn next_request(self) -> Option<Self> {
        let client = self.client;
        let mut network = client.network.borrow_mut();
        network.pump();
        let head = take_head(&mut network.link(client.id).socket.got);
        drop(network);
        head.map(|head| Self { client, head })
    }

    /// Speaks TLS from here on, as [`FarServer::speak_tls`] does: the server behind a tunnel.
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::testing::{AUTHORITY, TestApplication};
    /// use wirewheel::tls::Roots;
    /// use wirewheel::{Application, Call, on_message};
    /// let app = TestApplication::new(|app: &mut Application| {
    ///     let options = ConnectOptions::new().roots(Roots::pem(AUTHORITY)).proxy("proxy.example:3128");
    ///     app.connect("wss://small.example/", options, |_call: &Call| {
    ///         on_message(|session, message| session.send(message))
    ///     });
    /// })?;
    /// let mut tunnel = app.far_server("proxy.example", 3128).expect_request();
    /// tunnel.say("HTTP/1.1 200 OK\r\n\r\n");
    /// tunnel.speak_tls();
    /// let mut session = tunnel.next_request().unwrap().accept();
    /// session.send("echo");
    /// session.expect_text("echo");
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn speak_tls(&mut self) {
        let mut network = self.client.network.borrow_mut();
        network.link(self.client.id).speak_tls(&FarTls::new());
        network.react(self.client.id);
        network.pump();
    }

    /// Sends bytes and goes on with the connection: the answer of a proxy.
    pub fn say(&mut self, bytes: &str) {
        self.client.send_bytes(bytes.as_bytes());
    }
}
