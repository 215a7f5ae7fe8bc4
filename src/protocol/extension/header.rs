//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455 section 9.1).

use crate::protocol::header_lines::HeaderLines;
use crate::protocol::token::is_token;

/// Names, and the values of those that have one.
pub(crate) type Parameters = Vec<(String, Option<String>)>;

/// One extension that a client offers, with its parameters in the order they were sent.
///
/// A client may offer the same extension several times, with other parameters: each is an offer of
/// its own, and the first that is accepted counts.
///
/// ```
/// use wirewheel::extension::ExtensionOffer;
/// /// Whether nothing is asked for that is not known.
/// fn is_understood(offer: &ExtensionOffer) -> bool {
///     offer.name() == "x-seal" && offer.parameters().all(|(name, _value)| name == "key")
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionOffer {
    name: String,
    parameters: Parameters,
}

impl ExtensionOffer {
    /// The name, as it was sent.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every parameter: its name, and its value if it has one (unquoted).
    pub fn parameters(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// The first parameter of that name: `None` if there is none, `Some(None)` if it has no value.
    ///
    /// ```
    /// use wirewheel::extension::ExtensionOffer;
    /// fn depth(offer: &ExtensionOffer) -> Option<u8> {
    ///     offer.parameter("depth")??.parse().ok() // `colormode; depth=16`
    /// }
    /// ```
    pub fn parameter(&self, name: &str) -> Option<Option<&str>> {
        self.parameters().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// What a client's factory offers.
///
/// ```
/// use wirewheel::extension::ExtensionOffer;
/// let offer = ExtensionOffer::new("x-seal").with("key", "7").flag("strict"); // x-seal; key=7; strict
/// assert_eq!(offer.parameter("key"), Some(Some("7")));
/// ```
#[cfg(feature = "client")]
impl ExtensionOffer {
    /// An offer without parameters.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), parameters: Vec::new() }
    }

    /// Adds a parameter with a value. Both must be tokens; else the extension is not offered.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a parameter without a value.
    #[must_use]
    pub fn flag(mut self, name: impl Into<String>) -> Self {
        self.parameters.push((name.into(), None));
        self
    }

    /// Adds it to a header value; false if a name or value is no token.
    pub(crate) fn append(&self, out: &mut String) -> bool {
        append_agreed(out, &self.name, &self.parameters)
    }
}

/// All extensions that a head names, of all its header lines in order; `None` if one is malformed, on which
/// RFC 6455 section 9.1 fails the handshake.
pub(crate) fn offered_extensions(head: &HeaderLines) -> Option<Vec<ExtensionOffer>> {
    let mut offers = Vec::new();
    for line in head.all("sec-websocket-extensions") {
        let mut rest = Scanner(line);
        while rest.next_element() {
            offers.push(rest.offer()?);
        }
    }
    Some(offers)
}

/// Adds an agreed extension to the answer's header value; false if a name or value is no token.
pub(crate) fn append_agreed(
    out: &mut String,
    name: &str,
    parameters: &[(String, Option<String>)],
) -> bool {
    let words = parameters.iter().flat_map(|(name, value)| [Some(name), value.as_ref()]).flatten();
    if !is_token(name) || !words.into_iter().all(|word| is_token(word)) {
        return false;
    }
    if !out.is_empty() {
        out.push_str(", ");
    }
    out.push_str(name);
    for (name, value) in parameters {
        out.push_str("; ");
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(value);
        }
    }
    true
}

/// The rest of a header value.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    /// Passes over what separates the elements of a list, empty elements included (RFC 9110 section
    /// 5.6.1); whether there is one more.
    fn next_element(&mut self) -> bool {
        self.0 = self.0.trim_start_matches([' ', '\t', ',']);
        !self.0.is_empty()
    }

