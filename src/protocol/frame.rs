//! The header of a frame, read, checked and written, and the mask (RFC 6455 section 5.2).

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader as Codec;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode as CodecOpCode};

use crate::words::error::ProtocolError;
use crate::words::message::Rsv;

pub(crate) use crate::words::frame::OpCode;

impl From<OpCode> for CodecOpCode {
    fn from(opcode: OpCode) -> Self {
        match opcode {
            OpCode::Continuation => Self::Data(Data::Continue),
            OpCode::Text => Self::Data(Data::Text),
            OpCode::Binary => Self::Data(Data::Binary),
            OpCode::Close => Self::Control(Control::Close),
            OpCode::Ping => Self::Control(Control::Ping),
            OpCode::Pong => Self::Control(Control::Pong),
        }
    }
}

/// The most payload bytes of a control frame (RFC 6455 section 5.5).
pub(crate) const CONTROL_PAYLOAD_MAX: usize = 125;
/// The most bytes of a header: two, eight of length, four of mask.
pub(crate) const HEADER_BYTES_MAX: usize = 14;

/// Whether the frames of the peer have a mask (RFC 6455 section 5.1), which is a matter of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Masking {
    /// The peer is a client.
    Required,
    /// The peer is a client, and the application takes its frames as they are.
    Optional,
    /// The peer is a server.
    #[cfg_attr(
        not(any(test, fuzzing, feature = "client")),
        allow(dead_code, reason = "the application is a server")
    )]
    Forbidden,
}

/// What the reader lets through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameRules {
    pub(crate) max_frame_size: usize,
    /// The most payload bytes of a frame of a message that extensions decode: one that decodes to an
    /// allowed message may be larger than that.
    pub(crate) max_coded_frame_size: usize,
    pub(crate) max_message_size: usize,
    pub(crate) max_fragments: u32,
    pub(crate) masking: Masking,
    /// The reserved bits that any frame may have, RSV1 as 4.
    pub(crate) allowed_rsv: u8,
    /// Those that extensions own: the first frame of a message may have them too.
    pub(crate) claimed_rsv: u8,
}

/// A header that was read and passed every check that needs no context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: OpCode,
    /// All zero for a frame without a mask: unmasking it changes nothing.
    pub(crate) mask: [u8; 4],
    pub(crate) payload_len: usize,
    pub(crate) header_len: usize,
}

impl FrameHeader {
    /// Reads the header at the start of `bytes`: `None` if it is not all there yet. Whatever is
    /// wrong is said as soon as the byte that shows it is there.
    #[inline]
    pub(crate) fn read(bytes: &[u8], rules: &FrameRules) -> Result<Option<Self>, ProtocolError> {
        let &[first, second, ref rest @ ..] = bytes else {
            return match bytes {
                &[first] => check_first(first, rules).map(|_| None),
                _ => Ok(None),
            };
        };
        let opcode = check_first(first, rules)?;
        check_second(opcode, second, rules)?;
        // The fast path: a length of one or three bytes. It stands beside the codec because it saves a
        // third of the instructions of a short echo; a property test holds the two together.
        let (payload_len, header_len, mask) = match (second, rest) {
            (128..=253, &[a, b, c, d, ..]) => (usize::from(second & 127), 6, [a, b, c, d]),
            (254, &[high, low, a, b, c, d, ..]) => {
                (usize::from(u16::from_be_bytes([high, low])), 8, [a, b, c, d])
            }
            (0..=125, _) => (usize::from(second), 2, [0; 4]),
            (126, &[high, low, ..]) => (usize::from(u16::from_be_bytes([high, low])), 4, [0; 4]),
            _ => match Self::read_by_codec(bytes, second, rules)? {
                Some(parts) => parts,
                None => return Ok(None),
            },
        };
        if second & 127 == 126 && payload_len < 126 {
            return Err(ProtocolError::BadLengthEncoding);
        }
        if payload_len > rules.max_frame_size && !opcode.is_control() {
            rules.check_large(first, payload_len as u64)?;
        }
        let (fin, rsv) = (first & 0x80 != 0, (first >> 4) & 7);
        Ok(Some(Self { fin, rsv, opcode, mask, payload_len, header_len }))
    }

