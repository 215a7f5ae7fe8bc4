//! The conditions of a request: whether it is served at all, and whether its range is (RFC 9110 section 13).

use std::time::Duration;

use crate::protocol::date::parse_http_date;
use crate::protocol::header_lines::HeaderLines;

/// The headers of section 13.1.
const CONDITIONS: [&str; 5] =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"];

/// Whether there is any condition to be judged.
pub(crate) fn has_conditions(head: &HeaderLines) -> bool {
    CONDITIONS.iter().any(|name| head.first(name).is_some())
}

/// What tells one version of a representation from another (RFC 9110 section 8.8).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Validators<'a> {
    /// As it stands in `ETag`, with its quotes and perhaps `W/`.
    pub(crate) etag: Option<&'a str>,
    /// As it stands in `Last-Modified`.
    pub(crate) modified: Option<Duration>,
    /// Nothing was changed a second time within the second of that date (section 8.8.2.2).
    pub(crate) date_is_strong: bool,
}

/// What the conditions of a GET or HEAD come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    Met,
    /// 304
    NotModified,
    /// 412
    Failed,
}

impl Validators<'_> {
    /// Judges the conditions of a GET or HEAD, in the order of section 13.2.2.
    pub(crate) fn precondition(&self, head: &HeaderLines) -> Precondition {
        if head.first("if-match").is_some() {
            if !self.is_in(head, "if-match", is_strongly_equal) {
                return Precondition::Failed;
            }
        } else if self.modified > date(head, "if-unmodified-since").or(self.modified) {
            return Precondition::Failed;
        }
        // Section 13.1.3: "MUST ignore If-Modified-Since if the request contains an If-None-Match".
        if head.first("if-none-match").is_some() {
            if self.is_in(head, "if-none-match", is_weakly_equal) {
                return Precondition::NotModified;
            }
        } else if self.modified.is_some() && self.modified <= date(head, "if-modified-since") {
            return Precondition::NotModified;
        }
        Precondition::Met
    }

    /// Whether `Range` counts: there is no `If-Range`, or it names this version (section 13.1.5).
    pub(crate) fn range_counts(&self, head: &HeaderLines) -> bool {
        match head.first("if-range") {
            None => true,
            Some(tag) if tag.contains('"') => {
                self.etag.is_some_and(|etag| is_strongly_equal(etag, tag))
            }
            // "A client MUST NOT generate an If-Range header field containing an HTTP-date in which ..
            // the date is not a strong validator": to be the same date is not enough.
            Some(text) => {
                self.date_is_strong
                    && self.modified.is_some()
                    && self.modified == parse_http_date(text)
            }
        }
    }

    /// Whether a list of entity tags names this version; `*` names any.
    fn is_in(&self, head: &HeaderLines, name: &str, equal: fn(&str, &str) -> bool) -> bool {
        head.all(name).any(|value| {
            let mut tags = EntityTags(value);
            value == "*"
                || self.etag.is_some_and(|etag| tags.any(|theirs: &str| equal(etag, theirs)))
        })
    }
}

/// The entity tags of a list: `"a", W/"b"`. A comma may be part of one. It ends where it is malformed.
struct EntityTags<'a>(&'a str);

impl<'a> Iterator for EntityTags<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches([' ', '\t', ',']);
        let opaque = text.strip_prefix("W/").unwrap_or(text);
        let inner = opaque.strip_prefix('"')?;
        let (inner, rest) = inner.split_once('"')?;
        self.0 = rest;
        let length = text.len().saturating_sub(opaque.len()).saturating_add(inner.len());
        text.get(..length.saturating_add(2))
    }
}

/// Section 8.8.3.2.
fn is_strongly_equal(ours: &str, theirs: &str) -> bool {
    !ours.starts_with("W/") && ours == theirs
}

fn is_weakly_equal(ours: &str, theirs: &str) -> bool {
    let opaque = |tag| str::strip_prefix(tag, "W/").unwrap_or(tag);
    opaque(ours) == opaque(theirs)
}

