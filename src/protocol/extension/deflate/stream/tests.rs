//! Compressors and inflaters that are lent: what they make, and what they take.

use super::*;
use proptest::prelude::*;

fn inflate(
    inflater: &mut Inflater,
    payload: &[u8],
    limit: usize,
) -> Result<Vec<u8>, ExtensionError> {
    let mut body = Vec::new();
    inflater.feed(payload, &mut body, limit)?;
    inflater.end_message(&mut body, limit)?;
    Ok(body)
}

/// A raw stream that ends with a flush of this kind.
fn deflated(data: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut stream = Compress::new(Compression::new(9), false);
    let mut out = Vec::with_capacity(data.len() / 500 + 1_000);
    stream.compress_vec(data, &mut out, flush).unwrap();
    assert_eq!(stream.total_in(), data.len() as u64);
    out
}

/// Bytes without a pattern (xorshift).
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_ne_bytes()[1]
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// RFC 7692 section 7.2.3: its examples, byte by byte.
#[test]
fn the_examples_of_the_rfc_inflate() {
    let mut inflater = Inflater::default();
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(inflate(&mut inflater, hello, 5).unwrap(), b"Hello");
    // 7.2.3.2: with the window of the message before.
    assert_eq!(inflate(&mut inflater, b"\xf2\x00\x11\x00\x00", 5).unwrap(), b"Hello");
    // 7.2.3.3: not compressed.
    let stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
    assert_eq!(inflate(&mut inflater, stored, 5).unwrap(), b"Hello");
    // 7.2.3.5: two blocks.
    let two = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    assert_eq!(inflate(&mut inflater, two, 5).unwrap(), b"Hello");
    // 7.2.3.4: a final block, in the form that is sent, and then another message.
    let last = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
    assert_eq!(inflate(&mut inflater, last, 5).unwrap(), b"Hello");
    assert_eq!(inflate(&mut inflater, hello, 5).unwrap(), b"Hello");
    // 7.2.3.6: an empty message; and the same from peers that send no byte for it.
    assert_eq!(inflate(&mut inflater, b"\x00", 5).unwrap(), b"");
    assert_eq!(inflate(&mut inflater, b"", 5).unwrap(), b"");
    // A final block with nothing behind it, from peers that forget the byte.
    assert_eq!(inflate(&mut inflater, b"\xf3\x48\xcd\xc9\xc9\x07\x00", 5).unwrap(), b"Hello");
    assert_eq!(inflate(&mut inflater, hello, 5).unwrap(), b"Hello");
}

#[test]
fn a_compressor_writes_what_the_rfc_shows() {
    let mut compressor = Compressor::new(6, 15);
    // Too short to be smaller: 7 bytes for 5.
    assert_eq!(compressor.compress(b"Hello", true), None);
    let text = b"Hello, Hello, Hello, Hello";
    let first = compressor.compress(text, true).unwrap();
    let second = compressor.compress(text, true).unwrap();
    assert!(second.len() < first.len(), "the context helps: {first:?}, {second:?}");
    let mut inflater = Inflater::default();
    assert_eq!(inflate(&mut inflater, &first, 99).unwrap(), text);
    assert_eq!(inflate(&mut inflater, &second, 99).unwrap(), text);
    // What is not sent compressed leaves no trace in the context.
    let noise = noise(2_000);
    assert_eq!(compressor.compress(&noise, true), None);
    let third = compressor.compress(text, true).unwrap();
    assert_eq!(inflate(&mut inflater, &third, 99).unwrap(), text);
}

#[test]
fn every_window_size_round_trips_and_keeps_to_its_window() {
    // The only repetition is 600 bytes back: out of sight for 9 bits.
    let half = noise(600);
    let data = [&half[..], &half].concat();
    let sizes: Vec<usize> = (9..=15)
        .map(|bits| {
            let mut compressor = Compressor::new(9, bits);
            let Some(out) = compressor.compress(&data, false) else { return data.len() };
            assert_eq!(inflate(&mut Inflater::default(), &out, data.len()).unwrap(), data);
            out.len()
        })
        .collect();
    assert_eq!(sizes[0], data.len(), "{sizes:?}");
    assert!(sizes[2..].iter().all(|&size| size < 700), "{sizes:?}");
}

