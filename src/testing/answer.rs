//! An answer to a client of a test, taken off what has arrived.

use crate::protocol::body::BodyDecoder;
use crate::protocol::framing::BodyFraming;

/// An answer to a request.
///
/// ```
/// use wirewheel::Application;
/// use wirewheel::testing::TestApplication;
/// let app = TestApplication::new(|app: &mut Application| {
///     app.routing(|route| route.get("/healthz", |_call| "ok"));
/// })?;
/// let answer = app.get("/healthz");
/// assert_eq!((answer.status, answer.text()), (200, "ok"));
/// assert_eq!(answer.header("content-length"), Some("2"));
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The status line and the header lines.
    pub head: String,
    /// The body. One that ends with the connection, such as an event stream, is empty before that.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        match std::str::from_utf8(&self.body) {
            Ok(text) => text,
            Err(error) => panic!("the body is no text: {error}"),
        }
    }
}

/// Takes the answer at the start of what has arrived, or says what is missing of one. `ended`: that is all.
pub(super) fn take_answer(
    got: &mut Vec<u8>,
    head_only: bool,
    ended: bool,
) -> Result<Answer, String> {
    let end = got.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let end = end.ok_or("an answer")?;
    let head = String::from_utf8_lossy(&got[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut answer = Answer { status, head, body: Vec::new() };
    let is_bare = head_only || matches!(status, 100..=199 | 204 | 304);
    let length = if is_bare {
        0
    } else if answer.header("transfer-encoding") == Some("chunked") {
        let (body, length) = chunked_body(&got[end..]).ok_or("an answer with all its chunks")?;
        answer.body = body;
        length
    } else if ended && answer.header("content-length").is_none() {
        // RFC 9112 section 6.3: it ends with the connection.
        answer.body = got[end..].to_vec();
        answer.body.len()
    } else {
        let length =
            answer.header("content-length").map_or(0, |length| length.parse().unwrap_or(0));
        let body = got.get(end..end + length);
        answer.body =
            body.ok_or_else(|| format!("an answer with a body of {length} bytes"))?.to_vec();
        length
    };
    got.drain(..end + length);
    Ok(answer)
}

/// The content of a chunked body at the start of some bytes, and how many of them it takes.
fn chunked_body(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, u64::MAX, 1 << 20).ok()?;
    let mut content = bytes.to_vec();
    let decoded = decoder.decode(&mut content).ok()?;
    content.truncate(decoded.content);
    decoder.is_done().then_some((content, decoded.taken))
}
