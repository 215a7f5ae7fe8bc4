//! What a client writes: the request that upgrades, and frames with their mask. The integration tests and the
//! benchmarks compile this very file too.

/// The masking key of all frames. No proxy stands in between, so it need not be a surprise to anybody.
pub(crate) const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The header lines that ask for a session (RFC 6455 section 1.3 has the key).
pub(crate) const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// The request that upgrades, with further header lines (each with its line end).
pub(crate) fn upgrade_request(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{UPGRADE}{lines}\r\n")
}

/// A frame as a server sends it: the same without a mask.
pub(crate) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

#[allow(clippy::cast_possible_truncation, reason = "each arm has checked the length")]
fn header(first: u8, mask: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![first];
    match length {
        len @ 0..=125 => frame.push(mask | len as u8),
        len @ 126..=65_535 => {
            frame.push(mask | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(mask | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame
}

/// A frame: its first byte (FIN, reserved bits, opcode), and the payload behind the mask.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0x80, payload.len());
    frame.extend_from_slice(&KEY);
    let start = frame.len();
    frame.extend_from_slice(payload);
    for four in frame.get_mut(start..).unwrap_or_default().chunks_mut(KEY.len()) {
        four.iter_mut().zip(KEY).for_each(|(byte, key)| *byte ^= key);
    }
    frame
}
