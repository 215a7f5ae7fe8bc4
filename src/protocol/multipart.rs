//! Bodies of several parts, taken apart as they come (RFC 7578, RFC 2046 section 5.1).

use std::ops::Range;

use crate::protocol::token::{is_token, is_token_byte};

/// What a form's body may have beside its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartLimits {
    pub(crate) parts: usize,
    pub(crate) head_bytes: usize,
}

/// What is known of a body between two reads: of its content it keeps nothing.
#[derive(Debug)]
pub(crate) struct MultipartReader {
    /// CR LF, two hyphens and the boundary. A CR is at its start and nowhere else: where a match fails,
    /// what was matched is content, and another match can begin only with the next byte.
    delimiter: Vec<u8>,
    /// Bytes of the delimiter that the last bytes were.
    matched: usize,
    /// Those of them that are the end of a part's head, and so no content of it: at most `matched`.
    of_head: usize,
    state: State,
    /// The lines of the part that begins.
    head: Vec<u8>,
    parts_left: usize,
    head_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter: of no meaning.
    Preamble,
    Content,
    /// The content of a part is over, which is still to be told.
    PartEnd,
    /// Behind a delimiter.
    Delimiter,
    Hyphen,
    Padding,
    LineFeed,
    Head,
    /// Behind the last delimiter: of no meaning.
    Epilogue,
}

/// Bytes before the next delimiter, or before what may be the start of one.
enum Stretch<'a> {
    Here(&'a [u8]),
    /// At the end of an earlier read: these of the delimiter were no delimiter after all.
    Earlier(Range<usize>),
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PartEvent<'a> {
    Begin(Part),
    Content(&'a [u8]),
    End,
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MultipartFault {
    /// 400.
    Malformed,
    /// 413: more parts than are taken.
    TooManyParts,
    /// 431: the lines of a part are over their limit.
    HeadTooLarge,
}

impl MultipartFault {
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooManyParts => 413,
            Self::HeadTooLarge => 431,
        }
    }
}

/// The head of a part of a form.
///
/// ```
/// use wirewheel::body::Part;
/// fn is_picture(part: &Part) -> bool {
///     part.name() == "picture"
///         && part.file_name().is_some_and(|name| !name.is_empty())
///         && part.content_type().is_some_and(|kind| kind.starts_with("image/"))
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    name: String,
    file_name: Option<String>,
    content_type: Option<String>,
}

impl Part {
    /// The name of the form's field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name that the file has at the client, if the part is one; empty where none was chosen. It is
    /// the client's word: no path is to be made of it as it is.
    pub fn file_name(&self) -> Option<&str> {
        self.file_name.as_deref()
    }

    /// Its `Content-Type` as it was sent; parts without are plain text (RFC 7578 section 4.4).
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }
}

impl MultipartReader {
    /// The reader of a body of this `Content-Type`; `None` if that is no form with a sound boundary.
    pub(crate) fn new(content_type: &str, limits: PartLimits) -> Option<Self> {
        let (kind, parameters) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(parameters, "boundary").ok()??;
        if !is_boundary(&boundary) {
            return None;
        }
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        let (parts_left, head_bytes) = (limits.parts, limits.head_bytes);
        // The first delimiter may stand at the very start: as if a line had ended before.
        let (matched, of_head, state) = (2, 0, State::Preamble);
        Some(Self { delimiter, matched, of_head, state, head: Vec::new(), parts_left, head_bytes })
    }