/// The date of a header; what is no date, or several, is ignored (sections 13.1.3 and 13.1.4).
fn date(head: &HeaderLines, name: &str) -> Option<Duration> {
    let mut lines = head.all(name);
    let first = lines.next()?;
    lines.next().is_none().then(|| parse_http_date(first))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::head::tests::head;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators(etag: Option<&str>) -> Validators<'_> {
        Validators { etag, modified: parse_http_date(DATE), date_is_strong: true }
    }

    fn of(validators: Validators<'_>, lines: &str) -> Precondition {
        let lines = lines.replace('\n', "\r\n");
        validators.precondition(&head(&format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n")))
    }

    #[test]
    fn tags_are_compared_as_each_condition_wants() {
        use Precondition::{Failed, Met, NotModified};
        let (strong, weak) = (validators(Some("\"a\"")), validators(Some("W/\"a\"")));
        for (lines, of_strong, of_weak) in [
            ("If-Match: \"a\"", Met, Failed),
            ("If-Match: W/\"a\"", Failed, Failed),
            ("If-Match: \"b\"", Failed, Failed),
            ("If-Match: *", Met, Met),
            ("If-Match: \"b\", \"a\"", Met, Failed),
            ("If-Match: \"b\"\nIf-Match: \"a\"", Met, Failed),
            ("If-Match: \"b,\",\"a\"", Met, Failed),
            ("If-Match: \"a", Failed, Failed),
            ("If-Match: a", Failed, Failed),
            ("If-Match:", Failed, Failed),
            ("If-None-Match: \"a\"", NotModified, NotModified),
            ("If-None-Match: W/\"a\"", NotModified, NotModified),
            ("If-None-Match: \"b\"", Met, Met),
            ("If-None-Match: \"b\" ,, W/\"a\"", NotModified, NotModified),
            ("If-None-Match: \"a,b\", \"c\"", Met, Met),
            ("If-None-Match: *", NotModified, NotModified),
            ("If-None-Match: a", Met, Met),
            ("If-None-Match: w/\"a\"", Met, Met),
            ("If-None-Match: \"A\"", Met, Met),
        ] {
            assert_eq!(of(strong, lines), of_strong, "{lines}");
            assert_eq!(of(weak, lines), of_weak, "{lines}");
        }
        assert_eq!(of(Validators::default(), "If-Match: \"a\""), Failed);
        assert_eq!(of(Validators::default(), "If-None-Match: \"a\""), Met);
        assert_eq!(of(Validators::default(), &format!("If-Modified-Since: {DATE}")), Met);
        assert_eq!(of(Validators::default(), &format!("If-Unmodified-Since: {EARLIER}")), Met);
    }

    #[test]
    fn dates_count_where_no_tag_does() {
        use Precondition::{Failed, Met, NotModified};
        for (since, unmodified, modified) in [
            (EARLIER, Failed, Met),
            (DATE, Met, NotModified),
            (LATER, Met, NotModified),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Met, NotModified),
            ("Sun Nov  6 08:49:37 1994", Met, NotModified),
            ("yesterday", Met, Met),
        ] {
            let all = validators(Some("\"a\""));
            assert_eq!(of(all, &format!("If-Unmodified-Since: {since}")), unmodified, "{since}");
            assert_eq!(of(all, &format!("If-Modified-Since: {since}")), modified, "{since}");
            // Section 13.2.2: a tag goes before a date.
            let tags = format!("If-Match: \"a\"\nIf-Unmodified-Since: {since}");
            assert_eq!(of(all, &tags), Met, "{since}");
            let tags = format!("If-None-Match: \"b\"\nIf-Modified-Since: {since}");
            assert_eq!(of(all, &tags), Met, "{since}");
        }
        let both = format!("If-Modified-Since: {DATE}\nIf-Modified-Since: {DATE}");
        assert_eq!(of(validators(None), &both), Met);
        let order = format!("If-Match: \"b\"\nIf-None-Match: \"a\"\nIf-Modified-Since: {DATE}");
        assert_eq!(of(validators(Some("\"a\"")), &order), Failed);
    }

    #[test]
    fn a_range_counts_for_the_version_that_it_was_meant_for() {
        let counts = |validators: Validators<'_>, value: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: h\r\nIf-Range: {value}\r\n\r\n");
            validators.range_counts(&head(&text))
        };
        let strong = validators(Some("\"a\""));
        for (value, expected) in [
            ("\"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            (DATE, true),
            (EARLIER, false),
            (LATER, false),
            ("", false),
            ("*", false),
        ] {
            assert_eq!(counts(strong, value), expected, "{value}");
        }
        assert!(!counts(validators(Some("W/\"a\"")), "W/\"a\""));
        assert!(!counts(Validators { date_is_strong: false, ..strong }, DATE));
        assert!(!counts(Validators { modified: None, ..strong }, "no date"));
        assert!(strong.range_counts(&head("GET / HTTP/1.1\r\nHost: h\r\n\r\n")));
    }
}
