//! The fuzzer's target for compressed messages: whole, as they arrive, and as a handler of pieces takes them.

use crate::protocol::extension::deflate::Deflate;
use crate::protocol::extension::header::ExtensionOffer;
use crate::protocol::extension::{Extension, ExtensionFactory, ExtensionMessage, MessagePiece};
use crate::protocol::oracle::verdict::pieces;
use crate::words::message::Rsv;

/// Compressed messages: a byte of options, cuts, and what is inflated, whole and in pieces.
pub(super) fn check(options: u8, bytes: &[u8], cuts: &[usize], offer: &ExtensionOffer) {
    let limit = [10, 1_000, 70_000, 500_000][usize::from(options & 3)];
    let keeps = options & 4 != 0;
    let whole = inflated(&[bytes], limit, keeps, offer);
    let cut = inflated(&pieces(bytes, cuts), limit, keeps, offer);
    // Data that is corrupt and over the limit has two faults: the cut may decide which is met first.
    assert!(cut == whole || (cut.is_err() && whole.is_err()), "{cut:?} for {whole:?}");
    if let Ok(body) = &whole {
        let arriving = pieces(bytes, cuts);
        assert_eq!(inflated_in_pieces(&arriving, keeps, offer).as_ref(), Ok(body));
        let packed = deflated_in_pieces(&pieces(body, cuts), keeps, offer);
        assert_eq!(inflated(&[&packed], body.len(), keeps, offer).as_ref(), Ok(body));
    }
    let Ok(body) = whole else { return };
    assert!(body.len() <= limit);
    // What we compress, we inflate to the same.
    let mut message = ExtensionMessage::new(false, Rsv::NONE, body.as_slice());
    assert!(deflate_state(keeps, offer).encode(&mut message, limit).is_ok());
    if message.rsv().rsv1() {
        assert!(message.payload().len() < body.len());
        assert_eq!(inflated(&[message.payload()], limit, keeps, offer), Ok(body));
    }
}

fn deflate_state(keeps: bool, offer: &ExtensionOffer) -> Box<dyn Extension> {
    let deflate = Deflate::new().client_context_takeover(keeps).server_context_takeover(keeps);
    match deflate.negotiate(offer) {
        Some(agreement) => agreement.into_parts().1,
        None => panic!("a plain offer is accepted"),
    }
}

/// The same for a handler that takes pieces, some hundred bytes at a time.
fn inflated_in_pieces(
    pieces: &[&[u8]],
    keeps: bool,
    offer: &ExtensionOffer,
) -> Result<Vec<u8>, u16> {
    const ROOM: usize = 700;
    let mut state = deflate_state(keeps, offer);
    let state = state.in_pieces().expect("it takes pieces");
    let mut whole = Vec::new();
    let count = pieces.len().max(1);
    for (number, bytes) in pieces.iter().copied().chain([&[][..]]).take(count).enumerate() {
        let (mut rest, last) = (bytes, number + 1 == count);
        loop {
            let mut body = Vec::new();
            let piece = MessagePiece::new(false, Rsv::RSV1, rest, (whole.is_empty(), last));
            let taken = state.decode_some(&piece, &mut body, ROOM);
            let taken = taken.map_err(|error| u16::from(error.close_code()))?;
            assert!(taken == rest.len() || body.len() >= ROOM, "{taken} of {} taken", rest.len());
            assert!(body.len() <= ROOM + (8 << 10), "{} in a piece", body.len());
            whole.extend(body);
            rest = &rest[taken..];
            if rest.is_empty() {
                break;
            }
        }
    }
    Ok(whole)
}

/// A message that is sent in pieces.
fn deflated_in_pieces(pieces: &[&[u8]], keeps: bool, offer: &ExtensionOffer) -> Vec<u8> {
    let mut state = deflate_state(keeps, offer);
    let state = state.in_pieces().expect("it takes pieces");
    let mut packed = Vec::new();
    for (number, bytes) in pieces.iter().copied().chain([&[][..]]).enumerate() {
        let edges = (number == 0, number == pieces.len());
        let piece = MessagePiece::new(false, Rsv::NONE, bytes, edges);
        assert_eq!(state.encode_some(&piece, &mut packed), Ok(Rsv::RSV1));
    }
    packed
}

fn inflated(
    pieces: &[&[u8]],
    limit: usize,
    keeps: bool,
    offer: &ExtensionOffer,
) -> Result<Vec<u8>, u16> {
    let mut state = deflate_state(keeps, offer);
    let mut body = Vec::new();
    for (number, bytes) in pieces.iter().enumerate() {
        let last = number + 1 == pieces.len();
        let piece = MessagePiece::new(false, Rsv::RSV1, bytes, (number == 0, last));
        let outcome = state.decode_piece(&piece, &mut body, limit);
        outcome.map_err(|error| u16::from(error.close_code()))?;
        assert!(body.capacity() <= limit + 1, "{} for a limit of {limit}", body.capacity());
    }
    if pieces.is_empty() {
        return inflated(&[&[]], limit, keeps, offer);
    }
    Ok(body)
}