    /// Takes from the start of `input` what makes the next event; `None` if all was taken and there is
    /// none.
    pub(crate) fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<PartEvent<'a>>, MultipartFault> {
        loop {
            match self.state {
                State::PartEnd => {
                    self.state = State::Delimiter;
                    return Ok(Some(PartEvent::End));
                }
                State::Epilogue => *input = &[],
                State::Preamble | State::Content => {
                    let is_content = self.state == State::Content;
                    match self.content(input) {
                        Stretch::Here(bytes) if is_content && !bytes.is_empty() => {
                            return Ok(Some(PartEvent::Content(bytes)));
                        }
                        Stretch::Earlier(range) if is_content && !range.is_empty() => {
                            let bytes = self.delimiter.get(range).unwrap_or_default();
                            return Ok(Some(PartEvent::Content(bytes)));
                        }
                        Stretch::Here(_) | Stretch::Earlier(_) => {}
                    }
                }
                _ => {
                    if let Some(part) = self.line_byte(input)? {
                        return Ok(Some(PartEvent::Begin(part)));
                    }
                }
            }
            if input.is_empty() && self.state != State::PartEnd {
                return Ok(None);
            }
        }
    }

    /// What is no delimiter of that which stands at the start.
    #[allow(clippy::arithmetic_side_effects, reason = "at is at most the length of the input")]
    fn content<'a>(&mut self, input: &mut &'a [u8]) -> Stretch<'a> {
        let all: &'a [u8] = input;
        let carried = self.matched;
        let mut at = 0;
        while let Some(&byte) = all.get(at) {
            if self.delimiter.get(self.matched) == Some(&byte) {
                (self.matched, at) = (self.matched + 1, at + 1);
                if self.matched == self.delimiter.len() {
                    return self.delimiter_ends(input, at, carried);
                }
            } else if carried > 0 {
                *input = all.get(at..).unwrap_or_default();
                let of_head = std::mem::take(&mut self.of_head);
                return Stretch::Earlier(of_head..std::mem::take(&mut self.matched));
            } else {
                // Up to the next byte that could begin one.
                self.matched = 0;
                let rest = all.get(at..).unwrap_or_default();
                let later = rest.iter().position(|&byte| byte == b'\r');
                at = later.map_or(all.len(), |later| at + later);
            }
        }
        *input = &[];
        // What is matched in this read is content until the next one tells.
        let end = all.len().saturating_sub(if carried > 0 { all.len() } else { self.matched });
        Stretch::Here(all.get(..end).unwrap_or_default())
    }

    fn delimiter_ends<'a>(
        &mut self,
        input: &mut &'a [u8],
        at: usize,
        carried: usize,
    ) -> Stretch<'a> {
        let all: &'a [u8] = input;
        let begin = at.saturating_sub(self.delimiter.len().saturating_sub(carried));
        let is_content = self.state == State::Content;
        self.state = if is_content { State::PartEnd } else { State::Delimiter };
        (self.matched, self.of_head) = (0, 0);
        *input = all.get(at..).unwrap_or_default();
        Stretch::Here(all.get(..begin).unwrap_or_default())
    }

    /// One byte of a delimiter's line or of a part's head.
    fn line_byte(&mut self, input: &mut &[u8]) -> Result<Option<Part>, MultipartFault> {
        let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
        *input = rest;
        self.state = match (self.state, byte) {
            (State::Delimiter, b'-') => State::Hyphen,
            (State::Hyphen, b'-') => State::Epilogue,
            (State::Delimiter | State::Padding, b'\r') => State::LineFeed,
            (State::Delimiter | State::Padding, b' ' | b'\t') => self.pad()?,
            (State::LineFeed, b'\n') => self.begin_head()?,
            (State::Head, _) => return self.head_byte(byte),
            _ => return Err(MultipartFault::Malformed),
        };
        Ok(None)
    }

    fn pad(&mut self) -> Result<State, MultipartFault> {
        self.keep(b' ')?;
        Ok(State::Padding)
    }

    fn begin_head(&mut self) -> Result<State, MultipartFault> {
        self.parts_left = self.parts_left.checked_sub(1).ok_or(MultipartFault::TooManyParts)?;
        self.head.clear();
        Ok(State::Head)
    }

    fn keep(&mut self, byte: u8) -> Result<(), MultipartFault> {
        if self.head.len() >= self.head_bytes {
            return Err(MultipartFault::HeadTooLarge);
        }
        self.head.push(byte);
        Ok(())
    }

    fn head_byte(&mut self, byte: u8) -> Result<Option<Part>, MultipartFault> {
        self.keep(byte)?;
        if !(self.head.ends_with(b"\r\n\r\n") || self.head == b"\r\n") {
            return Ok(None);
        }
        let part = read_part(&self.head).ok_or(MultipartFault::Malformed)?;
        self.head = Vec::new();
        // RFC 2046 section 5.1.1: a part without a body ends with the delimiter's own end of a line.
        (self.state, self.matched, self.of_head) = (State::Content, 2, 2);
        Ok(Some(part))
    }

    /// Whether the last delimiter has come.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Epilogue
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        self.delimiter.capacity().saturating_add(self.head.capacity())
    }
}

