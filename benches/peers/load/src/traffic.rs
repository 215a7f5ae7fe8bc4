//! Owns what is sent and what must come back: endless streams of one frame, as repeated templates.

use crate::Outcome;

/// A stream repeats one frame; `bytes` holds enough of it that any piece can be sliced from it.
pub(crate) struct Stream {
    pub(crate) bytes: Vec<u8>,
    pub(crate) frame_len: usize,
}

/// The least bytes of a template beside one frame.
const SLICE_BYTES: usize = 128 << 10;
/// The buffer that replies are read into.
pub(crate) const READ_BYTES: usize = 256 << 10;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FILL: &[u8] = br#"{"sensor":"boiler-7","celsius":61.25,"bar":1.84,"at":1700000000},"#;

impl Stream {
    fn repeat(frame: &[u8], least: usize) -> Self {
        let times = (least + 2 * frame.len()) / frame.len() + 1;
        Self { bytes: frame.repeat(times), frame_len: frame.len() }
    }

    /// What a client sends: messages of `size` bytes, masked.
    pub(crate) fn outgoing(size: usize, text: bool) -> Self {
        Self::repeat(&masked(if text { 0x81 } else { 0x82 }, &payload(size)), SLICE_BYTES)
    }

    /// What a server that echoes answers.
    pub(crate) fn incoming(size: usize, text: bool) -> Self {
        let mut frame = header(if text { 0x81 } else { 0x82 }, size, 0);
        frame.extend_from_slice(&payload(size));
        Self::expecting(&frame)
    }

    /// A stream of a frame that was learned.
    pub(crate) fn expecting(frame: &[u8]) -> Self {
        Self::repeat(frame, READ_BYTES)
    }

    /// What follows at a place in the stream, at most `len` bytes.
    pub(crate) fn slice(&self, at: usize, len: usize) -> &[u8] {
        &self.bytes[at..self.bytes.len().min(at.saturating_add(len))]
    }
}

/// Readable text, so that it is valid in a text message and can be deflated.
pub(crate) fn payload(size: usize) -> Vec<u8> {
    FILL.iter().copied().cycle().take(size).collect()
}

fn header(first: u8, size: usize, mask_bit: u8) -> Vec<u8> {
    let mut header = vec![first];
    match (u8::try_from(size), u16::try_from(size)) {
        (Ok(short @ 0..=125), _) => header.push(mask_bit | short),
        (_, Ok(medium)) => {
            header.push(mask_bit | 126);
            header.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            header.push(mask_bit | 127);
            header.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    header
}

/// A client's frame.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len(), 0x80);
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The length of the header of an unmasked frame and of its payload, if the header is all there.
pub(crate) fn parse(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 127 {
        126 => Some((4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into())),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            Some((10, usize::try_from(length).ok()?))
        }
        short => Some((2, short.into())),
    }
}

/// The length of the masked frame at the start, if it is all there; another payload is an error.
pub(crate) fn masked_frame(bytes: &[u8], payload: &[u8]) -> Outcome<Option<usize>> {
    let Some((header, length)) = parse(bytes) else { return Ok(None) };
    let (from, end) = (header + 4, header + 4 + length);
    let (Some(mask), Some(masked)) = (bytes.get(header..from), bytes.get(from..end)) else {
        return Ok(None);
    };
    let is_data = matches!(bytes[0], 0x81 | 0x82) && bytes[1] & 0x80 != 0;
    let plain = masked.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
    if !is_data || !plain.eq(payload.iter().copied()) {
        return Err("another frame than was to come back".into());
    }
    Ok(Some(end))
}