    /// Every other header, by tungstenite's codec: payload length, header length, mask.
    #[cold]
    #[inline(never)]
    fn read_by_codec(
        bytes: &[u8],
        second: u8,
        rules: &FrameRules,
    ) -> Result<Option<(usize, usize, [u8; 4])>, ProtocolError> {
        // The length is judged before the mask is there: a limit need not wait for four bytes.
        if let (127, &[_, _, a, b, c, d, e, f, g, h, ..]) = (second & 127, bytes) {
            let length = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            // RFC 6455 section 5.2: "the most significant bit MUST be 0" and "the minimal number of
            // bytes MUST be used".
            if length >> 63 != 0 || length <= u64::from(u16::MAX) {
                return Err(ProtocolError::BadLengthEncoding);
            }
            rules.check_large(bytes.first().copied().unwrap_or_default(), length)?;
        }
        let mut cursor = Cursor::new(bytes);
        let Ok(Some((header, length))) = Codec::parse(&mut cursor) else {
            return Ok(None); // its one error, an unknown opcode, was refused before
        };
        let Ok(payload_len) = usize::try_from(length) else {
            return Err(rules.too_big(length));
        };
        let header_len = header.len(length);
        Ok(Some((payload_len, header_len, header.mask.unwrap_or_default())))
    }
}

/// A data message that is whole, in one frame, of at most 64 KiB, and masked, and has no reserved bits:
/// what nearly every read of a server holds. From a client, no rule but the limit can forbid it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShortMessage<'a> {
    pub(crate) text: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes of its frame.
    pub(crate) end: usize,
}

impl<'a> ShortMessage<'a> {
    /// Takes one from the start of `bytes`, and its mask off; whatever else is there is left to
    /// [`FrameHeader::read`], and as it was.
    #[inline(always)] // a call would be 4 % of an echo, and the compiler makes it one
    #[allow(clippy::arithmetic_side_effects, reason = "a length is at most that of `bytes`")]
    pub(crate) fn unmask(bytes: &'a mut [u8], limit: usize) -> Option<Self> {
        let (first, length, header_len) = match *bytes {
            [first @ (0x81 | 0x82), second @ 0x80..=0xfd, ..] => {
                (first, usize::from(second & 127), 6)
            }
            [first @ (0x81 | 0x82), 0xfe, high, low, ..] => (first, extended_length(high, low)?, 8),
            _ => return None,
        };
        if length > limit {
            return None;
        }
        let (header, rest) = bytes.split_at_mut_checked(header_len)?;
        let payload = rest.get_mut(..length)?;
        let mask = *header.last_chunk()?;
        apply_mask(payload, mask, 0);
        Some(Self { text: first == 0x81, payload, end: header_len + length })
    }

    /// Takes one that has no mask, as servers send them; whatever else is there is left to
    /// [`FrameHeader::read`].
    #[cfg(feature = "client")]
    #[inline]
    #[allow(clippy::arithmetic_side_effects, reason = "a length is at most that of `bytes`")]
    pub(crate) fn find(bytes: &'a [u8], limit: usize) -> Option<Self> {
        let (first, length, header_len) = match *bytes {
            [first @ (0x81 | 0x82), second @ 0..=0x7d, ..] => (first, usize::from(second), 2),
            [first @ (0x81 | 0x82), 0x7e, high, low, ..] => (first, extended_length(high, low)?, 4),
            _ => return None,
        };
        if length > limit {
            return None;
        }
        let (_, rest) = bytes.split_at_checked(header_len)?;
        let payload = rest.get(..length)?;
        Some(Self { text: first == 0x81, payload, end: header_len + length })
    }
}

/// RFC 6455 section 5.2: "the minimal number of bytes MUST be used to encode the length".
#[inline]
fn extended_length(high: u8, low: u8) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([high, low]));
    (length >= 126).then_some(length)
}

#[inline]
fn check_first(first: u8, rules: &FrameRules) -> Result<OpCode, ProtocolError> {
    let bits = first & 15;
    let opcode = OpCode::from_bits(bits).ok_or(ProtocolError::UnknownOpcode(bits))?;
    if first & 0x70 != 0 {
        check_reserved(opcode, (first >> 4) & 7, rules)?;
    }
    // RFC 6455 section 5.5: control frames "MUST NOT be fragmented".
    if opcode.is_control() && first & 0x80 == 0 {
        return Err(ProtocolError::FragmentedControlFrame);
    }
    Ok(opcode)
}

