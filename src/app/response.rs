//! Answers to plain requests, and what may be added to the answer that upgrades.

use std::fmt::{self, Display};
use std::io;
use std::time::Duration;

use crate::protocol::token::{is_header_value, is_token};
use crate::words::quoted::Quoted;

use crate::app::call::Call;
use crate::app::file_body::FileBody;
use crate::app::long_body::LongBody;
use crate::app::made_once::MadeOnce;
use crate::context::loop_state::ServerRef;
use crate::structures::produced::{BodyPiece, ProducedBody};

/// The answer to a plain request.
///
/// ```
/// use wirewheel::Response;
/// let page = Response::html("<h1>hello</h1>").header("Cache-Control", "no-store");
/// let health = Response::json(r#"{"ok":true}"#);
/// let gone = Response::text("moved away").status(410);
/// let empty = Response::new(204);
/// let picture = Response::new(200).header("Content-Type", "image/png").body(*b"\x89PNG");
/// # let _ = (page, health, gone, empty, picture);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub(super) status: u16,
    /// It says nothing that the application did not leave to the server.
    pub(super) is_refusal: bool,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Body,
    /// What the application did wrong that it became this answer; for the log alone.
    pub(super) fault: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Bytes(Vec<u8>),
    /// They are part of the program.
    Static(&'static [u8]),
    File(FileBody, Selection),
    Produced(ProducedBody),
    /// It is made once the hook is over.
    OnLoop(MadeOnce<MakeAnswer>),
    /// It comes later.
    Deferred,
}

/// Makes an answer with the server.
pub(crate) type MakeAnswer = Box<dyn FnOnce(&Call, &mut ServerRef<'_>) -> Response>;

/// What chooses of a file's answer what a request gets. It comes with the file, so that a program without
/// files is linked without it.
#[derive(Clone, Copy)]
pub(super) struct Selection(pub(super) fn(Response, &Call, Option<Duration>) -> Response);

impl PartialEq for Selection {
    fn eq(&self, _other: &Self) -> bool {
        true // there is one, wherever the linker put it
    }
}

impl Eq for Selection {}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Selection")
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// How the connection goes on behind an answer (RFC 9112 section 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// It does, which goes without saying in HTTP/1.1.
    Implied,
    /// It does, and a client of HTTP/1.0 learns it from a header.
    Announced,
    /// It does not.
    Close,
}

/// What every answer owes beside what it is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owed<'a> {
    pub(crate) persistence: Persistence,
    /// Everything but the body: the answer to HEAD, or one whose body is sent in pieces.
    pub(crate) head_only: bool,
    /// A body of unknown length is sent in chunks: in HTTP/1.0 it ends with the connection.
    pub(crate) chunked: bool,
    /// The line with the date; empty where there is no clock.
    pub(crate) date: &'a [u8],
}

/// Headers with one value (RFC 9110 and those of the Fetch standard): set again, the later value stands.
/// The others are lists, or mean something to the application, and may stand in several lines.
const SINGLE_HEADERS: [&str; 31] = [
    "accept-patch",
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "access-control-max-age",
    "age",
    "content-disposition",
    "content-location",
    "content-range",
    "content-type",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "date",
    "deprecation",
    "etag",
    "expires",
    "host",
    "last-modified",
    "location",
    "origin-agent-cluster",
    "referrer-policy",
    "refresh",
    "retry-after",
    "server",
    "sourcemap",
    "strict-transport-security",
    "sunset",
    "timing-allow-origin",
    "x-content-type-options",
    "x-frame-options",
    "x-xss-protection",
];

/// Adds a header, or puts it in the place of an earlier one where there is one value.
pub(super) fn set_header(headers: &mut Vec<(String, String)>, name: String, value: String) {
    let is_single = || SINGLE_HEADERS.iter().any(|single| single.eq_ignore_ascii_case(&name));
    if has_header(headers, &name) && is_single() {
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
    }
    headers.push((name, value));
}

