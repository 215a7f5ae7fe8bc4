//! The pipeline of a session that looks below messages: its agreed extensions, the message and frame
//! that are on their way through them, whether its handler is raw, or what makes events of its messages.

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use crate::protocol::extension::in_pieces::PieceExtension;
use crate::protocol::extension::{
    Extension, ExtensionMessage, MessagePiece, fault, too_big, wire_limit,
};
use crate::protocol::frame::{FrameHeader, FrameRules};
use crate::protocol::frame_reader::{Assembly, PartialFrame};
use crate::protocol::piece_reader::{PieceReader, PieceStep, next_piece};
use crate::session::agreement::{Agreed, Delivery, PipelineStage};
use crate::session::event_stream::EventEncoder;
use crate::structures::spare_buffers::SpareBuffers;
use crate::words::error::SessionError;
use crate::words::extension::ExtensionError;
use crate::words::frame::OpCode;
use crate::words::message::{Message, Rsv};
use crate::words::mix::mixed;

/// Present in a session that is raw, has extensions or is an event stream; absent in one that needs
/// nothing but messages in frames.
pub(crate) struct Pipeline {
    kind: Kind,
    pub(crate) partial: Option<Box<PartialFrame>>,
    /// A message that arrives in several pieces.
    incoming: Option<Box<Incoming>>,
    /// A message that is sent in fragments: it is encoded when it is whole.
    outgoing: Vec<u8>,
    /// A message is being sent of which nothing is kept.
    pub(crate) sends_pieces: bool,
    /// An extension failed at a message that was to be sent, and the session ends for it.
    pub(crate) has_failed: bool,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("raw", &self.is_raw()).finish_non_exhaustive()
    }
}

/// What is between the handler and the wire. Extensions stand in the order of the answer.
enum Kind {
    /// Messages pass the extensions.
    Messages(Box<[PipelineStage]>),
    /// The handler is handed frames, and applies the extensions itself if it likes.
    Raw(Box<[PipelineStage]>),
    /// The handler is handed messages in pieces. Boxed, since there is a pipeline for each event stream.
    Pieces(Box<InPieces>),
    /// Messages become events.
    Events {
        /// That of the encoder, which is looked at for each delivery.
        share_key: u8,
        encoder: Rc<dyn EventEncoder>,
    },
}

struct InPieces {
    reader: PieceReader,
    stages: Box<[PipelineStage]>,
}

struct Incoming {
    text: bool,
    rsv: Rsv,
    /// Payload bytes that the headers so far have announced.
    announced: usize,
    /// The most bytes of it, as it was where the frame began that is on its way.
    limit: usize,
    body: Vec<u8>,
}

/// Why there is nothing of a message to send.
#[derive(Debug)]
pub(crate) enum NotEncoded {
    /// It is over the limit. Not in step is an extension that has encoded it and may build on that, since
    /// the peer does not get it.
    TooBig {
        in_step: bool,
    },
    Failed(ExtensionError),
}

/// Making one.
impl Pipeline {
    /// What a new session needs of it.
    pub(crate) fn for_session(delivery: Delivery, agreed: Agreed) -> Option<Box<Self>> {
        let stages = agreed.stages.into_boxed_slice();
        Some(Self::of(match delivery {
            // Most sessions need neither: the plain path pays one `Option`.
            Delivery::Messages if stages.is_empty() => return None,
            Delivery::Messages => Kind::Messages(stages),
            Delivery::Frames => Kind::Raw(stages),
            Delivery::Pieces => {
                Kind::Pieces(Box::new(InPieces { reader: PieceReader::default(), stages }))
            }
        }))
    }

    /// What an event stream needs.
    pub(crate) fn for_events(encoder: Rc<dyn EventEncoder>) -> Box<Self> {
        Self::of(Kind::Events { share_key: encoder.share_key(), encoder })
    }

    fn of(kind: Kind) -> Box<Self> {
        Box::new(Self {
            kind,
            partial: None,
            incoming: None,
            outgoing: Vec::new(),
            sends_pieces: false,
            has_failed: false,
        })
    }
}

