//! Bodies of answers, and messages, that are made as they are sent.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::rc::Rc;

/// Makes the pieces of a body or a message, one a call.
type Produce = dyn FnMut(&mut BodyPiece<'_>) -> io::Result<()>;

/// The body of an answer, or a message, that the application makes while it is sent.
#[derive(Clone)]
pub(crate) struct ProducedBody {
    produce: Rc<RefCell<Produce>>,
    length: Option<u64>,
}

impl fmt::Debug for ProducedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProducedBody").field("length", &self.length).finish_non_exhaustive()
    }
}

impl PartialEq for ProducedBody {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.produce, &other.produce)
    }
}

impl Eq for ProducedBody {}

impl ProducedBody {
    pub(crate) fn new(
        length: Option<u64>,
        produce: impl FnMut(&mut BodyPiece<'_>) -> io::Result<()> + 'static,
    ) -> Self {
        Self { produce: Rc::new(RefCell::new(produce)), length }
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Puts the next piece behind what is in `out`, and says how long it is.
    pub(crate) fn read_piece(&self, out: &mut Vec<u8>) -> io::Result<usize> {
        let begin = out.len();
        // Two answers of one value, cloned, would take each other's pieces; a panic leaves it borrowed.
        let mut produce = self.produce.try_borrow_mut().map_err(io::Error::other)?;
        let result = produce(&mut BodyPiece { out });
        match result {
            Ok(()) => Ok(out.len().saturating_sub(begin)),
            Err(error) => {
                out.truncate(begin);
                Err(error)
            }
        }
    }
}

/// A piece of an answer, or of a message, while it is made; written to with [`Write`], and kept until the
/// peer takes it. Some 32 KiB are a good size.
///
/// ```
/// use std::io::{self, Read, Write};
/// use wirewheel::Response;
/// use wirewheel::body::BodyPiece;
/// /// Whatever a reader that never waits gives.
/// fn all_of(mut reader: impl Read + 'static) -> Response {
///     Response::stream(move |piece: &mut BodyPiece<'_>| {
///         io::copy(&mut reader.by_ref().take(32 << 10), piece).map(drop)
///     })
/// }
/// # let _ = all_of(io::empty());
/// ```
pub struct BodyPiece<'a> {
    out: &'a mut Vec<u8>,
}

impl fmt::Debug for BodyPiece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyPiece").finish_non_exhaustive()
    }
}

impl Write for BodyPiece<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