/// RFC 6455 section 5.2: a nonzero RSV bit without an extension that defines it MUST fail the
/// connection. The bits of our extensions are those of whole messages, as RFC 7692 section 6 has it:
/// they stand on a message's first frame alone.
#[cold]
fn check_reserved(opcode: OpCode, rsv: u8, rules: &FrameRules) -> Result<(), ProtocolError> {
    let begins_message = matches!(opcode, OpCode::Text | OpCode::Binary);
    let claimed = if begins_message { rules.claimed_rsv } else { 0 };
    if rsv & !(rules.allowed_rsv | claimed) == 0 {
        Ok(())
    } else {
        Err(ProtocolError::ReservedBits)
    }
}

#[inline]
fn check_second(opcode: OpCode, second: u8, rules: &FrameRules) -> Result<(), ProtocolError> {
    // RFC 6455 section 5.1: "The server MUST close the connection upon receiving a frame that is
    // not masked", and "a client MUST close a connection if it detects a masked frame".
    match rules.masking {
        Masking::Required if second & 0x80 == 0 => return Err(ProtocolError::UnmaskedFrame),
        Masking::Forbidden if second & 0x80 != 0 => return Err(ProtocolError::MaskedFrame),
        _ => {}
    }
    if opcode.is_control() && second & 127 > 125 {
        return Err(ProtocolError::ControlFrameTooBig);
    }
    Ok(())
}

impl FrameRules {
    /// Holds the length of a data frame to its limit. The frames of a coded message are recognised by a
    /// bit of an extension on the first, if any extension has one; of a continuation only the session
    /// knows.
    #[cold]
    fn check_large(&self, first: u8, length: u64) -> Result<(), ProtocolError> {
        let limit = self.limit_of((first >> 4) & 7, first & 0x0f == 0);
        if length > limit as u64 { Err(self.too_big(length)) } else { Ok(()) }
    }

    /// The most payload bytes of a data frame with these reserved bits.
    pub(crate) fn limit_of(&self, rsv: u8, is_continuation: bool) -> usize {
        let has_bit = rsv & self.claimed_rsv != 0;
        let may_be_coded = self.claimed_rsv == 0 || has_bit || is_continuation;
        if may_be_coded { self.max_coded_frame_size } else { self.max_frame_size }
    }

    /// Holds a frame to the limit of those that are not coded.
    pub(crate) fn check_uncoded(&self, header: &FrameHeader) -> Result<(), ProtocolError> {
        let length = header.payload_len;
        if length > self.max_frame_size { Err(self.too_big(length as u64)) } else { Ok(()) }
    }

    #[cold]
    fn too_big(&self, announced: u64) -> ProtocolError {
        ProtocolError::FrameTooBig { announced, limit: self.max_frame_size as u64 }
    }
}

/// Bytes that are masked without a loop, where there are as many: a quarter fewer instructions a KiB.
const MASK_BLOCK: usize = 128;

/// Takes the mask off (or puts it on) in place; `offset` is how far into the frame `payload` starts
/// (RFC 6455 section 5.3).
#[inline(always)] // into the paths of whole messages, most of which are short
pub(crate) fn apply_mask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut turned = mask;
    turned.rotate_left(offset & 3);
    let word = u32::from_ne_bytes(turned);
    let wide = (u64::from(word) << 32) | u64::from(word);
    if payload.len() >= MASK_BLOCK {
        mask_blocks(payload, wide);
    } else {
        mask_few(payload, wide);
    }
}

/// Whole blocks, each without a loop of its own, and what is left.
#[inline(never)]
fn mask_blocks(payload: &mut [u8], wide: u64) {
    let mut blocks = payload.chunks_exact_mut(MASK_BLOCK);
    for block in blocks.by_ref() {
        if let Ok(block) = <&mut [u8; MASK_BLOCK]>::try_from(block) {
            for eight in block.chunks_exact_mut(8) {
                mask_eight(eight, wide);
            }
        }
    }
    mask_few(blocks.into_remainder(), wide);
}

