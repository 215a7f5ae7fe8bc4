//! The names of other protocols, as they show on a port that expects HTTP/1.

/// How the beginning of a connection of each looks.
const BEGINNINGS: [(&[u8], &str); 7] = [
    // A record of a handshake; the version's minor number varies.
    (b"\x16\x03", "TLS (https:// or wss://)"),
    (b"PROXY ", "a PROXY header"),
    (b"\r\n\r\n\0\r\nQUIT\n", "a PROXY header, version 2"),
    (b"PRI * HTTP/2.0\r\n", "HTTP/2"),
    (b"SSH-", "SSH"),
    (b"\x04\x01", "SOCKS 4"),
    (b"\x05\x01\x00", "SOCKS 5"),
];

/// What the peer speaks, if `bytes`, which are no HTTP/1, begin as something that is known. As few bytes
/// as were refused are enough, so long as they are the beginning of one name alone.
pub(crate) fn protocol_of(bytes: &[u8]) -> Option<&'static str> {
    let known = |beginning: &[u8]| {
        let length = beginning.len().min(bytes.len());
        length > 0 && beginning.get(..length) == bytes.get(..length)
    };
    BEGINNINGS.iter().find(|(beginning, _)| known(beginning)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_of_no_protocol() {
        assert_eq!(protocol_of(b""), None);
    }

    #[test]
    fn what_is_spoken_has_a_name() {
        for (bytes, name) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "TLS (https:// or wss://)"),
            (b"\x16", "TLS (https:// or wss://)"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "a PROXY header"),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "a PROXY header, version 2"),
            (b"\r\n\r\n\0", "a PROXY header, version 2"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
            (b"SSH-2.0-OpenSSH_9\r\n", "SSH"),
        ] {
            assert_eq!(protocol_of(bytes), Some(name), "{bytes:?}");
        }
        for bytes in [&b""[..], b"GET / HTTP/3.0\r\n", b"hello\r\n", b"\x81\x80", b"PRIVATE"] {
            assert_eq!(protocol_of(bytes), None, "{bytes:?}");
        }
    }
}
