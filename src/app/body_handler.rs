//! Bodies that come in pieces: what an application makes of one.

use std::fmt;

use crate::context::loop_state::ServerRef;
use crate::structures::ids::BodyId;

use crate::app::response::Response;

/// Takes one request body piece by piece; see [`Routing::receive`](crate::Routing::receive).
///
/// Each request has a handler of its own. If the body does not come whole (its sender is gone, too slow or
/// sends what is no body), the handler is dropped without [`on_end`](Self::on_end): what was begun is taken
/// back in its `Drop`.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # {
/// use wirewheel::body::{BodyHandler, BodyNext, IncomingBody};
/// use wirewheel::{Application, Call, Response};
///
/// /// Counts lines, whatever the size of the text.
/// #[derive(Default)]
/// struct Lines(usize);
///
/// impl BodyHandler for Lines {
///     fn on_piece(&mut self, _body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
///         self.0 += piece.iter().filter(|byte| **byte == b'\n').count();
///         if self.0 > 1_000_000 {
///             return BodyNext::Answer(Response::text("too many lines").status(413));
///         }
///         BodyNext::Continue
///     }
///     fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response {
///         Response::text(format!("{} lines in {} bytes", self.0, body.received()))
///     }
/// }
///
/// /// Keeps all, and wants no more than a piece before it is asked for the next.
/// struct Spool(Vec<u8>);
///
/// impl BodyHandler for Spool {
///     fn on_piece(&mut self, _body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext {
///         self.0.extend_from_slice(piece);
///         BodyNext::Pause
///     }
///     fn on_resume(&mut self, _body: &mut IncomingBody<'_>) -> BodyNext {
///         self.0.clear();
///         BodyNext::Continue
///     }
///     fn on_end(&mut self, _body: &mut IncomingBody<'_>) -> Response {
///         Response::new(204)
///     }
///     fn bytes_held(&self) -> usize {
///         self.0.capacity()
///     }
/// }
///
/// fn module(app: &mut Application) {
///     app.routing(|route| {
///         route.receive("POST", "/lines", |_call: &Call| Ok(Lines::default()));
///         route.receive("POST", "/spool", |_call: &Call| Ok(Spool(Vec::new())));
///     });
/// }
/// # wirewheel::testing::TestApplication::new(module).unwrap();
/// # }
/// ```
pub trait BodyHandler {
    /// The next bytes have come: never none, and never more than the loop's read buffer; over TLS up to
    /// two records (32 KiB) more.
    fn on_piece(&mut self, body: &mut IncomingBody<'_>, piece: &[u8]) -> BodyNext;

    /// [`ServerRef::resume_body`] was called for a body that was paused.
    fn on_resume(&mut self, body: &mut IncomingBody<'_>) -> BodyNext {
        let _ = body;
        BodyNext::Continue
    }

    /// The body is whole: the answer. The last hook.
    fn on_end(&mut self, body: &mut IncomingBody<'_>) -> Response;

    /// Bytes of memory that it holds beside its own size, to be counted in `process_bytes`; asked after
    /// every hook. Default 0.
    fn bytes_held(&self) -> usize {
        0
    }
}

/// What is to follow a piece of a body.
///
/// ```
/// use wirewheel::Response;
/// use wirewheel::body::BodyNext;
/// let no_room = BodyNext::Answer(Response::text("the flash is full").status(507));
/// # let _ = (no_room, BodyNext::Continue, BodyNext::Pause);
/// ```
#[derive(Clone, Debug)]
pub enum BodyNext {
    /// The next piece.
    Continue,
    /// Nothing, until [`ServerRef::resume_body`] is called: the body is not read, and its sender is slowed
    /// down by its own connection. A sender that goes away meanwhile is noticed, and after `close_timeout`
    /// the handler is dropped; how long a pause may take is bounded by `pause_timeout`.
    Pause,
    /// This answer at once. What is left of the body is dropped: up to 64 KiB of an announced length are
    /// read to their end; of more, of chunks, and where the client has asked with `Expect`, the connection
    /// ends.
    Answer(Response),
}

/// The request body of which a piece has come, lent to the hooks of its [`BodyHandler`].
///
/// ```
/// use wirewheel::body::IncomingBody;
/// fn percent(body: &IncomingBody<'_>) -> Option<u64> {
///     Some(100 * body.received() / body.expected()?.max(1))
/// }
/// fn room(body: &mut IncomingBody<'_>) -> bool {
///     let (id, mut server) = (body.id(), body.server());
///     println!("{id:?} on a server with {} sessions", server.session_count());
///     server.session_count() < 100
/// }
/// ```
pub struct IncomingBody<'a> {
    pub(crate) server: ServerRef<'a>,
    pub(crate) id: BodyId,
    pub(crate) received: u64,
    pub(crate) expected: Option<u64>,
}

impl fmt::Debug for IncomingBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, received) = (self.id, self.received);
        f.debug_struct("IncomingBody").field("id", &id).field("received", &received).finish()
    }
}

impl IncomingBody<'_> {
    /// What [`ServerRef::resume_body`] is to be given.
    pub fn id(&self) -> BodyId {
        self.id
    }

    /// Bytes that have come, with this piece.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that it has in all, where its sender has said so (`Content-Length`).
    pub fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// The server: sessions, flows, timers.
    pub fn server(&mut self) -> ServerRef<'_> {
        ServerRef { shared: self.server.shared }
    }
}
