//! The content codings that a client takes, and which of them it likes best (RFC 9110 section 12.5.3).

use crate::protocol::header_lines::HeaderLines;

/// How a representation may be coded. In the order that counts where a client likes several as much: the
/// smallest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentCoding {
    Brotli,
    Gzip,
    Identity,
}

impl ContentCoding {
    const ALL: [Self; 3] = [Self::Brotli, Self::Gzip, Self::Identity];

    /// What it is called in headers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Identity => "identity",
        }
    }

    /// Those that the client takes, the best first; `Identity` is not among them if it wants no answer that
    /// is not coded.
    pub(crate) fn accepted(head: &HeaderLines) -> impl Iterator<Item = Self> {
        let weights = weights(head);
        let mut ranked = [0, 1, 2];
        ranked.sort_by_key(|&index| std::cmp::Reverse(weights.get(index).copied()));
        let is_accepted =
            move |index: &usize| weights.get(*index).is_some_and(|weight| *weight > 0);
        let accepted = ranked.into_iter().filter(is_accepted);
        accepted.filter_map(|index| Self::ALL.get(index).copied())
    }
}

/// How much each coding is wanted, in thousandths; 0 is not at all.
fn weights(head: &HeaderLines) -> [u16; 3] {
    let mut named = [None; 3];
    let mut any = None;
    for member in head.tokens("accept-encoding") {
        let (name, parameters) = member.split_once(';').unwrap_or((member, ""));
        let (name, Some(weight)) = (name.trim_end(), weight(parameters)) else { continue };
        // Section 8.4.1.3: "A recipient SHOULD consider "x-gzip" to be equivalent to "gzip"".
        let name = if name.eq_ignore_ascii_case("x-gzip") { "gzip" } else { name };
        let known = ContentCoding::ALL.iter().position(|it| it.name().eq_ignore_ascii_case(name));
        match known.and_then(|index| named.get_mut(index)) {
            Some(place) => *place = Some(weight),
            None if name == "*" => any = Some(weight),
            None => {}
        }
    }
    let [brotli, gzip, identity] = named.map(|weight| weight.or(any));
    // Identity is acceptable unless it is excluded, by its name or by `*;q=0`; unsaid, it is liked least.
    [brotli.unwrap_or(0), gzip.unwrap_or(0), identity.unwrap_or(1)]
}

/// The `q` among a member's parameters; `None` if it is malformed, which is as if the member was not there:
/// what is sent uncoded is read by everybody.
pub(crate) fn weight(parameters: &str) -> Option<u16> {
    let mut values = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let quality = values.find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    quality.map_or(Some(1000), |(_, value)| thousandths(value.trim()))
}

/// Section 12.4.2: `( "0" [ "." 0*3DIGIT ] ) / ( "1" [ "." 0*3("0") ] )`.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let scale = [1000, 100, 10, 1].get(digits.len()).copied()?;
    let part = digits.parse::<u16>().unwrap_or(0).saturating_mul(scale);
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::head::tests::head;

    #[test]
    fn what_clients_take_and_in_which_order() {
        let accepted = |line: &str| {
            let head = head(&format!("GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n"));
            ContentCoding::accepted(&head).map(ContentCoding::name).collect::<Vec<_>>().join(" ")
        };
        for (value, expected) in [
            ("gzip, deflate, br, zstd", "br gzip identity"),
            ("gzip", "gzip identity"),
            ("GZIP", "gzip identity"),
            ("x-gzip", "gzip identity"),
            ("br;q=0.5, gzip;q=0.8", "gzip br identity"),
            ("br;q=0.5, gzip;q=0.5", "br gzip identity"),
            ("br ; Q=0.001", "br identity"),
            ("br;q=0", "identity"),
            ("*", "br gzip identity"),
            ("*;q=0.5, br;q=0", "gzip identity"),
            ("*;q=0", ""),
            ("identity;q=0", ""),
            ("gzip, identity;q=0", "gzip"),
            ("gzip, *;q=0", "gzip"),
            ("gzip, *;q=0, identity", "gzip identity"),
            ("identity;q=1, *;q=0", "identity"),
            ("identity, gzip;q=0.5", "identity gzip"),
            ("gzip;q=2, br;q=x, *;q=0.1234", "identity"),
            ("gzip;q=1.000, br;q=0.", "gzip identity"),
            ("gzip;q=1.001", "identity"),
            ("gzip;level=9", "gzip identity"),
            ("zstd", "identity"),
            ("", "identity"),
        ] {
            assert_eq!(accepted(&format!("Accept-Encoding: {value}")), expected, "{value:?}");
        }
        assert_eq!(accepted("X: y"), "identity");
        assert_eq!(accepted("Accept-Encoding: gzip\r\nAccept-Encoding: br"), "br gzip identity");
    }
}
