//! The header lines of a head, kept compactly and looked up by name (RFC 9110 section 5).

use std::borrow::Cow;
use std::ops::Range;

/// The lines of a head, in their order.
#[derive(Debug)]
pub(crate) struct HeaderLines {
    /// What stands before the lines, and the lines, one after the other.
    text: Box<str>,
    lines: Box<[Line]>,
    /// The values that are no UTF-8, by the numbers of their lines, in order. In `text` such a value
    /// stands with a replacement character for what is none, which is part of no token, number or
    /// address: whatever looks at it finds it wrong there, and right of a comma what it is.
    opaque: Box<[(u32, Box<[u8]>)]>,
    /// A bit for each length that a name has.
    name_lengths: u64,
}

#[derive(Debug)]
struct Line {
    name: Range<u32>,
    value: Range<u32>,
}

impl HeaderLines {
    fn new(text: String, lines: Vec<Line>, opaque: Vec<(u32, Box<[u8]>)>) -> Self {
        let lengths = lines.iter().map(|line| length_bit(line.name.len()));
        let name_lengths = lengths.fold(0, |all, length| all | length);
        Self { text: text.into(), lines: lines.into(), opaque: opaque.into(), name_lengths }
    }

    #[inline]
    pub(super) fn slice(&self, range: &Range<u32>) -> &str {
        self.text.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Bytes of memory that they take.
    pub(crate) fn memory(&self) -> usize {
        let opaque = self.opaque.iter().map(|(_, bytes)| bytes.len().saturating_add(24));
        let lines = self.lines.len().saturating_mul(size_of::<Line>());
        opaque.fold(self.text.len().saturating_add(lines), usize::saturating_add)
    }

    /// Every header line in order.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().map(|line| (self.slice(&line.name), self.slice(&line.value)))
    }

    /// The lines of that name, with their numbers, in order.
    #[inline]
    fn named(&self, name: &str) -> impl Iterator<Item = (usize, &Line)> {
        let lines = if self.may_have(name) { self.lines.iter() } else { [].iter() };
        // The length, which is known, rules out nearly every name.
        let of_length = move |(_, line): &(usize, &Line)| line.name.len() == name.len();
        let lines = lines.enumerate().filter(of_length);
        lines.filter(move |(_, line)| self.slice(&line.name).eq_ignore_ascii_case(name))
    }

    /// The values of every line of that name, in order.
    #[inline]
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.named(name).map(|(_, line)| self.slice(&line.value))
    }

    /// The value of the first line of that name.
    #[inline]
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        if self.may_have(name) { self.all(name).next() } else { None }
    }

    /// Most names that are asked for stand nowhere, and no name has their length.
    #[inline]
    fn may_have(&self, name: &str) -> bool {
        self.name_lengths & length_bit(name.len()) != 0
    }

    /// The value of a line by its number.
    pub(super) fn value(&self, number: u32) -> Option<&str> {
        self.lines.get(number as usize).map(|line| self.slice(&line.value))
    }

    /// The values of every line of that name as they were sent, whether they are UTF-8 or not.
    pub(crate) fn all_bytes(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.named(name).map(|(number, line)| self.bytes_of(number, line))
    }

    fn bytes_of(&self, number: usize, line: &Line) -> &[u8] {
        let place = self.opaque.binary_search_by_key(&number, |(known, _)| *known as usize);
        match place.ok().and_then(|place| self.opaque.get(place)) {
            Some((_, bytes)) => bytes,
            None => self.slice(&line.value).as_bytes(),
        }
    }

    /// The members of a list header, of all its lines (RFC 9110 sections 5.3 and 5.6.1).
    pub(crate) fn tokens<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(|token| token.trim_matches([' ', '\t']))
            .filter(|token| !token.is_empty())
    }
}

/// The lines of a head that is kept as it was sent: in one copy, whatever their number.
pub(super) struct LinesAsSent<'a> {
    head: &'a [u8],
    lines: Vec<Line>,
    name_lengths: u64,
    /// Each lies in the head so far.
    complete: bool,
    /// Behind each value so far stands CR LF.
    each_ends: bool,
}

impl<'a> LinesAsSent<'a> {
    pub(super) fn new(head: &'a [u8], lines: usize) -> Self {
        let lines = Vec::with_capacity(lines);
        Self { head, lines, name_lengths: 0, complete: true, each_ends: true }
    }

