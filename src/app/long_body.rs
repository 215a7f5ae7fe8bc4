//! Bodies that are sent piece by piece, as the peer takes them.

use std::io;

use crate::app::file_body::{FileBody, PIECE_BYTES};
use crate::structures::produced::ProducedBody;

/// A body that is longer than what is worth copying at once.
#[derive(Debug)]
pub(crate) enum LongBody {
    File(FileBody),
    Bytes(Vec<u8>),
    /// They are part of the program.
    Static(&'static [u8]),
    Produced(ProducedBody),
}

impl LongBody {
    /// Its length, where it is known before it is sent.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::File(file) => Some(file.length()),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Static(bytes) => Some(bytes.len() as u64),
            Self::Produced(produced) => produced.length(),
        }
    }

    /// Bytes of memory that it takes until it is out.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::File(_) | Self::Static(_) | Self::Produced(_) => 0,
            Self::Bytes(bytes) => bytes.capacity(),
        }
    }

    /// Puts the next piece, which begins at `offset`, behind what is in `out`, and says how long it
    /// is; 0 at its end. An error where a file has become shorter than it was, or the application has one.
    pub(crate) fn read_piece(&self, offset: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_piece(offset, out),
            Self::Bytes(bytes) => Ok(copy_piece(bytes, offset, out)),
            Self::Static(bytes) => Ok(copy_piece(bytes, offset, out)),
            Self::Produced(produced) => produced.read_piece(out),
        }
    }
}

fn copy_piece(bytes: &[u8], offset: u64, out: &mut Vec<u8>) -> usize {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = bytes.get(from..).unwrap_or_default();
    let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
    out.extend_from_slice(piece);
    piece.len()
}