pub(super) fn has_header(headers: &[(String, String)], name: &str) -> bool {
    headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// Whether a header is about the content that comes with it (RFC 9110 section 8), and not, as
/// `Content-Security-Policy` is, about what is done with it.
pub(super) fn describes_content(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "content-type",
        "content-encoding",
        "content-language",
        "content-range",
        "content-disposition",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Headers that the server writes itself, in every answer.
const OWN_HEADERS: [&str; 4] = ["connection", "content-length", "transfer-encoding", "upgrade"];

impl Response {
    /// An answer with a status and nothing else. A status outside 200-599 becomes 500.
    pub fn new(status: u16) -> Self {
        let (headers, body) = (Vec::new(), Body::Bytes(Vec::new()));
        let response = Self { status: 200, is_refusal: false, headers, body, fault: None };
        response.status(status)
    }

    /// 200 with a plain text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::with_body("text/plain; charset=utf-8", body.into().into_bytes())
    }

    /// 200 with a page.
    pub fn html(body: impl Into<String>) -> Self {
        Self::with_body("text/html; charset=utf-8", body.into().into_bytes())
    }

    /// 200 with JSON that is encoded already.
    pub fn json(body: impl Into<String>) -> Self {
        Self::with_body("application/json", body.into().into_bytes())
    }

    /// 200 with figures in Prometheus' text format.
    pub(crate) fn prometheus(body: String) -> Self {
        Self::with_body("text/plain; version=0.0.4; charset=utf-8", body.into_bytes())
    }

    /// 200 with a body of any length that is made while it is sent: `produce` is called whenever the peer has
    /// taken what there was, and writes the next piece. A call that writes nothing ends the body; the answer
    /// to HEAD does not call it.
    ///
    /// In HTTP/1.1 it is chunked, in HTTP/1.0 it ends with the connection. An error resets the connection, so
    /// that nobody takes the part for the whole, and is logged. `produce` runs on the loop and must not wait.
    /// What it keeps does not count in `process_bytes`.
    ///
    /// ```
    /// # #[cfg(feature = "testing")]
    /// # {
    /// use std::io::Write;
    /// use wirewheel::testing::TestApplication;
    /// use wirewheel::Response;
    /// let app = TestApplication::new(|app: &mut wirewheel::Application| {
    ///     app.routing(|route| {
    ///         route.get("/countdown", |_call| {
    ///             let mut left = 3;
    ///             Response::stream(move |piece| {
    ///                 if left > 0 {
    ///                     writeln!(piece, "{left}")?;
    ///                     left -= 1;
    ///                 }
    ///                 Ok(())
    ///             })
    ///         });
    ///     });
    /// })?;
    /// assert_eq!(app.get("/countdown").text(), "3\n2\n1\n");
    /// # }
    /// # Ok::<(), wirewheel::error::ServerError>(())
    /// ```
    pub fn stream(produce: impl FnMut(&mut BodyPiece<'_>) -> io::Result<()> + 'static) -> Self {
        Self { body: Body::Produced(ProducedBody::new(None, produce)), ..Self::new(200) }
    }

    /// The same where the length is known, and announced: more than that is not sent, and fewer bytes reset
    /// the connection.
    ///
    /// ```
    /// use std::io::Write;
    /// use wirewheel::Response;
    /// fn zeros(count: u64) -> Response {
    ///     Response::stream_sized(count, |piece| piece.write_all(&[0; 4096]))
    /// }
    /// # let _ = zeros(1 << 40);
    /// ```
    pub fn stream_sized(
        length: u64,
        produce: impl FnMut(&mut BodyPiece<'_>) -> io::Result<()> + 'static,
    ) -> Self {
        Self { body: Body::Produced(ProducedBody::new(Some(length), produce)), ..Self::new(200) }
    }

    pub(super) fn with_body(content_type: &str, body: impl Into<Body>) -> Self {
        let headers = vec![("Content-Type".into(), content_type.into())];
        Self { status: 200, is_refusal: false, headers, body: body.into(), fault: None }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self.body, Body::File(..))
    }

    /// Of a file what a request gets: a part, or that nothing has changed. `clock` has the time since 1970
    /// began.
    pub(crate) fn for_request(self, call: &Call, clock: impl FnOnce() -> Option<Duration>) -> Self {
        match &self.body {
            Body::File(_, Selection(select)) if self.status == 200 => select(self, call, clock()),
            _ => self,
        }
    }

    /// Sets the status; one outside 200-599 becomes 500.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        let status = if (200..=599).contains(&status) { status } else { 500 };
        self.status = if self.fault.is_some() { self.status } else { status };
        self
    }

    /// Adds a header; where a header has one value, such as `Content-Type`, the value set last
    /// stands. `Date` is in every answer without being set.
    ///
    /// One that could break the answer (a name that is no token, a value with control characters, a
    /// header that the server writes itself) is logged as an error and turns the answer into a bare
    /// 500, whatever is set behind it: it never reaches the wire.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        match check_header(&name, &value) {
            _ if self.fault.is_some() => self,
            Ok(()) => {
                set_header(&mut self.headers, name, value);
                self
            }
            Err(fault) => Self::faulty(fault),
        }
    }

    /// Sets the body. More than `read_buffer_bytes` of [`Limits`](crate::Limits) are sent piece by piece,
    /// as the peer takes them, and count against `process_bytes` meanwhile; an answer for which that has
    /// no room is replaced by a 503, one that is longer than all of it by a 500. Files are not bounded so.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        if self.fault.is_some() {
            return self;
        }
        Self { body: Body::Bytes(body.into()), is_refusal: false, ..self }
    }

    pub(crate) fn status_code(&self) -> u16 {
        self.status
    }

    /// The seconds after which a client is to ask again, if it says so.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == "Retry-After")?;
        value.parse().ok()
    }

    /// The answer of the server itself to a request that it refuses.
    pub(crate) fn refusal(status: u16) -> Self {
        let response = Self::text(format!("{status} {}\n", reason_phrase(status))).status(status);
        Self { is_refusal: true, ..response }
    }

    /// The same, and why.
    pub(crate) fn refusal_because(status: u16, why: &dyn Display) -> Self {
        let text = format!("{status} {}: {why}\n", reason_phrase(status));
        Self { is_refusal: true, ..Self::text(text).status(status) }
    }

    /// 500, and what is to be said in the log.
    pub(crate) fn faulty(fault: impl Into<Box<str>>) -> Self {
        Self { fault: Some(fault.into()), ..Self::refusal(500) }
    }

    /// What the application did wrong that it became this answer.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Writes it to the end of `out`; without its body for HEAD, and without one that is sent in pieces.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, owed: &Owed<'_>) {
        let mut line = |pieces: &[&str]| {
            for piece in pieces {
                out.extend_from_slice(piece.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        };
        line(&["HTTP/1.1 ", &self.status.to_string(), " ", reason_phrase(self.status)]);
        for (name, value) in &self.headers {
            line(&[name, ": ", value]);
        }
        match self.status {
            // RFC 9110 section 15.5.6: "MUST generate an Allow header field".
            405 if !has_header(&self.headers, "allow") => line(&["Allow: GET, HEAD"]),
            // Section 15.5.22: "MUST send an Upgrade header field"; RFC 6455 section 4.4: the version.
            426 => {
                line(&["Upgrade: websocket"]);
                if !has_header(&self.headers, "sec-websocket-version") {
                    line(&["Sec-WebSocket-Version: 13"]);
                }
            }
            _ => {}
        }
        match self.content_length() {
            Some(length) => line(&["Content-Length: ", &length.to_string()]),
            None if owed.chunked && self.has_body() => line(&["Transfer-Encoding: chunked"]),
            None => {}
        }
        // Section 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
        match (owed.persistence, self.status) {
            (Persistence::Close, 426) => line(&["Connection: close, Upgrade"]),
            (Persistence::Close, _) => line(&["Connection: close"]),
            (Persistence::Announced, 426) => line(&["Connection: keep-alive, Upgrade"]),
            (Persistence::Announced, _) => line(&["Connection: keep-alive"]),
            (Persistence::Implied, 426) => line(&["Connection: Upgrade"]),
            (Persistence::Implied, _) => {}
        }
        if !has_header(&self.headers, "date") {
            out.extend_from_slice(owed.date);
        }
        out.extend_from_slice(b"\r\n");
        if !owed.head_only && self.has_body() {
            match &self.body {
                Body::Bytes(bytes) => out.extend_from_slice(bytes),
                Body::Static(bytes) => out.extend_from_slice(bytes),
                Body::File(..) | Body::Produced(_) | Body::OnLoop(_) | Body::Deferred => {}
            }
        }
    }

    fn content_length(&self) -> Option<u64> {
        match (self.status, &self.body) {
            // Sections 15.3.5 and 15.4.5: no body, and of a length that it would have had nothing is known.
            (204 | 304, _) => None,
            (205, _) => Some(0), // section 15.3.6: "a server MUST NOT generate content"
            _ => self.body.length(),
        }
    }

    /// Whether an answer with this status has a body.
    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.status, 204 | 205 | 304)
    }

    /// Whether its body is sent in pieces: a file, or more than `most` bytes.
    pub(crate) fn is_long(&self, most: usize) -> bool {
        match &self.body {
            _ if !self.has_body() => false,
            Body::File(..) | Body::Produced(_) => true,
            Body::Bytes(bytes) => bytes.len() > most,
            Body::Static(bytes) => bytes.len() > most,
            Body::OnLoop(_) | Body::Deferred => false,
        }
    }

    /// Whether only the end of its body tells how long it is.
    pub(crate) fn is_endless(&self) -> bool {
        self.has_body() && self.content_length().is_none()
    }

    pub(crate) fn into_long_body(self) -> Option<LongBody> {
        Some(match self.body {
            Body::File(file, _) => LongBody::File(file),
            Body::Bytes(bytes) => LongBody::Bytes(bytes),
            Body::Static(bytes) => LongBody::Static(bytes),
            Body::Produced(produced) => LongBody::Produced(produced),
            Body::OnLoop(_) | Body::Deferred => return None,
        })
    }

    pub(crate) fn into_headers(self) -> Vec<(String, String)> {
        self.headers
    }

    /// Bytes of memory that its body takes.
    pub(crate) fn bytes_held(&self) -> usize {
        match &self.body {
            Body::Bytes(bytes) => bytes.capacity(),
            _ => 0,
        }
    }
}

