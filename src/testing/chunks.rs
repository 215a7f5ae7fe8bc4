//! The chunks in which an answer of unknown length comes.

use crate::protocol::body::BodyDecoder;
use crate::protocol::framing::BodyFraming;

/// The content of a chunked body at the start of some bytes, and how many of them it takes.
pub(super) fn chunked_body(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, u64::MAX, 1 << 20).ok()?;
    let mut content = bytes.to_vec();
    let decoded = decoder.decode(&mut content).ok()?;
    content.truncate(decoded.content);
    decoder.is_done().then_some((content, decoded.taken))
}