const BOUNDARY_MAX: usize = 70;

/// RFC 2046 section 5.1.1.
fn is_boundary(text: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=BOUNDARY_MAX).contains(&text.len()) && text.bytes().all(may_stand) && !text.ends_with(' ')
}

/// Lines of a part that are looked at.
const PART_LINES_MAX: usize = 16;

fn read_part(head: &[u8]) -> Option<Part> {
    let mut lines = [httparse::EMPTY_HEADER; PART_LINES_MAX];
    let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(head, &mut lines)
    else {
        return None;
    };
    // A line feed alone ends no line here.
    let bare =
        head.iter().zip(head.get(1..)?).any(|(&before, &byte)| byte == b'\n' && before != b'\r');
    if bare || head.first() == Some(&b'\n') {
        return None;
    }
    let (mut part, mut is_named) = (Part::default(), false);
    for line in lines.iter() {
        let value = std::str::from_utf8(line.value).ok()?.trim();
        if line.name.eq_ignore_ascii_case("content-disposition") {
            let (kind, parameters) = value.split_once(';')?;
            if is_named || !kind.trim().eq_ignore_ascii_case("form-data") {
                return None;
            }
            (part.name, is_named) = (parameter(parameters, "name").ok()??, true);
            part.file_name = parameter(parameters, "filename").ok()?;
        } else if line.name.eq_ignore_ascii_case("content-type") {
            part.content_type = Some(value.to_owned());
        } else if line.name.eq_ignore_ascii_case("content-transfer-encoding") {
            // RFC 7578 section 4.7: deprecated. What is encoded would be taken for what it is not.
            let is_plain =
                ["7bit", "8bit", "binary"].iter().any(|it| value.eq_ignore_ascii_case(it));
            is_plain.then_some(())?;
        }
    }
    is_named.then_some(part)
}

/// The value of a parameter; an error for what are no parameters, and for one that stands twice.
fn parameter(text: &str, name: &str) -> Result<Option<String>, ()> {
    let mut found = None;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (known, later) = rest.split_once('=').ok_or(())?;
        let (value, later) = value(later)?;
        let known = known.trim();
        if !is_token(known) || (known.eq_ignore_ascii_case(name) && found.is_some()) {
            return Err(());
        }
        if known.eq_ignore_ascii_case(name) {
            found = Some(value);
        }
        rest = later;
    }
    Ok(found)
}

