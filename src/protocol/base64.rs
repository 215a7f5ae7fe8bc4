//! Base64 (RFC 4648 section 4), and the credentials of Basic authentication (RFC 7617).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(feature = "client")]
/// The value of `Authorization` or `Proxy-Authorization` for a user.
pub(crate) fn basic_credentials(name: &[u8], password: &[u8]) -> String {
    let mut text = b"Basic ".to_vec();
    encode(&[name, b":", password].concat(), &mut text);
    String::from_utf8(text).unwrap_or_default() // nothing but the alphabet
}

/// How long so many bytes are in base64.
pub(crate) fn encoded_len(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for three in bytes.chunks(3) {
        let at = |index| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for (letter, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let known = letter <= three.len();
            let value = ALPHABET.get((bits >> shift) as usize & 63).copied().filter(|_| known);
            out.push(value.unwrap_or(b'='));
        }
    }
}

/// The bytes that a text in base64 stands for; `None` if it is none, padding and all.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let letters = text.trim_end_matches('=');
    let padding = text.len().saturating_sub(letters.len());
    if text.len() % 4 != 0 || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity((text.len() / 4).saturating_mul(3));
    for four in letters.as_bytes().chunks(4) {
        let mut bits = 0;
        for letter in four {
            let value = ALPHABET.iter().position(|known| known == letter)?;
            bits = bits << 6 | u32::try_from(value).ok()?;
        }
        let missing = 4_usize.saturating_sub(four.len());
        let [_, three @ ..] = (bits << 6_usize.saturating_mul(missing)).to_be_bytes();
        let (of_them, rest) = three.split_at_checked(3_usize.saturating_sub(missing))?;
        // Section 3.5: bits that say nothing must be zero, or one value could be written in several ways.
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(of_them);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 section 10.
    #[test]
    fn the_vectors_of_the_rfc() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            assert_eq!((out.as_slice(), encoded_len(text.len())), (expected.as_bytes(), out.len()));
            assert_eq!(decode(expected).as_deref(), Some(text.as_bytes()));
        }
        for text in [
            "Z", "Zg", "Zg=", "Zg===", "Z===", "====", "Zh==", "Zm9=", "Zm9v=", "Zm 9", "=Zm9",
            "Zm-_",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    /// RFC 7617 section 2.
    #[cfg(feature = "client")]
    #[test]
    fn the_credentials_of_the_rfc() {
        let credentials = basic_credentials(b"Aladdin", b"open sesame");
        assert_eq!(credentials, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(basic_credentials(b"test", "123\u{a3}".as_bytes()), "Basic dGVzdDoxMjPCow==");
    }
}
