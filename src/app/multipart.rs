//! Forms with files: the parts of a body that comes in pieces.

use crate::protocol::multipart::{MultipartFault, MultipartReader, Part, PartEvent, PartLimits};
use crate::words::bounds::LARGEST_SIZE;

use crate::app::body::BodyError;
use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::call::Call;
use crate::app::response::Response;

/// Takes the parts of a form (`multipart/form-data`), one behind the other; see [`multipart`].
///
/// ```
/// use wirewheel::body::{BodyNext, IncomingBody, MultipartHandler, Part};
/// use wirewheel::Response;
/// /// The fields of a form, of which none may be longer than 100 bytes.
/// #[derive(Default)]
/// struct Fields(Vec<(String, Vec<u8>)>);
/// impl MultipartHandler for Fields {
///     fn on_part(&mut self, _body: &mut IncomingBody<'_>, part: &Part) -> BodyNext {
///         self.0.push((part.name().to_owned(), Vec::new()));
///         BodyNext::Continue
///     }
///     fn on_piece(&mut self, _body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
///         let Some((_, value)) = self.0.last_mut() else { return BodyNext::Continue };
///         value.extend_from_slice(piece);
///         match value.len() {
///             0..=100 => BodyNext::Continue,
///             _ => BodyNext::Answer(Response::new(413)),
///         }
///     }
///     fn on_part_end(&mut self, _body: &mut IncomingBody<'_>) -> BodyNext {
///         BodyNext::Pause // until somebody calls resume_body
///     }
///     fn on_resume(&mut self, _body: &mut IncomingBody<'_>) -> BodyNext {
///         BodyNext::Continue
///     }
///     fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
///         Response::text(format!("{} fields", self.0.len()))
///     }
///     fn bytes_held(&self) -> usize {
///         self.0.iter().map(|(name, value)| name.capacity() + value.capacity()).sum()
///     }
/// }
/// ```
///
/// As with a [`BodyHandler`], one that is dropped without `on_end` had a body that did not come whole.
pub trait MultipartHandler {
    /// A part begins.
    fn on_part(&mut self, body: &mut IncomingBody<'_>, part: &Part) -> BodyNext;

    /// The next bytes of the part: never none, never more than the loop's read buffer; over TLS up to two
    /// records (32 KiB) more.
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext;

    /// The part is whole.
    fn on_part_end(&mut self, body: &mut IncomingBody<'_>) -> BodyNext {
        let _ = body;
        BodyNext::Continue
    }

    /// A pause is over; see [`BodyHandler::on_resume`].
    fn on_resume(&mut self, body: &mut IncomingBody<'_>) -> BodyNext {
        let _ = body;
        BodyNext::Continue
    }

    /// All parts are whole: the answer.
    fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response;

    /// Bytes of memory that it holds; see [`BodyHandler::bytes_held`].
    fn bytes_held(&self) -> usize {
        0
    }
}

/// What a form may have beside its content, which the route's
/// [`max_body_size`](crate::body::BodyRoute::max_body_size) bounds.
///
/// ```
/// use wirewheel::body::MultipartLimits;
/// let limits = MultipartLimits::new().parts(3).head_bytes(512);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "hand it to multipart"]
pub struct MultipartLimits(PartLimits);

impl Default for MultipartLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl MultipartLimits {
    /// 64 parts, with 2 KiB of lines each.
    pub fn new() -> Self {
        Self(PartLimits { parts: 64, head_bytes: 2 << 10 })
    }

    /// The most parts; a form with more gets 413.
    pub fn parts(mut self, parts: usize) -> Self {
        self.0.parts = parts;
        self
    }

    /// The most bytes of a part's lines, in which its names are; a form with more gets 431.
    pub fn head_bytes(mut self, bytes: usize) -> Self {
        self.0.head_bytes = bytes.min(LARGEST_SIZE);
        self
    }
}

/// Makes a [`BodyHandler`] of what takes the parts of a form, for
/// [`Routing::receive`](crate::Routing::receive). The guide's page [`bodies`](crate::guide::bodies) has an
/// example.
///
/// # Errors
/// The answer (415) to a request whose `Content-Type` is no `multipart/form-data` with a boundary. What
/// turns out malformed later is answered with 400.
///
/// ```
/// use wirewheel::body::{BodyHandler, MultipartHandler, MultipartLimits, multipart};
/// use wirewheel::{Call, Response};
/// fn form<H: MultipartHandler>(call: &Call, handler: H) -> Result<impl BodyHandler + use<H>, Response> {
///     multipart(call, MultipartLimits::new(), handler)
/// }
/// ```
pub fn multipart<H: MultipartHandler>(
    call: &Call,
    limits: MultipartLimits,
    handler: H,
) -> Result<Multipart<H>, Response> {
    let found = call.header("content-type");
    let reader = found.and_then(|found| MultipartReader::new(found, limits.0));
    let reader = reader.ok_or_else(|| BodyError::WrongType { found: found.map(str::to_owned) })?;
    Ok(Multipart { reader, handler, rest: Vec::new() })
}

/// The [`BodyHandler`] that [`multipart`] makes.
///
/// ```
/// use wirewheel::body::{BodyHandler, Multipart, MultipartHandler};
/// fn takes_bodies<H: MultipartHandler>(form: Multipart<H>) -> impl BodyHandler {
///     form
/// }
/// ```
#[derive(Debug)]
pub struct Multipart<H> {
    reader: MultipartReader,
    handler: H,
    /// What of a piece is not looked at yet, since the handler has paused in the middle of it.
    rest: Vec<u8>,
}

impl<H: MultipartHandler> Multipart<H> {
    fn take(&mut self, body: &mut IncomingBody<'_>, mut piece: &[u8]) -> BodyNext {
        loop {
            let next = match self.reader.next(&mut piece) {
                Ok(None) => return BodyNext::Continue,
                Ok(Some(PartEvent::Begin(part))) => self.handler.on_part(body, &part),
                Ok(Some(PartEvent::Content(content))) => self.handler.on_piece(body, content),
                Ok(Some(PartEvent::End)) => self.handler.on_part_end(body),
                Err(fault) => return BodyNext::Answer(refusal(fault)),
            };
            match next {
                BodyNext::Continue => {}
                BodyNext::Pause => {
                    self.rest = piece.to_vec();
                    return BodyNext::Pause;
                }
                answer @ BodyNext::Answer(_) => return answer,
            }
        }
    }
}

fn refusal(fault: MultipartFault) -> Response {
    let why = match fault {
        MultipartFault::Malformed => "the form is malformed",
        MultipartFault::TooManyParts => "the form has too many parts",
        MultipartFault::HeadTooLarge => "a part of the form has too many lines",
    };
    Response::refusal_because(fault.status(), &why)
}

impl<H: MultipartHandler> BodyHandler for Multipart<H> {
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
        self.take(body, piece)
    }

    fn on_resume(&mut self, body: &mut IncomingBody<'_>) -> BodyNext {
        match self.handler.on_resume(body) {
            BodyNext::Continue => {
                let rest = std::mem::take(&mut self.rest);
                self.take(body, &rest)
            }
            other => other,
        }
    }

    fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response {
        if self.reader.is_done() {
            return self.handler.on_end(body);
        }
        refusal(MultipartFault::Malformed)
    }

    fn bytes_held(&self) -> usize {
        let held = self.reader.memory().saturating_add(self.rest.capacity());
        held.saturating_add(self.handler.bytes_held())
    }
}