impl Body {
    /// Its length, where it is known before it is sent.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Static(bytes) => Some(bytes.len() as u64),
            Self::File(file, _) => Some(file.length()),
            Self::Produced(produced) => produced.length(),
            Self::OnLoop(_) | Self::Deferred => Some(0),
        }
    }
}

impl From<&str> for Response {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Response {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

pub(super) fn check_header(name: &str, value: &str) -> Result<(), String> {
    let own = OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
    if is_token(name) && !own && is_header_value(value) {
        return Ok(());
    }
    Err(format!(
        "header {} may not be set: it is no token, its value holds control characters, or the server \
         writes it itself",
        Quoted(name)
    ))
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// An upgrade that is accepted, with headers to add to the answer (cookies, for one).
///
/// ```
/// use wirewheel::{Accept, Call, Response};
/// fn check(call: &Call) -> Result<Accept, Response> {
///     match call.header("authorization") {
///         Some("Bearer secret") => Ok(Accept::new().header("Set-Cookie", "seen=1")),
///         _ => Err(Response::text("who are you?").status(401)),
///     }
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    headers: Vec<(String, String)>,
    /// A header was refused, for this reason; so is the upgrade.
    fault: Option<Box<str>>,
}

impl Accept {
    /// Accepts, and adds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header to the answer. One that could break it is logged as an error, and the upgrade
    /// is answered with 500; see [`Response::header`]. The handshake's own headers may not be set.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        let of_handshake =
            name.get(..14).is_some_and(|start| start.eq_ignore_ascii_case("sec-websocket-"));
        match check_header(&name, &value) {
            Err(fault) => self.fault = Some(fault.into()),
            Ok(()) if of_handshake => {
                let fault =
                    format!("header {} may not be set: it is the handshake's", Quoted(&name));
                self.fault = Some(fault.into());
            }
            Ok(()) => set_header(&mut self.headers, name, value),
        }
        self
    }

