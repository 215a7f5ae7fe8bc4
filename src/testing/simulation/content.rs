//! What the messages of a simulation say: a letter for where they come from, a number, and a text
//! that follows from the number, so that whoever gets one can tell whether it is whole.

use std::ops::Range;

use crate::words::mix::mixed;

/// From a session, in the order of its sends.
pub(crate) const FROM_SESSION: u8 = b's';
/// From a client, plain and compressed.
pub(crate) const FROM_CLIENT: u8 = b'c';
pub(crate) const FROM_CLIENT_PACKED: u8 = b'z';
/// From the flow.
pub(crate) const FROM_FLOW: u8 = b'f';
/// From another session; its number says nothing of an order.
pub(crate) const FROM_OTHER: u8 = b'd';

/// From the flow of news, of which each message replaces the one before with the same key.
#[cfg(feature = "client")]
pub(crate) const FROM_NEWS: u8 = b'n';
/// The keys of the news: a number is for the key that it leaves as a remainder.
pub(crate) const NEWS_KEYS: usize = 4;

/// No start is longer.
pub(crate) const START_BYTES: usize = 10;

/// The start of a message.
pub(crate) fn start(from: u8, number: usize) -> String {
    format!("{}{number}:", char::from(from))
}

/// What follows the start, from one place of it to another: one letter, words, or what no compressor
/// makes smaller by much.
pub(crate) fn text(number: usize, range: Range<usize>) -> String {
    const WORDS: &str = "a text that repeats itself, ";
    match number % 3 {
        0 => "x".repeat(range.len()),
        1 => piece_of(WORDS, range),
        _ => NOISE.with(|noise| {
            let from = usize::try_from(mixed(number as u64, 0)).unwrap_or(number) % noise.len();
            piece_of(noise, from + range.start..from + range.end)
        }),
    }
}

thread_local! {
    /// Longer than any compressor looks back.
    static NOISE: String = (0..70_001).map(noise_at).collect();
}

fn noise_at(at: u64) -> char {
    char::from(b' ' + u8::try_from((mixed(at, 0) >> 32) % 95).unwrap_or(0))
}

/// Of these letters, which begin anew whenever they end.
fn piece_of(letters: &str, range: Range<usize>) -> String {
    let (mut piece, mut at) = (String::with_capacity(range.len()), range.start % letters.len());
    while piece.len() < range.len() {
        let rest = letters.get(at..).unwrap_or_default();
        piece.push_str(rest.get(..range.len() - piece.len()).unwrap_or(rest));
        at = 0;
    }
    piece
}

/// A whole message.
pub(crate) fn message(from: u8, number: usize, len: usize) -> String {
    let mut message = start(from, number);
    message.push_str(&text(number, 0..len));
    message
}

/// What a binary message was before it became the data of an event; text stays as it is.
pub(crate) fn from_event(data: &str) -> Vec<u8> {
    if read(data.as_bytes()).is_some() {
        return data.as_bytes().to_vec();
    }
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = data.bytes().filter(|letter| *letter != b'=').map(value).collect();
    let bytes = letters.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0u32, |bits, six| bits << 6 | u32::from(*six));
        let [_, a, b, c] = (bits << (6 * (4 - four.len()))).to_be_bytes();
        [a, b, c].into_iter().take(four.len() - 1)
    });
    bytes.collect()
}

/// Where a message comes from and its number, if it is what was sent.
pub(crate) fn read(message: &[u8]) -> Option<(u8, usize)> {
    let (&from, rest) = message.split_first()?;
    let digits = rest.iter().position(|&byte| byte == b':')?;
    let number: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let body = &rest[digits + 1..];
    (text(number, 0..body.len()).as_bytes() == body).then_some((from, number))
}