#[test]
fn at_most_a_byte_over_the_limit_is_inflated() {
    let limit = 2 << 20;
    let zeros = vec![0; 8 << 20];
    for flush in [FlushCompress::Sync, FlushCompress::Full, FlushCompress::Finish] {
        let bomb = deflated(&zeros, flush);
        for piece_bytes in [bomb.len(), 64, 1] {
            let mut inflater = Inflater::default();
            let mut body = Vec::new();
            let ends: Vec<_> = bomb
                .chunks(piece_bytes)
                .map(|piece| inflater.feed(piece, &mut body, limit))
                .take_while(Result::is_ok)
                .collect();
            assert!(ends.len() < bomb.len().div_ceil(piece_bytes), "it was stopped");
            assert!(inflater.stream.total_out() <= limit as u64 + 1);
            assert!(body.capacity() <= limit + 1, "{}", body.capacity());
        }
    }
}

#[test]
fn a_message_of_the_limit_passes_and_a_byte_more_does_not() {
    for limit in [1, 100, 1_023, 1_024, 1_025, 70_000] {
        let data = vec![7; limit];
        let payload = deflated(&data, FlushCompress::Sync);
        let payload = payload.strip_suffix(&TAIL).unwrap();
        assert_eq!(inflate(&mut Inflater::default(), payload, limit), Ok(data));
        let less = inflate(&mut Inflater::default(), payload, limit - 1);
        assert_eq!(less, Err(ExtensionError::TooBig), "{limit}");
    }
}

#[test]
fn corrupt_data_is_refused_and_final_blocks_are_counted() {
    for corrupt in [&b"\x07"[..], b"\xff\xff\xff", b"\x00\x05\x00\x00\x00Hello"] {
        let error = inflate(&mut Inflater::default(), corrupt, 99).unwrap_err();
        assert_eq!(error.close_code(), CloseCode::NOT_CONSISTENT, "{corrupt:?}");
    }
    let finals = |count: usize| b"\x03\x00".repeat(count);
    let most = STREAMS_MAX as usize;
    assert_eq!(inflate(&mut Inflater::default(), &finals(most), 9), Ok(Vec::new()));
    assert!(inflate(&mut Inflater::default(), &finals(most + 1), 9).is_err());
}

#[test]
fn between_messages_one_inflater_is_kept() {
    let streams = Streams::default();
    let (first, second) = (streams.take_inflater(), streams.take_inflater());
    streams.give_back(first);
    streams.give_back(second);
    assert!(streams.spare.borrow().is_some());
    let mut kept = streams.take_inflater();
    assert!(streams.spare.borrow().is_none());
    assert_eq!(inflate(&mut kept, b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5).unwrap(), b"Hello");
}

/// What these bytes make, cut at these places.
fn in_pieces(bytes: &[u8], cuts: &[usize], limit: usize) -> Result<Vec<u8>, ExtensionError> {
    let mut inflater = Inflater::default();
    let mut body = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        inflater.feed(&bytes[start..end], &mut body, limit)?;
        start = end;
    }
    inflater.end_message(&mut body, limit)?;
    Ok(body)
}

fn places(cuts: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    places.sort_unstable();
    places
}

proptest! {
    /// Whatever arrives, and however it is cut: the same end, and never over the limit.
    #[test]
    fn any_bytes_in_any_pieces_have_one_outcome(
        start in prop::sample::select(vec![&b""[..], b"\xf2\x48", b"\x03\x00", b"\x00\x05\x00"]),
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        limit in 1usize..300,
    ) {
        let bytes = [start, &bytes].concat();
        let whole = in_pieces(&bytes, &[], limit);
        prop_assert_eq!(&in_pieces(&bytes, &places(&cuts, bytes.len()), limit), &whole);
        prop_assert!(whole.map_or(0, |body| body.len()) <= limit);
    }

    /// What is compressed inflates again, with a context and without, at every level and window.
    #[test]
    fn messages_make_the_round_trip(
        messages in proptest::collection::vec("[ab]{0,300}|.{0,40}", 1..6),
        level in 0u32..10, window_bits in 9u8..16, keeps_context: bool,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut compressor = Compressor::new(level, window_bits);
        let mut inflater = Inflater::default();
        for message in &messages {
            let Some(packed) = compressor.compress(message.as_bytes(), keeps_context) else {
                continue;
            };
            prop_assert!(packed.len() < message.len());
            let got = inflate(&mut inflater, &packed, message.len());
            prop_assert_eq!(got.as_deref(), Ok(message.as_bytes()));
            if !keeps_context {
                let cuts = places(&cuts, packed.len());
                let got = in_pieces(&packed, &cuts, message.len());
                prop_assert_eq!(got.as_deref(), Ok(message.as_bytes()));
            }
        }
    }
}