/// Asking.
impl Pipeline {
    /// Whether the handler is handed frames.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.kind, Kind::Raw(_))
    }

    /// Whether the handler is handed messages in pieces.
    pub(crate) fn is_in_pieces(&self) -> bool {
        matches!(self.kind, Kind::Pieces(_))
    }

    /// The next step of a message in pieces; see [`next_piece`].
    pub(crate) fn next_piece<'a>(
        &mut self,
        rx: &'a mut [u8],
        rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        let Kind::Pieces(pieces) = &mut self.kind else {
            return Ok((PieceStep::Nothing, 0));
        };
        let InPieces { reader, stages } = &mut **pieces;
        let extension = stages.first_mut().and_then(|stage| stage.extension.in_pieces());
        next_piece(reader, extension, &mut self.partial, rx, rules)
    }

    /// The one extension that encodes messages in pieces; `None` if there are several, or it cannot.
    pub(crate) fn piece_encoder(&mut self) -> Option<&mut dyn PieceExtension> {
        match self.stages_mut() {
            [only] => only.extension.in_pieces(),
            _ => None,
        }
    }

    /// What makes events of its messages, if something does.
    pub(crate) fn events(&self) -> Option<&Rc<dyn EventEncoder>> {
        let Kind::Events { encoder, .. } = &self.kind else { return None };
        Some(encoder)
    }

    /// What two event streams share that get the same bytes of a message; `None` where frames are sent.
    #[inline]
    pub(crate) fn event_share_key(&self) -> Option<u64> {
        let Kind::Events { share_key, .. } = self.kind else { return None };
        // Any two numbers do: those of extensions are mixed.
        Some(u64::from(share_key))
    }

    /// The share key, which is none, of messages that no extension encodes; `None` if one does.
    #[inline(never)] // so that a delivery of events asks for nothing but events
    pub(crate) fn share_key_without_extensions(&self) -> Option<Option<u64>> {
        if self.applies() { None } else { Some(None) }
    }

    fn stages(&self) -> &[PipelineStage] {
        match &self.kind {
            Kind::Messages(stages) | Kind::Raw(stages) => stages,
            Kind::Pieces(pieces) => &pieces.stages,
            Kind::Events { .. } => &[],
        }
    }

    fn stages_mut(&mut self) -> &mut [PipelineStage] {
        match &mut self.kind {
            Kind::Messages(stages) | Kind::Raw(stages) => stages,
            Kind::Pieces(pieces) => &mut pieces.stages,
            Kind::Events { .. } => &mut [],
        }
    }

    /// Which frames are put together before they are looked at.
    pub(crate) fn assembly(&self) -> Assembly {
        if self.is_raw() { Assembly::EveryFrame } else { Assembly::ControlOnly }
    }

    /// The reserved bits that the agreed extensions own.
    pub(crate) fn claimed_rsv(&self) -> Rsv {
        self.stages().iter().fold(Rsv::NONE, |bits, stage| bits.with(stage.factory.rsv()))
    }

    /// Whether messages are to be decoded and encoded here, and not by the handler.
    pub(crate) fn applies(&self) -> bool {
        match &self.kind {
            Kind::Messages(_) | Kind::Pieces(_) => !self.stages().is_empty(),
            Kind::Raw(_) => false,
            Kind::Events { .. } => true,
        }
    }

    /// Whether anybody decodes messages: extensions, or a raw handler in their place.
    pub(crate) fn decodes(&self) -> bool {
        !self.stages().is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.stages().iter().map(|stage| stage.factory.name())
    }

    pub(crate) fn extension(&mut self, name: &str) -> Option<&mut dyn Extension> {
        let mut stages = self.stages_mut().iter_mut();
        let stage = stages.find(|stage| stage.factory.name() == name)?;
        Some(&mut *stage.extension)
    }

    /// A key that two sessions share if they encode the same message to the same bytes: the whole
    /// list of extensions and each one's own key count. So do those of a raw handler, which encodes itself.
    pub(crate) fn share_key(&self) -> Option<u64> {
        let mut key = 0;
        for stage in self.stages() {
            key = mixed(key, Rc::as_ptr(&stage.factory).addr() as u64);
            // One that keeps a context makes other bytes of a message for each session.
            key = mixed(key, stage.extension.share_key()?);
        }
        Some(key)
    }

    /// Bytes held for what is unfinished, by the extensions, and by itself.
    pub(crate) fn memory(&self) -> usize {
        let incoming = self.incoming.as_deref().map_or(0, |message| message.body.capacity());
        let of_stage = |stage: &PipelineStage| {
            size_of::<PipelineStage>() + size_of_val(&*stage.extension) + stage.extension.memory()
        };
        let reader = if self.is_in_pieces() { size_of::<InPieces>() } else { 0 };
        let extensions =
            size_of::<Self>() + reader + self.stages().iter().map(of_stage).sum::<usize>();
        let partial = self.partial.as_deref();
        partial.map_or(0, |frame| size_of_val(frame) + frame.payload_memory())
            + incoming
            + self.outgoing.capacity()
            + extensions
    }
}

