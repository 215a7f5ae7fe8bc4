//! An answer with a long body, which is sent piece by piece as the peer takes them.

use std::io::{self, ErrorKind};

use crate::app::long_body::LongBody;

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct StreamedAnswer {
    body: LongBody,
    sent: u64,
    /// Each piece is a chunk (RFC 9112 section 7.1).
    chunked: bool,
    is_over: bool,
    /// The connection ends behind it.
    pub(crate) is_last: bool,
}

/// Room for the size of a chunk, which is known once its data are there.
const CHUNK_HEAD: &[u8] = b"00000000\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl StreamedAnswer {
    pub(crate) fn new(body: LongBody, chunked: bool, is_last: bool) -> Self {
        let chunked = chunked && body.length().is_none();
        let is_over = body.length() == Some(0);
        Self { body, sent: 0, chunked, is_over, is_last }
    }

    /// Whether all of it was put out.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Puts the next piece behind what is in `out`, and says how many bytes that are. On an error nothing is
    /// put there.
    pub(super) fn put_piece(&mut self, out: &mut Vec<u8>) -> io::Result<usize> {
        let begin = out.len();
        if self.chunked {
            out.extend_from_slice(CHUNK_HEAD);
        }
        let content_at = out.len();
        match self.body.read_piece(self.sent, out) {
            Ok(length) => self.note_piece(length, begin, content_at, out)?,
            Err(error) => {
                out.truncate(begin);
                return Err(error);
            }
        }
        Ok(out.len().saturating_sub(begin))
    }

    fn note_piece(
        &mut self,
        length: usize,
        begin: usize,
        content_at: usize,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.sent = self.sent.saturating_add(length as u64);
        match self.body.length() {
            // The length is announced, so less of it is not the whole.
            Some(_) if length == 0 => return Err(ErrorKind::UnexpectedEof.into()),
            Some(announced) => {
                // What is behind the announced end would be taken for the next answer.
                let more = self.sent.saturating_sub(announced);
                let kept = out.len().saturating_sub(usize::try_from(more).unwrap_or(usize::MAX));
                out.truncate(kept.max(content_at));
                self.is_over = self.sent >= announced;
            }
            None => self.is_over = length == 0,
        }
        // A chunk of no bytes is the last one (RFC 9112 section 7.1).
        if self.chunked && length == 0 {
            out.truncate(begin);
            out.extend_from_slice(LAST_CHUNK);
        } else if self.chunked {
            let head = format!("{length:08x}");
            let place = out.get_mut(begin..).and_then(|chunk| chunk.get_mut(..head.len()));
            if let Some(place) = place {
                place.copy_from_slice(head.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// How far it has come, for the log.
    pub(super) fn progress(&self) -> String {
        match self.body.length() {
            Some(length) => format!("{} of {length} bytes", self.sent),
            None => format!("{} bytes", self.sent),
        }
    }

    /// Bytes of memory that its body takes.
    pub(crate) fn memory(&self) -> usize {
        self.body.memory()
    }
}
