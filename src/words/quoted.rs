//! What a peer wrote, in a form that people can be shown.

use std::borrow::Cow;
use std::fmt;

/// A text in quotes: escaped, so that it stays on its line, and not endless.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

/// The most bytes that are shown.
const SHOWN_MAX: usize = 120;
/// The most bytes of a whole line, which may quote several texts and tell what an application said.
const LINE_MAX: usize = 2_000;

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut end = self.0.len().min(SHOWN_MAX);
        while !self.0.is_char_boundary(end) {
            end -= 1;
        }
        let shown = self.0.get(..end).unwrap_or_default();
        write!(f, "{shown:?}{}", if end < self.0.len() { ".." } else { "" })
    }
}

/// A text that others may have had a part in, as one line of a log: what would begin another, or tell a
/// terminal something, is escaped, and it is not endless. Most texts are that already.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    if text.len() <= LINE_MAX && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut line = String::new();
    for letter in text.chars() {
        if line.len() >= LINE_MAX {
            line.push_str("..");
            break;
        }
        match letter {
            ' '..='~' => line.push(letter),
            // Letters of any writing stay, and what cannot be seen does not.
            _ => line.extend(letter.escape_debug()),
        }
    }
    if line == text { Cow::Borrowed(text) } else { Cow::Owned(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_on_its_line_and_ends() {
        assert_eq!(Quoted("a\r\nb\u{1b}[2J").to_string(), r#""a\r\nb\u{1b}[2J""#);
        let long = Quoted(&"\u{e9}".repeat(500)).to_string();
        assert!(long.ends_with("\"..") && long.len() < 200, "{long}");
    }

    #[test]
    fn a_line_of_a_log_is_one() {
        for text in ["", "a \"b\" 'c' caf\u{e9}", "{\\}"] {
            assert!(matches!(on_one_line(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
        assert_eq!(
            on_one_line("a\nb\r\u{1b}[2J\u{9b}2J\u{85}\u{2028}"),
            "a\\nb\\r\\u{1b}[2J\\u{9b}2J\\u{85}\\u{2028}"
        );
        // What turns the letters behind it round.
        assert_eq!(on_one_line("a\u{202e}b\u{2066}"), "a\\u{202e}b\\u{2066}");
        for letter in ["x", "\u{e9}", "\n"] {
            let long = on_one_line(&letter.repeat(50_000)).into_owned();
            assert!(long.ends_with("..") && (1_000..5_000).contains(&long.len()), "{}", long.len());
        }
    }
}
