//! The lines of a program's output, cut into messages.

use wirewheel::Message;
use wirewheel::message::ToMessage;

/// What happens to a line that is longer than `--max-line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LongLine {
    /// It is sent in pieces.
    Split,
    /// Its beginning is sent, the rest is passed over.
    Cut,
    /// Its session ends with 1009.
    Close,
}

/// How output becomes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineOptions {
    /// The longest line, in bytes, without its end.
    pub(crate) max: usize,
    pub(crate) long: LongLine,
    /// A line that is not UTF-8 is a binary message, instead of a text with U+FFFD in it.
    pub(crate) binary: bool,
}

impl LineOptions {
    /// The room for a line as a message: each byte of it that is no UTF-8 is sent as three, and a flow counts
    /// something beside it.
    pub(crate) fn largest_message(&self) -> usize {
        self.max.saturating_mul(4)
    }
}

/// A line as a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Text(String),
    Binary(Vec<u8>),
}

impl ToMessage for Line {
    fn to_message(&self, take: &mut dyn FnMut(Message<'_>)) {
        match self {
            Self::Text(text) => take(text.into()),
            Self::Binary(bytes) => take(bytes.into()),
        }
    }
}

/// Something about a line that whoever runs the hub should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oddity {
    TooLong,
    NotUtf8,
}

/// Cuts output at its line ends, and lines that are too long.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// A line so far, without its end.
    partial: Vec<u8>,
    /// The rest of the line is passed over.
    skipping: bool,
    /// The last line may be without its end.
    is_over: bool,
}

/// A line is too long for its session to go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Cutter {
    /// The next line of the output that is given, which loses what was taken of it; none if more is needed.
    /// What is odd about it is noted.
    pub(crate) fn next(
        &mut self,
        output: &mut &[u8],
        options: &LineOptions,
        note: &mut dyn FnMut(Oddity),
    ) -> Result<Option<Line>, TooLong> {
        loop {
            if self.partial.len() > options.max {
                note(Oddity::TooLong);
                let rest = self.partial.split_off(character_end(&self.partial, options.max));
                let first = std::mem::take(&mut self.partial);
                match options.long {
                    LongLine::Close => return Err(TooLong),
                    LongLine::Split => self.partial = rest,
                    LongLine::Cut => self.skipping = true,
                }
                return Ok(Some(line(first, options, note)));
            }
            let is_end = if let Some(rest) = output.strip_prefix(b"\n") {
                *output = rest;
                !std::mem::take(&mut self.skipping)
            } else if output.is_empty() {
                if !self.is_over || self.partial.is_empty() {
                    return Ok(None);
                }
                true
            } else {
                let length = output.iter().position(|byte| *byte == b'\n');
                let (text, rest) = output.split_at(length.unwrap_or(output.len()));
                *output = rest;
                if !self.skipping {
                    self.partial.extend_from_slice(text);
                }
                false
            };
            if is_end {
                return Ok(Some(line(std::mem::take(&mut self.partial), options, note)));
            }
        }
    }

    /// There is no more output.
    pub(crate) fn end(&mut self) {
        self.is_over = true;
    }
}

fn line(bytes: Vec<u8>, options: &LineOptions, note: &mut dyn FnMut(Oddity)) -> Line {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Line::Text(text),
        Err(error) => error,
    };
    note(Oddity::NotUtf8);
    match options.binary {
        true => Line::Binary(error.into_bytes()),
        false => Line::Text(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// The largest place up to `limit` that is not within a UTF-8 character; `limit` itself where the
/// bytes are no such text.
fn character_end(bytes: &[u8], limit: usize) -> usize {
    let is_within = |place: &usize| bytes.get(*place).is_some_and(|byte| byte & 0xc0 == 0x80);
    let nearest = (limit.saturating_sub(3)..=limit).rev().find(|place| !is_within(place));
    nearest.filter(|place| *place > 0).unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages that output becomes, given in chunks of every size.
    fn cut(output: &[u8], options: LineOptions) -> (Vec<Line>, Vec<Oddity>, bool) {
        let cut_by = |size: usize| {
            let (mut cutter, mut lines, mut odd) = (Cutter::default(), Vec::new(), Vec::new());
            let mut take = |cutter: &mut Cutter, mut chunk: &[u8]| loop {
                match cutter.next(&mut chunk, &options, &mut |it| odd.push(it)) {
                    Ok(Some(line)) => lines.push(line),
                    Ok(None) => return true,
                    Err(TooLong) => return false,
                }
            };
            let mut going = output.chunks(size).all(|chunk| take(&mut cutter, chunk));
            if going {
                cutter.end();
                going = take(&mut cutter, b"");
            }
            (lines, odd, going)
        };
        let whole = cut_by(output.len().max(1));
        for size in 1..=output.len() {
            assert_eq!(cut_by(size), whole, "in chunks of {size}");
        }
        whole
    }

    fn texts(texts: &[&str]) -> Vec<Line> {
        texts.iter().map(|text| Line::Text((*text).to_owned())).collect()
    }

    const SPLIT: LineOptions = LineOptions { max: 5, long: LongLine::Split, binary: false };

    #[test]
    fn lines_are_messages_whatever_the_chunks_are() {
        assert_eq!(cut(b"one\n\ntwo\nend", SPLIT).0, texts(&["one", "", "two", "end"]));
        assert_eq!(cut(b"12345\n", SPLIT), (texts(&["12345"]), vec![], true));
        assert_eq!(cut(b"", SPLIT).0, texts(&[]));
    }

    #[test]
    fn a_long_line_is_split_between_characters_and_stays_text() {
        let (lines, odd, _) = cut("ééé€\n".as_bytes(), SPLIT);
        assert_eq!((lines, odd), (texts(&["éé", "é€"]), vec![Oddity::TooLong]));
        let four = LineOptions { max: 4, ..SPLIT };
        assert_eq!(cut("🦀🦀\n".as_bytes(), four).0, texts(&["🦀", "🦀"]));
        // No character fits: nothing is right, and it ends.
        let one = LineOptions { max: 1, binary: true, ..SPLIT };
        assert_eq!(cut("é\n".as_bytes(), one).0.len(), 2);
    }

    #[test]
    fn a_long_line_is_cut_or_ends_the_session_if_that_is_wanted() {
        let cutting = LineOptions { long: LongLine::Cut, ..SPLIT };
        assert_eq!(cut(b"123456789abcdef\nnext\n", cutting).0, texts(&["12345", "next"]));
        assert_eq!(cut(b"123456789", cutting).0, texts(&["12345"]));
        let closing = LineOptions { long: LongLine::Close, ..SPLIT };
        assert_eq!(cut(b"a\n123456\nb\n", closing), (texts(&["a"]), vec![Oddity::TooLong], false));
    }

    #[test]
    fn what_is_not_utf8_is_text_unless_binary_messages_are_wanted() {
        let (lines, odd, _) = cut(b"a\xff\n", SPLIT);
        assert_eq!((lines, odd), (texts(&["a\u{fffd}"]), vec![Oddity::NotUtf8]));
        let binary = LineOptions { binary: true, ..SPLIT };
        let expected = vec![Line::Binary(vec![b'a', 0xff]), Line::Text("b".into())];
        assert_eq!(cut(b"a\xff\nb\n", binary).0, expected);
    }
}