#[inline(always)]
fn mask_few(payload: &mut [u8], wide: u64) {
    let mut chunks = payload.chunks_exact_mut(16);
    for chunk in chunks.by_ref() {
        let (low, high) = chunk.split_at_mut(8);
        mask_eight(low, wide);
        mask_eight(high, wide);
    }
    let mut rest = chunks.into_remainder();
    if rest.len() >= 8 {
        let (eight, more) = rest.split_at_mut(8);
        mask_eight(eight, wide);
        rest = more;
    }
    let [key @ .., _, _, _, _] = wide.to_ne_bytes(); // both halves are the same
    if rest.len() >= 4 {
        let (four, more) = rest.split_at_mut(4);
        if let Ok(four) = <&mut [u8; 4]>::try_from(four) {
            *four = (u32::from_ne_bytes(*four) ^ u32::from_ne_bytes(key)).to_ne_bytes();
        }
        rest = more;
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[inline(always)]
fn mask_eight(bytes: &mut [u8], wide: u64) {
    if let Ok(eight) = <&mut [u8; 8]>::try_from(bytes) {
        *eight = (u64::from_ne_bytes(*eight) ^ wide).to_ne_bytes();
    }
}

/// Adds a payload to `out` and takes its mask off there, block by block while it is in a near cache.
pub(crate) fn extend_unmasked(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4], offset: usize) {
    /// A multiple of four, so that the mask begins anew with each.
    const BLOCK: usize = 16 << 10;
    for block in payload.chunks(BLOCK) {
        let start = out.len();
        out.extend_from_slice(block);
        apply_mask(out.get_mut(start..).unwrap_or_default(), mask, offset);
    }
}

/// Writes the header of a frame of `payload_len` bytes to the end of `out`.
#[inline]
pub(crate) fn write_header(
    out: &mut Vec<u8>,
    fin: bool,
    opcode: OpCode,
    payload_len: usize,
    mask: Option<[u8; 4]>,
) {
    write_header_with(out, fin, Rsv::NONE, opcode, payload_len, mask);
}

/// The same with reserved bits.
#[inline]
pub(crate) fn write_header_with(
    out: &mut Vec<u8>,
    fin: bool,
    rsv: Rsv,
    opcode: OpCode,
    payload_len: usize,
    mask: Option<[u8; 4]>,
) {
    let first = opcode.bits() | (rsv.bits() << 4) | if fin { 0x80 } else { 0 };
    // As when reading: the short forms at once, the rest by the codec.
    #[allow(clippy::cast_possible_truncation, reason = "each arm has checked the length")]
    match (mask, payload_len) {
        (None, 0..=125) => out.extend_from_slice(&[first, payload_len as u8]),
        (None, 126..=65_535) => {
            let [high, low] = (payload_len as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, high, low]);
        }
        (Some([a, b, c, d]), 0..=125) => {
            out.extend_from_slice(&[first, 0x80 | payload_len as u8, a, b, c, d]);
        }
        (Some([a, b, c, d]), 126..=65_535) => {
            let [high, low] = (payload_len as u16).to_be_bytes();
            out.extend_from_slice(&[first, 0xfe, high, low, a, b, c, d]);
        }
        _ => {
            let header = Codec {
                is_final: fin,
                rsv1: rsv.rsv1(),
                rsv2: rsv.rsv2(),
                rsv3: rsv.rsv3(),
                opcode: opcode.into(),
                mask,
            };
            let written = header.format(payload_len as u64, out);
            debug_assert!(written.is_ok(), "writing to a Vec does not fail");
        }
    }
}

/// Writes a whole frame to the end of `out`.
#[inline]
pub(crate) fn write_frame(
    out: &mut Vec<u8>,
    fin: bool,
    opcode: OpCode,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) {
    write_frame_with(out, fin, Rsv::NONE, opcode, payload, mask);
}

