//! What a route does with a request body, as core sees it: behind pointers, so that a server without such
//! routes has no code for them.

use std::rc::Rc;

use crate::context::loop_state::{LoopState, ServerRef};
use crate::protocol::body::{BodyDecoder, BodyFault};
#[cfg(feature = "json")]
use crate::protocol::content::Converter;
use crate::protocol::framing::BodyFraming;
use crate::structures::ids::BodyId;

use crate::app::body::Body;
use crate::app::body_handler::{BodyHandler, BodyNext, IncomingBody};
use crate::app::call::Call;
use crate::app::origins::OriginRules;
use crate::app::response::Response;

/// A finished route for requests with bodies.
pub(crate) trait BodyEndpoint {
    /// Lets a request's body in, or refuses it by what its head says, and why.
    fn begin(
        &self,
        call: &Call,
        max_overhead: usize,
    ) -> Result<Box<dyn BodyIntake>, (Response, &'static str)>;

    /// Whose pages may send what changes something; `None` if the method changes nothing.
    fn origins(&self) -> Option<&OriginRules>;
}

/// One body on its way in.
pub(crate) trait BodyIntake {
    /// Takes the body's part of some bytes: how many they are, and what follows.
    fn take(
        &mut self,
        call: &Call,
        input: &mut [u8],
        shared: &mut LoopState,
        id: BodyId,
    ) -> Result<(usize, IntakeNext), BodyFault>;

    /// Goes on after a pause.
    fn resume(&mut self, shared: &mut LoopState, id: BodyId) -> IntakeNext;

    /// What of the body has not come.
    fn rest(&self) -> BodyFraming;

    /// Bytes of content that have come.
    fn received(&self) -> u64;

    /// Bytes of memory that it takes.
    fn memory(&self) -> usize;
}

/// What follows some bytes of a body.
#[derive(Debug)]
pub(crate) enum IntakeNext {
    More,
    Paused,
    Answer(Response),
}

/// Answers a request with a whole body.
pub(crate) type WholeAnswer = Rc<dyn Fn(&Call, Body<'_>) -> Response>;

/// Gathers a body until it is whole.
pub(crate) struct WholeIntake {
    pub(crate) decoder: BodyDecoder,
    /// What came in earlier reads.
    pub(crate) kept: Vec<u8>,
    pub(crate) answer: WholeAnswer,
    #[cfg(feature = "json")]
    pub(crate) converter: Converter,
}

impl WholeIntake {
    fn answer(&self, call: &Call, bytes: &[u8]) -> IntakeNext {
        let body = Body::new(
            bytes,
            call,
            #[cfg(feature = "json")]
            &self.converter,
        );
        IntakeNext::Answer((self.answer)(call, body))
    }
}

impl BodyIntake for WholeIntake {
    fn take(
        &mut self,
        call: &Call,
        input: &mut [u8],
        _shared: &mut LoopState,
        _id: BodyId,
    ) -> Result<(usize, IntakeNext), BodyFault> {
        let decoded = self.decoder.decode(input)?;
        let content = input.get(..decoded.content).unwrap_or_default();
        let next = match (self.decoder.is_done(), self.kept.is_empty()) {
            // It came in one read, and is lent from there.
            (true, true) => self.answer(call, content),
            (is_whole, _) => {
                self.kept.extend_from_slice(content);
                if is_whole { self.answer(call, &self.kept) } else { IntakeNext::More }
            }
        };
        Ok((decoded.taken, next))
    }

    fn resume(&mut self, _shared: &mut LoopState, _id: BodyId) -> IntakeNext {
        IntakeNext::More // nothing pauses it
    }

    fn rest(&self) -> BodyFraming {
        self.decoder.rest()
    }

    fn received(&self) -> u64 {
        self.decoder.received()
    }

    fn memory(&self) -> usize {
        size_of::<Self>().saturating_add(self.kept.capacity())
    }
}

/// Hands a body on as it comes.
pub(crate) struct PiecesIntake<H> {
    pub(crate) decoder: BodyDecoder,
    pub(crate) expected: Option<u64>,
    pub(crate) handler: H,
}

impl<H: BodyHandler> PiecesIntake<H> {
    fn hand_on(
        &mut self,
        shared: &mut LoopState,
        id: BodyId,
        hook: impl FnOnce(&mut H, &mut IncomingBody<'_>) -> BodyNext,
    ) -> IntakeNext {
        let (received, expected) = (self.decoder.received(), self.expected);
        let mut body = IncomingBody { server: ServerRef { shared }, id, received, expected };
        match hook(&mut self.handler, &mut body) {
            BodyNext::Continue if self.decoder.is_done() => {
                IntakeNext::Answer(self.handler.on_end(&mut body))
            }
            BodyNext::Continue => IntakeNext::More,
            BodyNext::Pause => IntakeNext::Paused,
            BodyNext::Answer(response) => IntakeNext::Answer(response),
        }
    }
}

impl<H: BodyHandler> BodyIntake for PiecesIntake<H> {
    fn take(
        &mut self,
        _call: &Call,
        input: &mut [u8],
        shared: &mut LoopState,
        id: BodyId,
    ) -> Result<(usize, IntakeNext), BodyFault> {
        let decoded = self.decoder.decode(input)?;
        let piece = input.get(..decoded.content).unwrap_or_default();
        let next = self.hand_on(shared, id, |handler, body| match piece {
            [] => BodyNext::Continue, // framing alone
            _ => handler.on_piece(body, piece),
        });
        Ok((decoded.taken, next))
    }

    fn resume(&mut self, shared: &mut LoopState, id: BodyId) -> IntakeNext {
        self.hand_on(shared, id, BodyHandler::on_resume)
    }

    fn rest(&self) -> BodyFraming {
        self.decoder.rest()
    }

    fn received(&self) -> u64 {
        self.decoder.received()
    }

    fn memory(&self) -> usize {
        size_of::<Self>().saturating_add(self.handler.bytes_held())
    }
}
