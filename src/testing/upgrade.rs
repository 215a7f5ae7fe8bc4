//! An upgrade with headers and subprotocols, made by the client of a test.

use super::client::{Answer, TestClient};
use super::far_end::FarEnd;
use super::frames::UPGRADE;

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
        let Self { mut client, path, lines } = self;
        client.send_bytes(
            format!("GET {path} HTTP/1.1\r\nHost: test\r\n{UPGRADE}{lines}\r\n").as_bytes(),
        );
        let answer = client.expect_answer();
        if answer.status != 101 {
            return Err(answer);
        }
        client.begin_session(FarEnd::new());
        Ok((client, answer))
    }
}
