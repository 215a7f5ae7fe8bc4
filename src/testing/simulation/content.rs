//! Owns what the messages of a simulation say: a letter for where they come from, a number, and a text
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

/// No start is longer.
pub(crate) const START_BYTES: usize = 10;

/// The start of a message.
pub(crate) fn start(from: u8, number: usize) -> String {
    format!("{}{number}:", char::from(from))
}

/// What follows the start: one letter, words, or what no compressor makes smaller by much.
pub(crate) fn text(number: usize, range: Range<usize>) -> impl Iterator<Item = char> {
    range.map(move |at| character(number, at))
}

/// A whole message.
pub(crate) fn message(from: u8, number: usize, len: usize) -> String {
    let mut message = start(from, number);
    message.extend(text(number, 0..len));
    message
}

fn character(number: usize, at: usize) -> char {
    const WORDS: &[u8] = b"a text that repeats itself, ";
    let byte = match number % 3 {
        0 => b'x',
        1 => WORDS[at % WORDS.len()],
        _ => b' ' + u8::try_from((mixed(number as u64, at as u64) >> 32) % 95).unwrap_or(0),
    };
    char::from(byte)
}

/// Where a message comes from and its number, if it is what was sent.
pub(crate) fn read(message: &[u8]) -> Option<(u8, usize)> {
    let (&from, rest) = message.split_first()?;
    let digits = rest.iter().position(|&byte| byte == b':')?;
    let number: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let body = &rest[digits + 1..];
    let holds = text(number, 0..body.len()).eq(body.iter().copied().map(char::from));
    holds.then_some((from, number))
}
