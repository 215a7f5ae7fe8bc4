//! The encoders of what a session sends. They make bytes, and decide nothing about where these go.

use std::borrow::Cow;

use crate::protocol::close::write_close;
use crate::protocol::frame::{HEADER_BYTES_MAX, OpCode, write_frame_with};
use crate::protocol::server_sent_events::Event;
use crate::words::close::CloseReason;
use crate::words::frame::Frame;
use crate::words::message::{Message, Rsv};
use crate::words::options::SessionOptions;

use crate::context::mask_source::MaskSource;
use crate::session::event_stream::EventEncoder;
use crate::session::extensions::{NotEncoded, Pipeline};

/// Where frames are encoded to, and what their masks come from.
pub(crate) struct Encoder<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) masks: &'a mut MaskSource,
}

/// How a session has its frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    pub(crate) max_frame_size: usize,
    pub(crate) masking: bool,
}

/// A message as its extensions made it; what is left to do is the cutting into frames.
pub(crate) struct Encoded<'m> {
    text: bool,
    rsv: Rsv,
    payload: Cow<'m, [u8]>,
}

impl Framing {
    pub(crate) fn of(options: &SessionOptions) -> Self {
        Self { max_frame_size: options.max_frame_size, masking: options.masking }
    }

    /// How many bytes frames with a payload of so many have at most.
    pub(crate) fn bytes_at_most(self, payload: usize) -> usize {
        let frames = payload.div_ceil(self.max_frame_size.max(1)).max(1);
        payload.saturating_add(frames.saturating_mul(HEADER_BYTES_MAX))
    }
}

impl Encoder<'_> {
    /// A message or a fragment that no extension encodes.
    #[inline]
    pub(crate) fn plain(&mut self, framing: Framing, opcode: OpCode, payload: &[u8], fin: bool) {
        self.cut(framing, (opcode, Rsv::NONE), payload, fin);
    }

    /// A message that passed the session's extensions.
    pub(crate) fn extended(&mut self, framing: Framing, message: &Encoded<'_>) {
        let opcode = if message.text { OpCode::Text } else { OpCode::Binary };
        self.cut(framing, (opcode, message.rsv), &message.payload, true);
    }

    /// A fragment of a message, as an extension made it.
    pub(crate) fn fragment(
        &mut self,
        framing: Framing,
        kind: (OpCode, Rsv),
        payload: &[u8],
        fin: bool,
    ) {
        self.cut(framing, kind, payload, fin);
    }

    /// What is encoded already.
    pub(crate) fn encoded(&mut self, frames: &[u8]) {
        self.out.extend_from_slice(frames);
    }

    /// An event of an event stream.
    pub(crate) fn event(&mut self, encoder: &dyn EventEncoder, event: &Event<'_>) {
        encoder.write(self.out, event);
    }

    /// A frame of a raw session: neither cut nor changed.
    pub(crate) fn raw(&mut self, masking: bool, frame: &Frame<'_>) {
        let mask = self.mask(masking);
        write_frame_with(self.out, frame.fin, frame.rsv, frame.opcode, frame.payload, mask);
    }

    /// A ping or a pong.
    pub(crate) fn control(&mut self, masking: bool, opcode: OpCode, payload: &[u8]) {
        let mask = self.mask(masking);
        write_frame_with(self.out, true, Rsv::NONE, opcode, payload, mask);
    }

    pub(crate) fn close(&mut self, masking: bool, reason: Option<&CloseReason>) {
        let mask = self.mask(masking);
        write_close(self.out, reason, mask);
    }

    /// Cuts a payload into frames of at most `max_frame_size`.
    #[inline]
    fn cut(&mut self, framing: Framing, (opcode, rsv): (OpCode, Rsv), payload: &[u8], fin: bool) {
        let (mut opcode, mut rsv, mut rest) = (opcode, rsv, payload);
        loop {
            let (piece, later) = rest.split_at(rest.len().min(framing.max_frame_size));
            // RFC 6455 section 5.3: each frame has a mask of its own, which nobody can foresee.
            let mask = self.mask(framing.masking);
            write_frame_with(self.out, fin && later.is_empty(), rsv, opcode, piece, mask);
            if later.is_empty() {
                return;
            }
            // RFC 7692 section 6.1: the bit is on the first fragment alone.
            (opcode, rsv, rest) = (OpCode::Continuation, Rsv::NONE, later);
        }
    }

    fn mask(&mut self, masking: bool) -> Option<[u8; 4]> {
        masking.then(|| self.masks.next_mask())
    }
}

impl<'m> Encoded<'m> {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What the extensions of a session make of a message; `None` if one of them dropped it. Where none
    /// apply, it stays as it is.
    pub(crate) fn new(
        pipeline: Option<&mut Pipeline>,
        message: Message<'m>,
        limit: usize,
    ) -> Result<Option<Self>, NotEncoded> {
        let text = message.is_text();
        let Some(pipeline) = pipeline.filter(|pipeline| pipeline.applies()) else {
            let payload = Cow::Borrowed(message.bytes());
            return Ok(Some(Self { text, rsv: Rsv::NONE, payload }));
        };
        let encoded = pipeline.encode(message, limit)?;
        Ok(encoded.map(|encoded| {
            let rsv = encoded.rsv();
            Self { text, rsv, payload: encoded.into_payload() }
        }))
    }
}