/// The same with reserved bits.
#[inline]
pub(crate) fn write_frame_with(
    out: &mut Vec<u8>,
    fin: bool,
    rsv: Rsv,
    opcode: OpCode,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) {
    write_header_with(out, fin, rsv, opcode, payload.len(), mask);
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(mask), Some(written)) = (mask, out.get_mut(start..)) {
        apply_mask(written, mask, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: FrameRules = FrameRules {
        max_frame_size: 1 << 20,
        max_coded_frame_size: 1 << 20,
        max_message_size: 1 << 20,
        max_fragments: 10,
        masking: Masking::Required,
        allowed_rsv: 0,
        claimed_rsv: 0,
    };

    fn read(bytes: &[u8]) -> Result<Option<FrameHeader>, ProtocolError> {
        FrameHeader::read(bytes, &RULES)
    }

    #[test]
    fn every_fault_is_said_at_the_byte_that_shows_it() {
        use ProtocolError as E;
        assert_eq!(read(&[0x83]), Err(E::UnknownOpcode(3)));
        assert_eq!(read(&[0xc1]), Err(E::ReservedBits));
        assert_eq!(read(&[0x09]), Err(E::FragmentedControlFrame));
        assert_eq!(read(&[0x81, 0x05]), Err(E::UnmaskedFrame));
        assert_eq!(read(&[0x89, 0xfe]), Err(E::ControlFrameTooBig));
        assert_eq!(read(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(E::BadLengthEncoding));
        assert_eq!(read(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), Err(E::BadLengthEncoding));
        assert_eq!(read(&[0x82, 0xfe, 0, 125, 1, 2, 3, 4]), Err(E::BadLengthEncoding));
        let gib = E::FrameTooBig { announced: 1 << 30, limit: 1 << 20 };
        assert_eq!(read(&[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0]), Err(gib));
    }

    #[test]
    fn a_frame_of_the_limit_passes_and_one_byte_more_does_not() {
        let rules = FrameRules { max_frame_size: 1024, max_coded_frame_size: 1024, ..RULES };
        let header = |len: u16| {
            let [high, low] = len.to_be_bytes();
            FrameHeader::read(&[0x82, 0xfe, high, low, 1, 2, 3, 4], &rules)
        };
        assert_eq!(header(1024).map(|h| h.map(|h| h.payload_len)), Ok(Some(1024)));
        assert_eq!(header(1025), Err(ProtocolError::FrameTooBig { announced: 1025, limit: 1024 }));
    }

    #[test]
    fn a_frame_that_may_be_coded_has_the_limit_of_coded_ones() {
        let read = |claimed_rsv, first: u8, length: u64| {
            let rules = FrameRules {
                max_frame_size: 70_000,
                max_coded_frame_size: 80_000,
                claimed_rsv,
                ..RULES
            };
            let frame = [&[first, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4]].concat();
            FrameHeader::read(&frame, &rules).is_ok()
        };
        for (claimed_rsv, first, coded) in [
            (4, 0xc2, true),
            (4, 0x42, true),
            (4, 0x00, true), // only the session knows
            (4, 0x82, false),
            (0, 0x82, true), // an extension without a bit decodes any message
        ] {
            assert!(read(claimed_rsv, first, 70_000));
            assert_eq!(read(claimed_rsv, first, 70_001), coded, "{first:#x}");
            assert_eq!(read(claimed_rsv, first, 80_000), coded, "{first:#x}");
            assert!(!read(claimed_rsv, first, 80_001));
        }
    }

    #[test]
    fn reserved_bits_and_missing_masks_pass_where_allowed() {
        let rules = FrameRules { masking: Masking::Optional, allowed_rsv: 7, ..RULES };
        let header = FrameHeader::read(&[0xf1, 0x05], &rules);
        let header = header.unwrap().unwrap();
        assert_eq!((header.rsv, header.mask, header.header_len), (7, [0; 4], 2));
    }

    #[test]
    fn a_server_must_not_mask() {
        let rules = FrameRules { masking: Masking::Forbidden, ..RULES };
        let masked = FrameHeader::read(&[0x81, 0x80], &rules);
        assert_eq!(masked, Err(ProtocolError::MaskedFrame));
        assert!(matches!(FrameHeader::read(&[0x81, 0x05], &rules), Ok(Some(_))));
    }

    /// RFC 7692 section 6: the bit is on the first frame of a data message and nowhere else.
    #[test]
    fn an_extensions_bits_stand_on_first_frames_alone() {
        let rules = FrameRules { claimed_rsv: 4, ..RULES };
        let read = |first: u8| FrameHeader::read(&[first, 0x80, 1, 2, 3, 4], &rules);
        assert_eq!(read(0xc1).map(|header| header.map(|header| header.rsv)), Ok(Some(4)));
        assert!(read(0x42).is_ok());
        for first in [0xc0, 0x40, 0xc8, 0xc9, 0xca, 0xe1, 0xa1, 0x91] {
            assert_eq!(read(first), Err(ProtocolError::ReservedBits), "{first:#x}");
        }
    }

    proptest! {
        /// The fast paths and tungstenite's codec agree, whole and cut short.
        #[test]
        fn reading_agrees_with_the_codec(
            fin: bool, text: bool, mask: Option<[u8; 4]>,
            len in prop_oneof![0usize..300, 65_000usize..66_000, Just(1 << 20)],
        ) {
            let opcode = if text { OpCode::Text } else { OpCode::Binary };
            let mut bytes = Vec::new();
            let codec = Codec {
                is_final: fin, rsv1: false, rsv2: false, rsv3: false,
                opcode: opcode.into(), mask,
            };
            codec.format(len as u64, &mut bytes).unwrap();
            let rules = FrameRules { masking: Masking::Optional, ..RULES };
            let expected = FrameHeader {
                fin, rsv: 0, opcode, mask: mask.unwrap_or_default(), payload_len: len,
                header_len: bytes.len(),
            };
            prop_assert_eq!(FrameHeader::read(&bytes, &rules), Ok(Some(expected)));
            for cut in 0..bytes.len() {
                prop_assert_eq!(FrameHeader::read(&bytes[..cut], &rules), Ok(None));
            }
        }

        /// A short message is found where the reader finds a whole one, and is the same.
        #[test]
        fn a_short_message_is_what_the_reader_sees(
            first in prop_oneof![Just(0x81u8), Just(0x82), any::<u8>()],
            second in prop_oneof![0x80u8..=0xff, any::<u8>()],
            rest in proptest::collection::vec(any::<u8>(), 0..300), limit in 0usize..400,
        ) {
            let mut bytes = vec![first, second];
            bytes.extend(rest);
            let rules = FrameRules {
                max_frame_size: limit,
                max_coded_frame_size: limit,
                max_message_size: limit,
                ..RULES
            };
            let header = FrameHeader::read(&bytes, &rules).ok().flatten();
            let whole = header.filter(|header| {
                header.fin
                    && matches!(header.opcode, OpCode::Text | OpCode::Binary)
                    && header.header_len + header.payload_len <= bytes.len()
            });
            let before = bytes.clone();
            let found = ShortMessage::unmask(&mut bytes, limit);
            let expected = whole.map(|header| {
                let end = header.header_len + header.payload_len;
                let mut payload = before[header.header_len..end].to_vec();
                apply_mask(&mut payload, header.mask, 0);
                (header.opcode == OpCode::Text, payload, end)
            });
            let found = found.map(|found| (found.text, found.payload.to_vec(), found.end));
            if found.is_none() {
                prop_assert_eq!(&bytes, &before, "what is left to the reader is as it came");
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn writing_agrees_with_the_codec(
            fin: bool, mask: Option<[u8; 4]>, bits in 0u8..8,
            len in prop_oneof![0usize..300, 65_000usize..66_000],
        ) {
            let rsv = Rsv::from_bits(bits);
            let codec = Codec {
                is_final: fin, rsv1: rsv.rsv1(), rsv2: rsv.rsv2(), rsv3: rsv.rsv3(),
                opcode: OpCode::Binary.into(), mask,
            };
            let (mut expected, mut ours) = (Vec::new(), Vec::new());
            codec.format(len as u64, &mut expected).unwrap();
            write_header_with(&mut ours, fin, rsv, OpCode::Binary, len, mask);
            prop_assert_eq!(ours, expected);
        }

        /// RFC 6455 section 5.3: octet i is XORed with octet i modulo 4 of the key.
        #[test]
        fn masking_follows_the_rfc_from_any_offset(
            payload in proptest::collection::vec(any::<u8>(), 0..400), mask: [u8; 4], offset in 0usize..9,
        ) {
            let expected = |payload: &[u8]| -> Vec<u8> {
                payload.iter().enumerate().map(|(i, b)| b ^ mask[(i + offset) % 4]).collect()
            };
            let mut ours = payload.clone();
            apply_mask(&mut ours, mask, offset);
            prop_assert_eq!(&ours, &expected(&payload));
            let (mut added, long) = (vec![7], payload.repeat(100));
            extend_unmasked(&mut added, &long, mask, offset);
            prop_assert_eq!(added, [vec![7], expected(&long)].concat());
        }
    }
}