/// The way in.
impl Pipeline {
    /// Takes a data frame, or a piece of one: the message, if it is complete and none of the
    /// extensions dropped it.
    pub(crate) fn take_data<'a>(
        &mut self,
        header: &FrameHeader,
        payload: Cow<'a, [u8]>,
        (starts, ends): (bool, bool),
        rules: &FrameRules,
        spare: &mut SpareBuffers,
    ) -> Result<Option<ExtensionMessage<'a>>, SessionError> {
        let begins = starts && header.opcode != OpCode::Continuation;
        let (text, rsv) = (header.opcode == OpCode::Text, Rsv::from_bits(header.rsv));
        // A whole message in one piece is decoded where it lies, without a copy.
        if begins && ends && header.fin {
            let message = ExtensionMessage::new(text, rsv, payload);
            return self.decode(message, rules.max_message_size);
        }
        if begins {
            let limit = rules.max_message_size;
            // How long it becomes is known when it is whole.
            let body = spare.take(0, payload.len(), limit).unwrap_or_default();
            self.incoming = Some(Box::new(Incoming { text, rsv, announced: 0, limit, body }));
        }
        let stages = match &mut self.kind {
            Kind::Messages(stages) | Kind::Raw(stages) => stages,
            Kind::Events { .. } | Kind::Pieces(_) => return Ok(None), // neither is handed messages
        };
        let (Some(message), Some(outermost)) = (&mut self.incoming, stages.last_mut()) else {
            return Ok(None);
        };
        if starts {
            // Without the claimed bit the message is not coded: its frames have no allowance for that.
            if message.rsv.bits() & rules.claimed_rsv == 0 && rules.claimed_rsv != 0 {
                rules.check_uncoded(header).map_err(SessionError::Protocol)?;
            }
            message.announced = message.announced.saturating_add(header.payload_len);
            message.limit = rules.max_message_size;
            // By the headers alone: nobody has to receive what is too big to be taken.
            if message.announced > wire_limit(message.limit) {
                return Err(too_big(message.limit));
            }
        }
        let limit = message.limit;
        let last = ends && header.fin;
        let piece = MessagePiece::new(message.text, message.rsv, &payload, (begins, last));
        let taken = outermost.extension.decode_piece(&piece, &mut message.body, limit);
        taken.map_err(|error| fault(error, limit))?;
        // A thousand bytes may inflate to a mebibyte: the limit holds for what comes out.
        if message.body.len() > limit {
            return Err(too_big(limit));
        }
        let Some(message) = self.incoming.take_if(|_| last) else { return Ok(None) };
        let Incoming { text, rsv, body, .. } = *message;
        self.decode(ExtensionMessage::new(text, rsv, Cow::Owned(body)), limit)
    }

    fn decode<'a>(
        &mut self,
        mut message: ExtensionMessage<'a>,
        limit: usize,
    ) -> Result<Option<ExtensionMessage<'a>>, SessionError> {
        // RFC 6455 section 9.1: the last one of the answer is the outermost, and undone first.
        for stage in self.stages_mut().iter_mut().rev() {
            let before = message.rsv();
            let decoded = stage.extension.decode(&mut message, limit);
            decoded.map_err(|error| fault(error, limit))?;
            message.set_rsv(own_bits(before, message.rsv(), stage.factory.rsv()));
            if message.is_dropped() {
                return Ok(None);
            }
            if message.payload().len() > limit {
                return Err(too_big(limit));
            }
        }
        Ok(Some(message))
    }
}

/// The way out.
impl Pipeline {
    /// What goes on the wire for a message; `None` if an extension dropped it.
    pub(crate) fn encode<'a>(
        &mut self,
        message: Message<'a>,
        limit: usize,
    ) -> Result<Option<ExtensionMessage<'a>>, NotEncoded> {
        let mut message = ExtensionMessage::of(&message);
        let mut in_step = true;
        for stage in self.stages_mut() {
            let before = message.rsv();
            match stage.extension.encode(&mut message, limit) {
                Ok(()) => in_step &= stage.extension.share_key().is_some(),
                Err(ExtensionError::TooBig) => return Err(NotEncoded::TooBig { in_step }),
                Err(error) => return Err(NotEncoded::Failed(error)),
            }
            // An extension cannot touch a bit that it did not claim.
            message.set_rsv(own_bits(before, message.rsv(), stage.factory.rsv()));
            if message.is_dropped() {
                return Ok(None);
            }
            if message.payload().len() > limit {
                return Err(NotEncoded::TooBig { in_step });
            }
        }
        Ok(Some(message))
    }

    /// Bytes of the message in fragments that are kept until it is whole.
    pub(crate) fn kept_fragments(&self) -> usize {
        self.outgoing.len()
    }

    pub(crate) fn keep_fragment(&mut self, piece: &[u8]) {
        self.outgoing.extend_from_slice(piece);
    }

    pub(crate) fn take_fragments(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }
}

/// The bits of `owned` from `after`, the others from `before`.
fn own_bits(before: Rsv, after: Rsv, owned: Rsv) -> Rsv {
    before.without(owned).with(Rsv::from_bits(after.bits() & owned.bits()))
}
