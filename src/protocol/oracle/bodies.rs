//! What must hold of request bodies however they are cut, and of the forms in them.

use crate::protocol::body::{BodyDecoder, BodyFault};
use crate::protocol::framing::BodyFraming;
use crate::protocol::multipart::{MultipartFault, MultipartReader, Part, PartEvent, PartLimits};
use crate::protocol::oracle::verdict::pieces;

/// Checks what stands behind a head, read in the framing that `options` draw. Cutting changes neither the
/// content nor where it ends nor why it is refused; what is content in one framing is the same in another,
/// and as a form.
pub(crate) fn check_body(options: u8, bytes: &[u8], cuts: &[usize]) {
    let framing = match options & 3 {
        0 => BodyFraming::Length(bytes.len() as u64),
        1 => BodyFraming::Length(u64::from(options)),
        _ => BodyFraming::Chunked,
    };
    let whole = decoded(framing, &[bytes]);
    assert_eq!(decoded(framing, &pieces(bytes, cuts)), whole);
    let Ok((content, taken, true)) = whole else { return };
    assert!(taken <= bytes.len() && content.len() <= taken);
    let mut again = Vec::new();
    for chunk in content.chunks(1 + usize::from(options)) {
        again.extend_from_slice(format!("{:X};a\r\n", chunk.len()).as_bytes());
        again.extend_from_slice(chunk);
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(b"0\r\nA: b\r\n\r\n");
    let end = again.len();
    again.extend_from_slice(b"GET");
    let overhead = 1 + content.len();
    if overhead < BODY_OVERHEAD_MAX {
        assert_eq!(decoded(BodyFraming::Chunked, &[&again]), Ok((content.clone(), end, true)));
    }
    let parts = parts_of(&[&content]);
    assert_eq!(parts_of(&pieces(&content, cuts)), parts);
}

/// Of chunk extensions and trailers in a body.
const BODY_OVERHEAD_MAX: usize = 4_096;

/// The content of a body in pieces, how many bytes it takes, and whether it is whole.
fn decoded(framing: BodyFraming, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyFault> {
    let mut decoder = BodyDecoder::new(framing, 100_000, BODY_OVERHEAD_MAX)?;
    let (mut content, mut taken) = (Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let decoded = decoder.decode(&mut piece)?;
        assert!(decoded.taken == piece.len() || decoder.is_done());
        content.extend_from_slice(&piece[..decoded.content]);
        taken += decoded.taken;
    }
    assert_eq!(decoder.received(), content.len() as u64);
    Ok((content, taken, decoder.is_done()))
}

type FormParts = Vec<(Part, Vec<u8>)>;

/// The parts of a form, each with its content, and whether it is whole.
fn parts_of(pieces: &[&[u8]]) -> Result<(FormParts, bool), MultipartFault> {
    let limits = PartLimits { parts: 8, head_bytes: 500 };
    let kind = "multipart/form-data; boundary=b";
    let Some(mut reader) = MultipartReader::new(kind, limits) else { panic!("a plain boundary") };
    let (mut parts, mut open) = (FormParts::new(), false);
    for mut piece in pieces.iter().copied() {
        while let Some(event) = reader.next(&mut piece)? {
            match event {
                PartEvent::Begin(part) => {
                    assert!(!std::mem::replace(&mut open, true));
                    parts.push((part, Vec::new()));
                }
                PartEvent::Content(content) => {
                    assert!(open && !content.is_empty());
                    if let Some((_, known)) = parts[..].last_mut() {
                        known.extend_from_slice(content);
                    }
                }
                PartEvent::End => assert!(std::mem::replace(&mut open, false)),
            }
        }
        assert!(piece.is_empty() && reader.memory() < 2_000);
    }
    // Of a part that is not over, the last bytes may be the start of a delimiter, and are not told.
    if open {
        parts.pop();
    }
    Ok((parts, reader.is_done()))
}