/// A token or quoted text at the start, and what follows its semicolon. In quotes a backslash escapes a
/// quote and nothing else: browsers send names as they are, with `%22` for a quote. So the last quote is
/// the end of a name that ends in a backslash.
fn value(text: &str) -> Result<(String, &str), ()> {
    let (value, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let mut end = quoted.find('"').ok_or(())?;
            while quoted.get(..end).is_some_and(|before| before.ends_with('\\')) {
                let from = end.saturating_add(1);
                let Some(next) = quoted.get(from..).and_then(|later| later.find('"')) else {
                    break;
                };
                end = from.saturating_add(next);
            }
            let (value, rest) = quoted.split_at_checked(end).ok_or(())?;
            (value.replace("\\\"", "\""), rest.get(1..).unwrap_or_default())
        }
        None => {
            let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
            let (value, rest) = text.split_at_checked(end).ok_or(())?;
            (value.to_owned(), rest)
        }
    };
    let rest = rest.trim_start();
    match rest.strip_prefix(';') {
        Some(later) => Ok((value, later.trim())),
        None if rest.is_empty() => Ok((value, "")),
        None => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PartLimits = PartLimits { parts: 3, head_bytes: 200 };

    type FormParts = Vec<(Part, Vec<u8>)>;

    /// The parts of a body that comes in pieces of that size, each with its head and its content.
    fn parts(body: &[u8], piece: usize) -> Result<(FormParts, bool), MultipartFault> {
        let mut reader = MultipartReader::new("multipart/form-data; boundary=XyZ", LIMITS).unwrap();
        let mut parts = FormParts::new();
        let mut open = false;
        for mut piece in body.chunks(piece) {
            while let Some(event) = reader.next(&mut piece)? {
                match event {
                    PartEvent::Begin(part) => {
                        assert!(!std::mem::replace(&mut open, true));
                        parts.push((part, Vec::new()));
                    }
                    PartEvent::Content(content) => {
                        assert!(open && !content.is_empty());
                        parts.last_mut().unwrap().1.extend_from_slice(content);
                    }
                    PartEvent::End => assert!(std::mem::replace(&mut open, false)),
                }
            }
            assert!(piece.is_empty());
        }
        assert!(reader.memory() < 1_000);
        Ok((parts, reader.is_done()))
    }

    fn body(parts: &[(&str, &str)]) -> String {
        let parts =
            parts.iter().map(|(head, content)| format!("--XyZ\r\n{head}\r\n\r\n{content}\r\n"));
        parts.collect::<String>() + "--XyZ--\r\n"
    }

    fn part(name: &str, file_name: Option<&str>, content_type: Option<&str>) -> Part {
        Part {
            name: name.into(),
            file_name: file_name.map(str::to_owned),
            content_type: content_type.map(str::to_owned),
        }
    }

    #[test]
    fn parts_in_any_pieces() {
        let field = "Content-Disposition: form-data; name=\"a\"";
        let file = "content-disposition: Form-Data; filename=\"x \\\"y\\\".png\"; name=b\r\n\
            Content-Type: image/png";
        for (content, other) in [
            ("hello", "world"),
            ("", ""),
            ("\r\n", "\r\n\r\n"),
            ("\r\n--Xy", "-XyZ--"),
            ("\r\r\r\n-\r\n--\r\n--X\r\n--Xy\r\n--XyY", "x--XyZ"),
            ("\n--XyZ\r\n", "\r--XyZ\r"),
            ("\r\n--xyz", "\r\n--\r\n--"),
        ] {
            let whole = body(&[(field, content), (file, other)]);
            let whole = format!("preamble\r\n--X\r\n{whole}epilogue --XyZ\r\n");
            let expected = vec![
                (part("a", None, None), content.as_bytes().to_vec()),
                (part("b", Some("x \"y\".png"), Some("image/png")), other.as_bytes().to_vec()),
            ];
            for piece in 1..=whole.len() {
                assert_eq!(
                    parts(whole.as_bytes(), piece),
                    Ok((expected.clone(), true)),
                    "{content:?}"
                );
            }
        }
        assert_eq!(parts(b"--XyZ--", 1), Ok((Vec::new(), true)));
        assert_eq!(parts(b"--XyZ--", 7), Ok((Vec::new(), true)));
        let padded = "--XyZ \t\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--XyZ--";
        assert_eq!(parts(padded.as_bytes(), 9).unwrap().0[0].1, b"x");
        for cut in ["", "--XyZ", "--XyZ\r\n", "XyZ", &padded[..50], &padded[..padded.len() - 1]] {
            assert!(!parts(cut.as_bytes(), 5).unwrap().1, "{cut:?}");
        }
    }

    /// RFC 2046 section 5.1.1: no line of a part's content may begin as a delimiter's does.
    #[test]
    fn a_delimiter_right_behind_a_head_ends_a_part_without_content() {
        let field =
            |name: &str| format!("--XyZ\r\nContent-Disposition: form-data; name={name}\r\n");
        let [a, b] = ["a", "b"].map(|name| part(name, None, None));
        for (content, expected) in
            [("", ""), ("\r\n1", "1"), ("\r\n--XyY", "--XyY"), ("\r\n\r", "\r")]
        {
            let whole =
                format!("{}\r\n{}{content}\r\n{}\r\n--XyZ--", field("a"), field("b"), field("a"));
            let contents = [(&a, ""), (&b, expected), (&a, "")];
            let expected = contents.map(|(part, text)| (part.clone(), text.as_bytes().to_vec()));
            for piece in 1..=whole.len() {
                let parts = parts(whole.as_bytes(), piece);
                assert_eq!(parts, Ok((expected.to_vec(), true)), "{content:?} {piece}");
            }
        }
    }

    #[test]
    fn names_that_end_in_a_backslash() {
        for (value, expected) in [("a\\", "a\\"), ("a\\\"b\\", "a\"b\\"), ("\\", "\\")] {
            for rest in ["", "; x=y", " "] {
                let head =
                    format!("Content-Disposition: form-data; name=n; filename=\"{value}\"{rest}");
                let found = parts(body(&[(&head, "x")]).as_bytes(), 9).unwrap().0;
                assert_eq!(found[0].0, part("n", Some(expected), None), "{head}");
            }
        }
    }

    #[test]
    fn bodies_that_are_refused() {
        use MultipartFault::{HeadTooLarge, Malformed, TooManyParts};
        let field = "Content-Disposition: form-data; name=a";
        let long = format!("{field}\r\nX: {}", "y".repeat(200));
        let cases = [
            (body(&[("Content-Type: text/plain", "x")]), Malformed),
            (body(&[("Content-Disposition: form-data", "x")]), Malformed),
            (body(&[("Content-Disposition: attachment; name=a", "x")]), Malformed),
            (body(&[("Content-Disposition: form-data; name=\"a", "x")]), Malformed),
            (body(&[("Content-Disposition: form-data; name=a; name=b", "x")]), Malformed),
            (body(&[("Content-Disposition: form-data; name=a b", "x")]), Malformed),
            (body(&[(&format!("{field}\r\n{field}"), "x")]), Malformed),
            (body(&[(&format!("{field}\r\nContent-Transfer-Encoding: base64"), "x")]), Malformed),
            (body(&[("no line", "x")]), Malformed),
            (body(&[(&format!("{field}\nX: y"), "x")]), Malformed),
            ("--XyZ\r\n\r\nx\r\n--XyZ--".into(), Malformed),
            ("--XyZ\nx".into(), Malformed),
            ("--XyZx".into(), Malformed),
            ("--XyZ-x".into(), Malformed),
            (body(&[(&long, "x")]), HeadTooLarge),
            (format!("--XyZ{}", " ".repeat(300)), HeadTooLarge),
            (body(&[(field, "x"); 4]), TooManyParts),
        ];
        for (body, fault) in cases {
            for piece in [1, 7, 1_000] {
                assert_eq!(parts(body.as_bytes(), piece), Err(fault), "{body:?}");
            }
        }
        assert!(parts(body(&[(field, "x"); 3]).as_bytes(), 9).is_ok());
    }

    #[test]
    fn a_boundary_is_needed_and_is_one() {
        for good in [
            "multipart/form-data; boundary=a",
            "Multipart/Form-Data;charset=utf-8; Boundary=\"a b\"",
            "multipart/form-data; boundary=----WebKitFormBoundaryAbC123",
        ] {
            assert!(MultipartReader::new(good, LIMITS).is_some(), "{good:?}");
        }
        for bad in [
            "multipart/form-data",
            "multipart/mixed; boundary=a",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a ",
            "multipart/form-data; boundary=\"a \"",
            "multipart/form-data; boundary=\"a\u{e9}\"",
            "multipart/form-data; boundary=a; boundary=b",
            &format!("multipart/form-data; boundary={}", "a".repeat(71)),
        ] {
            assert!(MultipartReader::new(bad, LIMITS).is_none(), "{bad:?}");
        }
    }
}