    /// Adds what a further hook added.
    pub(crate) fn extend(&mut self, other: Self) -> Result<(), Response> {
        if let Some(fault) = other.fault {
            return Err(Response::faulty(fault));
        }
        for (name, value) in other.headers {
            set_header(&mut self.headers, name, value);
        }
        Ok(())
    }

    pub(crate) fn with_headers(headers: Vec<(String, String)>) -> Self {
        Self { headers, fault: None }
    }

    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    pub(crate) fn into_headers(self) -> Vec<(String, String)> {
        self.headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: &Response, keep_alive: bool, head_only: bool) -> String {
        let persistence = if keep_alive { Persistence::Implied } else { Persistence::Close };
        let mut out = Vec::new();
        response.encode(&mut out, &Owed { persistence, head_only, chunked: true, date: b"" });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_answer_has_its_length_and_says_when_the_connection_ends() {
        let hello = Response::text("hello");
        let start =
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n";
        assert_eq!(encoded(&hello, true, false), format!("{start}\r\nhello"));
        assert_eq!(encoded(&hello, false, true), format!("{start}Connection: close\r\n\r\n"));
        assert_eq!(encoded(&Response::new(204), true, false), "HTTP/1.1 204 No Content\r\n\r\n");
    }

    #[test]
    fn a_header_that_could_split_the_answer_never_reaches_the_wire() {
        for (name, value) in [
            ("X", "a\r\nSet-Cookie: evil=1"),
            ("X", "a\nb"),
            ("X\r\nY", "a"),
            ("", "a"),
            ("Content-Length", "3"),
            ("Transfer-Encoding", "chunked"),
        ] {
            let text = encoded(&Response::text("x").header(name, value), true, false);
            assert!(text.starts_with("HTTP/1.1 500 ") && !text.contains("evil"), "{name:?}");
            assert!(Accept::new().extend(Accept::new().header(name, value)).is_err(), "{name:?}");
            // Whatever is set behind it.
            let bad = Response::text("x").header(name, value);
            let set = bad.clone().status(201).header("X-Own", "1").body("mine");
            assert_eq!(set, bad, "{name:?}");
            let made = bad.clone().completed_by(Response::new(201).header("X-Own", "1"));
            assert_eq!(made, bad, "{name:?}");
        }
        assert!(Accept::new().extend(Accept::new().header("Sec-WebSocket-Accept", "x")).is_err());
    }

    #[test]
    fn refusals_say_what_would_help() {
        let text = encoded(&Response::refusal(426), true, false);
        assert!(text.contains("\r\nUpgrade: websocket\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: Upgrade\r\n"), "{text}");
        assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
        assert!(encoded(&Response::refusal(405), true, false).contains("\r\nAllow: GET, HEAD\r\n"));
    }
}