    /// One element, with the separator behind it.
    fn offer(&mut self) -> Option<ExtensionOffer> {
        let name = self.token()?.to_owned();
        let mut parameters = Vec::new();
        while self.eat(';') {
            let name = self.token()?.to_owned();
            let value = if self.eat('=') { Some(self.value()?) } else { None };
            parameters.push((name, value));
        }
        let ended = self.0.is_empty() || self.0.starts_with(',');
        ended.then_some(ExtensionOffer { name, parameters })
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, symbol: char) -> bool {
        let rest = self.0.strip_prefix(symbol);
        self.0 = rest.unwrap_or(self.0);
        self.skip_space();
        rest.is_some()
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.0.find([' ', '\t', ';', ',', '=', '"']).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        self.skip_space();
        is_token(token).then_some(token)
    }

    /// A token, or a quoted string that holds one: "the value after quoted-string unescaping MUST
    /// conform to the 'token' ABNF".
    fn value(&mut self) -> Option<String> {
        let Some(quoted) = self.0.strip_prefix('"') else { return self.token().map(str::to_owned) };
        let mut value = String::new();
        let mut letters = quoted.chars();
        loop {
            match letters.next()? {
                '"' => break,
                '\\' => value.push(letters.next()?),
                letter => value.push(letter),
            }
        }
        self.0 = letters.as_str();
        self.skip_space();
        is_token(&value).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::head::tests::head;
    use proptest::prelude::*;

    fn offers(lines: &[&str]) -> Option<Vec<String>> {
        let mut request = "GET / HTTP/1.1\r\nHost: h\r\n".to_owned();
        for line in lines {
            request.push_str(&format!("Sec-WebSocket-Extensions: {line}\r\n"));
        }
        let offers = offered_extensions(&head(&format!("{request}\r\n")))?;
        let written = offers.iter().map(|offer| {
            let mut out = String::new();
            assert!(append_agreed(&mut out, &offer.name, &offer.parameters));
            out
        });
        Some(written.collect())
    }

    #[test]
    fn a8_the_header_of_ktors_test() {
        let expected = ["superspeed".to_owned(), "colormode; depth=16".to_owned()];
        assert_eq!(offers(&["superspeed, colormode; depth=16"]), Some(expected.to_vec()));
    }

    #[test]
    fn what_the_grammar_takes() {
        for (lines, expected) in [
            (&["a;b;c=1"][..], &["a; b; c=1"][..]),
            (&["a ; b = 1 ,\tc"], &["a; b=1", "c"]),
            (&["a; b=\"1\"; c=\"\\2\\3\""], &["a; b=1; c=23"]),
            (&["a", "b", "a; x"], &["a", "b", "a; x"]),
            (&[",a,,b,"], &["a", "b"]),
            (&["x; y=\"1\",z"], &["x; y=1", "z"]),
            (&[""], &[]),
            (&[], &[]),
        ] {
            let expected: Vec<String> = expected.iter().map(|&offer| offer.to_owned()).collect();
            assert_eq!(offers(lines), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn what_the_grammar_refuses() {
        for line in [
            "a b",
            "a;",
            "a;;b",
            "a; =1",
            "a; b=",
            "a; b=\"\"",
            "a; b=\"1",
            "a; b=\"1 2\"",
            "a; b=\"1\\",
            "a; b=1 2",
            "(a)",
            "=",
            "a; b=\"1\"2",
            "a/b",
            "a; b==1",
            "é",
        ] {
            assert_eq!(offers(&["fine", line]), None, "{line:?}");
        }
    }

    #[test]
    fn an_answer_that_is_no_token_is_not_written() {
        let mut out = "a".to_owned();
        assert!(!append_agreed(&mut out, "b", &[("c".into(), Some("1, d".into()))]));
        assert!(!append_agreed(&mut out, "b c", &[]));
        assert_eq!(out, "a");
    }

    proptest! {
        /// What is taken is tokens throughout, so that it can be written and is read back the same.
        #[test]
        fn whatever_is_taken_can_be_written_and_read_back(line in "[ab;,= \\\\\"\t]{0,24}") {
            if let Some(written) = offers(&[&line]) {
                prop_assert_eq!(offers(&[&written.join(", ")]), Some(written));
            }
        }
    }
}
