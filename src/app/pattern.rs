//! Path patterns: what a route's path may say, and how well it fits a request's path.

use std::borrow::Cow;
use std::cmp::Ordering;

use percent_encoding::percent_decode_str;

use crate::app::foreign_route;

/// A route's path, taken apart (Ktor's `RoutingPath`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `users`; the empty one stands for a slash at the end.
    Constant(String),
    /// `{p}`, `{p?}`, `a{p}b`.
    Parameter { name: String, prefix: String, suffix: String, optional: bool },
    /// `*`
    Wildcard,
    /// `{p...}` or `{...}`
    Tail { name: Option<String> },
}

/// How well a pattern fits: Ktor's quality of each segment in percent, compared from the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    qualities: Vec<u8>,
    /// The parameters in the order of the pattern; a tail is one, with [`BETWEEN_PIECES`] in it.
    pub(crate) parameters: Vec<(String, String)>,
}

/// Between the pieces of a tail, which are one text so that a path of many pieces takes no more memory than
/// one of few: what no decoded path has.
pub(crate) const BETWEEN_PIECES: char = '\0';

impl Fit {
    /// The better fit is greater: the first differing quality decides, else the longer chain.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let first_difference = self.qualities.iter().zip(&other.qualities).find(|(a, b)| a != b);
        first_difference.map_or_else(
            || self.qualities.len().cmp(&other.qualities.len()),
            |(ours, theirs)| ours.cmp(theirs),
        )
    }
}

impl Pattern {
    /// Takes a path apart; the error names the fault.
    pub(crate) fn parse(path: &str) -> Result<Self, String> {
        let fault = |what: &str| format!("bad route path {path:?}: {what}");
        if !path.is_empty() && !path.starts_with('/') {
            return Err(fault(match path.split_once(" /") {
                Some(_) => "it must start with '/', without a method",
                None => "it must start with '/'",
            }));
        }
        let mut segments = Vec::new();
        let mut names = Vec::new();
        let pieces: Vec<&str> = path.split('/').filter(|piece| !piece.is_empty()).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let segment = Segment::parse(piece).map_err(|what| fault(&what))?;
            let last = number + 1 == pieces.len() && !path.ends_with('/');
            match &segment {
                Segment::Parameter { optional: true, .. } if !last => {
                    return Err(fault("an optional parameter may only stand at the end"));
                }
                Segment::Tail { .. } if !last => {
                    return Err(fault("a tail {...} may only stand at the end"));
                }
                _ => {}
            }
            if let Segment::Parameter { name, .. } | Segment::Tail { name: Some(name) } = &segment {
                if names.contains(name) {
                    return Err(fault(&format!("parameter {name:?} stands twice")));
                }
                names.push(name.clone());
            }
            segments.push(segment);
        }
        if path.ends_with('/') && !segments.is_empty() {
            segments.push(Segment::Constant(String::new()));
        }
        Ok(Self { segments })
    }

    /// The path that it fits if it has no parameters and is written without an escape.
    pub(crate) fn as_path(&self) -> Option<String> {
        let mut path = String::new();
        for segment in &self.segments {
            let Segment::Constant(text) = segment else { return None };
            path.push('/');
            path.push_str(text);
        }
        if path.is_empty() {
            path.push('/');
        }
        (!path.contains('%')).then_some(path)
    }

    /// Whether it fits the very paths that another does: all but the names is the same.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.segments.len() == other.segments.len()
            && self
                .segments
                .iter()
                .zip(&other.segments)
                .all(|(ours, theirs)| ours.is_same_as(theirs))
    }

    /// How well it fits the segments of a path; `None` if it does not.
    pub(crate) fn fit(&self, path: &[String]) -> Option<Fit> {
        let mut fit =
            Fit { qualities: Vec::with_capacity(self.segments.len()), parameters: Vec::new() };
        let mut rest = path.iter();
        for segment in &self.segments {
            let quality = match segment {
                Segment::Tail { name } => {
                    if let Some(name) = name {
                        let pieces = rest.by_ref().filter(|piece| !piece.is_empty());
                        fit.parameters.extend(joined(pieces).map(|tail| (name.clone(), tail)));
                    }
                    fit.qualities.push(10);
                    return Some(fit);
                }
                Segment::Parameter { optional: true, .. } if rest.as_slice().is_empty() => 20,
                Segment::Constant(_) | Segment::Wildcard | Segment::Parameter { .. } => {
                    segment.take(rest.next()?, &mut fit.parameters)?
                }
            };
            fit.qualities.push(quality);
        }
        rest.as_slice().is_empty().then_some(fit)
    }
}

