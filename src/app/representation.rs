//! Files as answers, and what of an answer a request gets: all of it, a part, or that nothing has changed
//! (RFC 9110 sections 13 and 14).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use crate::protocol::byte_range::{RequestedRange, requested_range};
use crate::protocol::conditions::{Precondition, Validators, has_conditions};
use crate::protocol::date::{date_text, parse_http_date};
use crate::protocol::head::RequestHead;
use crate::words::quoted::Quoted;

use crate::app::call::Call;
use crate::app::content_type::content_type;
use crate::app::file_body::FileBody;
use crate::app::response::{Body, Response, Selection, describes_content, has_header, set_header};

/// A file of so many bytes is sent with its head, in one piece.
const SHORT_FILE_BYTES: u64 = 16 << 10;

impl Response {
    /// 200 with a file, which is sent as the peer takes it: of a file of any size at most 32 KiB are
    /// in memory. The content type follows the name's ending (`application/octet-stream` if it is
    /// unknown). What is no regular file is answered with 404, what may not be read with 403, any
    /// other failure to open it with 500.
    ///
    /// It has an `ETag` and the date of its last change, and what the request's conditions and its range
    /// make of it: 304 where the client has it already, 206 with a part, 416, 412 (RFC 9110 sections 13 and
    /// 14). Of several ranges the whole is sent.
    ///
    /// The file is sent as long as it was when it was opened. If it becomes shorter meanwhile, the
    /// connection is reset, so that nobody takes the part for the whole. Reading blocks the loop
    /// for as long as the disk takes: no files on a network.
    ///
    /// The path is taken as it is. A path that comes from a request has to be checked before: that is what
    /// [`Routing::folder`](crate::Routing::folder) does.
    ///
    /// ```
    /// use wirewheel::{Application, Response};
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         route.get("/manual", |_call| Response::file("/usr/share/doc/box/manual.pdf"));
    ///     });
    /// }
    /// ```
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::opened(FileBody::open(path.as_ref()), path.as_ref())
    }

    /// The same with a file that is open already; `name` is only for the content type.
    ///
    /// ```
    /// use std::fs::File;
    /// use wirewheel::Response;
    /// fn log() -> Response {
    ///     match File::open("/var/log/messages") {
    ///         Ok(file) => Response::open_file(file, "messages.txt"),
    ///         Err(_) => Response::text("there is none").status(404),
    ///     }
    /// }
    /// ```
    pub fn open_file(file: File, name: impl AsRef<Path>) -> Self {
        Self::opened(FileBody::of(file), name.as_ref())
    }

    /// What of this answer the request gets (Ktor's `ConditionalHeaders` and `PartialContent`): 304 where
    /// its conditions say that the client has it, 412 where they fail, 206 or 416 where it asks for a range.
    /// The versions are told apart by the `ETag` and `Last-Modified` that are set on it. Only of a 200 to GET
    /// or HEAD. For files it goes without saying.
    ///
    /// ```
    /// use wirewheel::{Application, Call, Response};
    /// fn module(app: &mut Application) {
    ///     app.routing(|route| {
    ///         route.get("/state", |call: &Call| {
    ///             let (version, state) = (7, r#"{"level":3}"#);
    ///             Response::json(state).header("ETag", format!("\"{version}\"")).conditional(call)
    ///         });
    ///     });
    /// }
    /// ```
    #[must_use]
    pub fn conditional(self, call: &Call) -> Self {
        match self.body {
            // The server asks when it sends it; of the others nothing is known yet.
            Body::File(..) | Body::OnLoop(_) | Body::Deferred => self,
            Body::Bytes(_) | Body::Static(_) | Body::Produced(_) => select(self, call, None),
        }
    }

    fn opened(file: io::Result<FileBody>, name: &Path) -> Self {
        match file {
            Ok(file) => Self::of_file(file, content_type(name)),
            Err(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Self::refusal(404),
                ErrorKind::PermissionDenied => Self::refusal(403),
                _ => Self::faulty(format!("{}: {error}", Quoted(&name.to_string_lossy()))),
            },
        }
    }

    pub(super) fn of_file(file: FileBody, content_type: &str) -> Self {
        Self::with_body(content_type, Body::File(file, Selection(select)))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.iter();
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Sets what the file knows of its version, unless the application has said it.
    fn add_validators(&mut self, now: Option<Duration>) {
        let Body::File(file, _) = &self.body else { return };
        // Two codings of one file are two representations (RFC 9110 section 8.8.3.3).
        let suffix = self.value("content-encoding").map(|coding| format!("-{coding}"));
        let etag = file.etag(now, suffix.as_deref().unwrap_or_default());
        let date = file.modified(now).and_then(date_text);
        let date = date.map(|date| String::from_utf8_lossy(&date).into_owned());
        for (name, value) in [("ETag", etag), ("Last-Modified", date)] {
            if let Some(value) = value.filter(|_| !has_header(&self.headers, name)) {
                self.headers.push((name.into(), value));
            }
        }
    }

    /// 304 (section 15.4.5): what the client's copy needs, and nothing about content that does not come.
    fn not_modified(mut self) -> Self {
        let has_etag = has_header(&self.headers, "etag");
        self.headers.retain(|(name, _)| {
            let is_needless = has_etag && name.eq_ignore_ascii_case("last-modified");
            !is_needless && !describes_content(name)
        });
        Self { status: 304, body: Body::Bytes(Vec::new()), ..self }
    }

    /// The part that the request asks for.
    fn ranged(mut self, head: &RequestHead, counts: bool) -> Self {
        // What is made while it is sent has one beginning.
        let Some(length) = self.body.length().filter(|_| !matches!(self.body, Body::Produced(_)))
        else {
            return self;
        };
        set_header(&mut self.headers, "Accept-Ranges".into(), "bytes".into());
        let mut ranges = head.all("range");
        let range = match (ranges.next(), ranges.next()) {
            (Some(range), None) if counts => requested_range(range, length),
            _ => RequestedRange::Whole,
        };
        match range {
            RequestedRange::Whole => self,
            RequestedRange::Part { first, length: part } => {
                let last = first.saturating_add(part).saturating_sub(1);
                let range = format!("bytes {first}-{last}/{length}");
                set_header(&mut self.headers, "Content-Range".into(), range);
                Self { status: 206, body: self.body.part(first, part), ..self }
            }
            RequestedRange::Unsatisfiable => {
                Self::refusal(416).header("Content-Range", format!("bytes */{length}"))
            }
        }
    }

    /// A short file is read at once, so that it is sent together with its head. One that has become shorter
    /// is left to whoever sends files, who knows what to do.
    fn read_short_file(mut self) -> Self {
        if let Body::File(file, _) = &self.body {
            if file.length() <= SHORT_FILE_BYTES {
                if let Ok(bytes) = file.read() {
                    self.body = Body::Bytes(bytes);
                }
            }
        }
        self
    }
}