    #[inline]
    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        self.name_lengths |= length_bit(name.len());
        match (place_in(self.head, name.as_bytes()), place_in(self.head, value)) {
            (Some(name), Some(value)) => {
                self.each_ends &= goes_on_with(self.head, &value, b"\r\n");
                self.lines.push(Line { name, value });
            }
            _ => (self.complete, self.each_ends) = (false, false),
        }
    }

    /// Whether CR LF is known to stand behind each of them.
    pub(super) fn each_ends(&self) -> bool {
        self.each_ends
    }

    /// `None` if one of the values is no text.
    pub(super) fn finish(self) -> Option<HeaderLines> {
        let text = std::str::from_utf8(self.head).ok().filter(|_| self.complete)?;
        let (lines, name_lengths) = (self.lines.into(), self.name_lengths);
        Some(HeaderLines { text: text.into(), lines, opaque: Box::default(), name_lengths })
    }
}

/// Where a part of a head lies in it; `None` if it is none.
#[inline]
pub(super) fn place_in(head: &[u8], part: &[u8]) -> Option<Range<u32>> {
    if part.is_empty() {
        return Some(0..0); // wherever it lies
    }
    // Of what lies before the head, the first is beyond all ends or the second.
    let start = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    let end = start.wrapping_add(part.len());
    if start > end || end > head.len() {
        return None;
    }
    let end = u32::try_from(end).ok()?;
    #[allow(clippy::cast_possible_truncation, reason = "it is not behind the end")]
    Some(start as u32..end)
}

/// Whether this stands right behind a part of a head that is not empty.
#[inline]
pub(super) fn goes_on_with(head: &[u8], part: &Range<u32>, then: &[u8]) -> bool {
    !part.is_empty() && head.get(part.end as usize..).is_some_and(|rest| rest.starts_with(then))
}

#[inline]
fn length_bit(length: usize) -> u64 {
    1 << (length % 64)
}

/// Lines while they are gathered.
pub(super) struct LinesBuilder {
    text: Vec<u8>,
    lines: Vec<Line>,
}

impl LinesBuilder {
    /// With room for so many bytes and lines.
    pub(super) fn new(bytes: usize, lines: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), lines: Vec::with_capacity(lines) }
    }

    /// Adds a piece of text that is part of no line.
    #[inline]
    pub(super) fn append(&mut self, piece: &[u8]) -> Range<u32> {
        // Invariant: a head is far shorter than 4 GiB: max_head_bytes is at most 1 GiB.
        let start = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.text.extend_from_slice(piece);
        start..u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        let line = Line { name: self.append(name.as_bytes()), value: self.append(value) };
        self.lines.push(line);
    }

    /// The whole as text; `None` if what is part of no line is none. RFC 9110 section 5.5: "A recipient
    /// SHOULD treat other allowed octets in field content (i.e., obs-text) as opaque data". Most heads
    /// have none. Values stand between names, which are ASCII: the whole is UTF-8 exactly if each of them
    /// is.
    pub(super) fn finish(self) -> Option<HeaderLines> {
        let Self { text, lines } = self;
        match String::from_utf8(text) {
            Ok(text) => Some(HeaderLines::new(text, lines, Vec::new())),
            Err(error) => Self { text: error.into_bytes(), lines }.finish_in_part(),
        }
    }

    #[cold]
    fn finish_in_part(self) -> Option<HeaderLines> {
        let bytes_at = |range: &Range<u32>| {
            self.text.get(range.start as usize..range.end as usize).unwrap_or_default()
        };
        let start_len = self.lines.first().map_or(self.text.len(), |line| line.name.start as usize);
        let mut readable = Self::new(self.text.len(), self.lines.len());
        readable.append(self.text.get(..start_len).unwrap_or_default());
        let mut opaque = Vec::new();
        for (line, number) in self.lines.iter().zip(0..) {
            let (name, value) = (bytes_at(&line.name), bytes_at(&line.value));
            let shown = String::from_utf8_lossy(value);
            if let Cow::Owned(_) = shown {
                opaque.push((number, value.into()));
            }
            readable.push(std::str::from_utf8(name).ok()?, shown.as_bytes());
        }
        let text = String::from_utf8(readable.text).ok()?;
        Some(HeaderLines::new(text, readable.lines, opaque))
    }
}