impl Segment {
    fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Parameter { prefix, suffix, optional, .. },
                Self::Parameter { prefix: before, suffix: behind, optional: may_miss, .. },
            ) => (prefix, suffix, optional) == (before, behind, may_miss),
            (Self::Tail { .. }, Self::Tail { .. }) => true,
            _ => self == other,
        }
    }

    fn parse(piece: &str) -> Result<Self, String> {
        if let Some(mistake) = foreign_route::mistake(piece) {
            return Err(mistake);
        }
        let Some((prefix, rest)) = piece.split_once('{') else {
            if piece.contains('}') {
                return Err("'}' without '{'".into());
            }
            return Self::constant(piece);
        };
        let Some((inner, suffix)) = rest.split_once('}') else {
            return Err("'{' without '}'".into());
        };
        if let Some(mistake) = inner.contains(':').then(|| foreign_route::name_mistake(inner)) {
            return Err(mistake.unwrap_or_default()); // a regular expression may have braces of its own
        }
        if [prefix, inner, suffix].iter().any(|part| part.contains(['{', '}'])) {
            return Err("a segment holds one parameter at most".into());
        }
        match inner.strip_suffix("...") {
            Some(name) => Self::tail(name, prefix.is_empty() && suffix.is_empty()),
            None => Self::parameter(prefix, inner, suffix),
        }
    }

    /// A segment without a parameter.
    fn constant(piece: &str) -> Result<Self, String> {
        match piece {
            "*" => Ok(Self::Wildcard),
            // As in Ktor, where it may be written as a browser sends it.
            _ if is_well_encoded(piece) => decode(piece)
                .map(|text| Self::Constant(text.into_owned()))
                .ok_or_else(|| format!("{piece:?} stands for bytes that are no text")),
            _ => Ok(Self::Constant(piece.into())),
        }
    }

    /// `{name...}` or, without a name, `{...}`.
    fn tail(name: &str, is_whole_segment: bool) -> Result<Self, String> {
        if !is_whole_segment {
            return Err("a tail {...} takes a whole segment".into());
        }
        if name.is_empty() {
            return Ok(Self::Tail { name: None });
        }
        foreign_route::name_mistake(name)
            .map_or_else(|| Ok(Self::Tail { name: Some(name.into()) }), Err)
    }

    /// `{inner}` between a prefix and a suffix.
    fn parameter(prefix: &str, inner: &str, suffix: &str) -> Result<Self, String> {
        let (name, optional) = inner.strip_suffix('?').map_or((inner, false), |name| (name, true));
        if name.is_empty() {
            return Err("a parameter needs a name, as in {name}".into());
        }
        if let Some(mistake) = foreign_route::name_mistake(name) {
            return Err(mistake);
        }
        if optional && !(prefix.is_empty() && suffix.is_empty()) {
            return Err("an optional parameter {p?} takes a whole segment".into());
        }
        Ok(Self::Parameter {
            name: name.into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
            optional,
        })
    }

    /// The quality with which it takes one segment of a path.
    fn take(&self, value: &str, parameters: &mut Vec<(String, String)>) -> Option<u8> {
        match self {
            Self::Constant(text) => (text == value).then_some(100),
            Self::Wildcard => (!value.is_empty()).then_some(50),
            Self::Parameter { name, prefix, suffix, .. } => {
                let inner = value.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())?;
                if inner.is_empty() {
                    return None;
                }
                parameters.push((name.clone(), inner.into()));
                Some(if prefix.is_empty() && suffix.is_empty() { 80 } else { 90 })
            }
            Self::Tail { .. } => None,
        }
    }
}

/// The value of a tail, if it has any piece.
fn joined<'p>(pieces: impl Iterator<Item = &'p String>) -> Option<String> {
    pieces.cloned().reduce(|mut tail, piece| {
        tail.push(BETWEEN_PIECES);
        tail.push_str(&piece);
        tail
    })
}

/// The segments of a request's path, decoded; a slash at the end gives an empty last one. `None` if
/// the encoding is broken, or hides a NUL or bytes that are no text.
#[inline(always)] // into the way of every request; what asks beside it is cold
pub(crate) fn path_segments(path: &str) -> Option<Vec<String>> {
    if !path.starts_with('/') || !is_well_encoded(path) {
        return None;
    }
    let mut segments = Vec::new();
    for piece in path.split('/').filter(|piece| !piece.is_empty()) {
        segments.push(decode(piece)?.into_owned());
    }
    if path.ends_with('/') && !segments.is_empty() {
        segments.push(String::new());
    }
    Some(segments)
}

fn decode(piece: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(piece).decode_utf8().ok().filter(|text| !text.contains(BETWEEN_PIECES))
}

/// Every `%` is followed by two hexadecimal digits (RFC 3986 section 2.1).
fn is_well_encoded(path: &str) -> bool {
    path.split('%').skip(1).all(|after| {
        after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

#[cfg(all(repository, test))]
mod tests;
