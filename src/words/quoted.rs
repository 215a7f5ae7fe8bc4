//! What a peer wrote, in a form that people can be shown.

use std::fmt;

/// A text in quotes: escaped, so that it stays on its line, and not endless.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

/// The most bytes that are shown.
const SHOWN_MAX: usize = 120;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_on_its_line_and_ends() {
        assert_eq!(Quoted("a\r\nb\u{1b}[2J").to_string(), r#""a\r\nb\u{1b}[2J""#);
        let long = Quoted(&"\u{e9}".repeat(500)).to_string();
        assert!(long.ends_with("\"..") && long.len() < 200, "{long}");
    }
}