/// Chooses what of an answer a request gets.
fn select(mut response: Response, call: &Call, now: Option<Duration>) -> Response {
    let is_get = call.method() == "GET";
    if response.status != 200 || !(is_get || call.method() == "HEAD") {
        return response;
    }
    response.add_validators(now);
    let date_is_strong = match &response.body {
        Body::File(file, _) => file.date_is_strong(now),
        _ => false, // nobody says when it may change again
    };
    let validators = if has_conditions(call.head()) {
        let modified = response.value("last-modified").and_then(parse_http_date);
        Validators { etag: response.value("etag"), modified, date_is_strong }
    } else {
        Validators::default()
    };
    match validators.precondition(call.head()) {
        Precondition::NotModified => response.not_modified(),
        Precondition::Failed => Response::refusal(412),
        // Section 14.2: "A server MUST ignore a Range header field received with a request method that is
        // unrecognized or for which range handling is not defined. For this specification, GET is the only
        // method for which range handling is defined."
        Precondition::Met => {
            let counts = is_get && validators.range_counts(call.head());
            let response = response.ranged(call.head(), counts);
            if is_get { response.read_short_file() } else { response }
        }
    }
}

impl Body {
    /// A part, which lies within it.
    fn part(self, first: u64, length: u64) -> Self {
        let end = first.saturating_add(length);
        let range = || -> Option<Range<usize>> {
            Some(usize::try_from(first).ok()?..usize::try_from(end).ok()?)
        };
        match self {
            Self::File(file, selection) => Self::File(file.part(first, length), selection),
            Self::Static(bytes) => {
                Self::Static(range().and_then(|range| bytes.get(range)).unwrap_or_default())
            }
            Self::Bytes(bytes) => {
                Self::Bytes(range().and_then(|range| bytes.get(range)).unwrap_or_default().to_vec())
            }
            Self::Produced(_) | Self::OnLoop(_) | Self::Deferred => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::call::tests::call;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    /// Status, `Content-Range` and body of an answer with a hundred digits.
    fn answer(request: &str) -> (u16, Option<String>, String) {
        let digits: String = (0..100).map(|n| char::from(b'0' + n % 10)).collect();
        let response = Response::text(digits)
            .header("ETag", "\"seven\"")
            .header("Last-Modified", DATE)
            .header("Cache-Control", "no-cache")
            .conditional(&call(request));
        let range = response.value("content-range").map(str::to_owned);
        let Body::Bytes(body) = response.body else { panic!("other bytes") };
        (response.status, range, String::from_utf8(body).unwrap())
    }

    fn status(lines: &str) -> u16 {
        answer(&format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n")).0
    }

    #[test]
    fn a_part_is_what_was_asked_for() {
        let get =
            |range: &str| answer(&format!("GET / HTTP/1.1\r\nHost: h\r\nRange: {range}\r\n\r\n"));
        assert_eq!(get("bytes=5-7"), (206, Some("bytes 5-7/100".into()), "567".into()));
        assert_eq!(get("bytes=-2"), (206, Some("bytes 98-99/100".into()), "89".into()));
        let (status, range, body) = get("bytes=100-");
        assert_eq!((status, range.as_deref()), (416, Some("bytes */100")));
        assert!(body.starts_with("416 "));
        for whole in ["bytes=0-1,5-6", "lines=1-2", "bytes=0-1\r\nRange: bytes=2-3"] {
            let (status, range, body) = get(whole);
            assert_eq!((status, range, body.len()), (200, None, 100), "{whole}");
        }
        let head = answer("HEAD / HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n");
        assert_eq!((head.0, head.2.len()), (200, 100));
    }

    #[test]
    fn conditions_go_before_ranges() {
        for (lines, expected) in [
            ("If-None-Match: \"seven\"\r\nRange: bytes=0-1", 304),
            ("If-None-Match: \"eight\"\r\nRange: bytes=0-1", 206),
            ("If-Match: \"eight\"\r\nRange: bytes=200-", 412),
            ("If-Match: \"seven\"\r\nRange: bytes=200-", 416),
            ("If-Range: \"seven\"\r\nRange: bytes=0-1", 206),
            ("If-Range: \"eight\"\r\nRange: bytes=0-1", 200),
            ("If-Range: \"eight\"\r\nRange: bytes=200-", 200),
            ("If-Range: \"seven\"", 200),
            ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 304),
            ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 412),
        ] {
            assert_eq!(status(lines), expected, "{lines}");
        }
        // Nobody says when these bytes may change: the second of a date is too long.
        assert_eq!(status(&format!("If-Range: {DATE}\r\nRange: bytes=0-1")), 200);
        assert_eq!(answer("POST / HTTP/1.1\r\nHost: h\r\nIf-Match: \"eight\"\r\n\r\n").0, 200);
    }

    #[test]
    fn what_has_not_changed_says_nothing_about_its_content() {
        let response = Response::text("x")
            .header("ETag", "\"a\"")
            .header("Last-Modified", DATE)
            .header("Vary", "Accept-Encoding")
            .header("Content-Encoding", "gzip")
            .header("Content-Location", "/x")
            .conditional(&call("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"a\"\r\n\r\n"));
        let names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((response.status, names), (304, vec!["ETag", "Vary", "Content-Location"]));
    }
}
