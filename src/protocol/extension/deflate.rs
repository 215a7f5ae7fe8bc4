//! Permessage-deflate (RFC 7692) as a server speaks it: what it agrees on, and what it does to
//! messages. The streams themselves are in `stream`.

mod offer;
mod stream;

use std::fmt;
use std::rc::Rc;

use crate::protocol::text::growth;
use crate::words::close::CloseCode;
use crate::words::extension::ExtensionError;
use crate::words::message::{Message, Payload, Rsv};
use crate::words::mix::mixed;

use super::header::ExtensionOffer;
use super::in_pieces::PieceExtension;
use super::{Agreement, Extension, ExtensionFactory, ExtensionMessage, MessagePiece};
use offer::{Demand, Terms, WINDOW_BITS};
use stream::{Compressor, INFLATER_BYTES, Inflater, Streams, compressor_bytes};

/// Without a context, messages up to this are not worth the compressor's reset.
const SHORT_BYTES: usize = 64;

/// The permessage-deflate extension (RFC 7692; Ktor's `WebSocketDeflateExtension`). Off until it is
/// installed.
///
/// By default neither side keeps a context from one message to the next: the loop then has one
/// compressor for all sessions, and an idle session holds nothing but its agreement (about 280
/// bytes). A context makes small similar messages much smaller, and costs each session (measured on
/// x86_64): 47 KiB with [`client_context_takeover`](Self::client_context_takeover), and with
/// [`server_context_takeover`](Self::server_context_takeover) 313 KiB at 15 bits of window, 189 KiB
/// at 9. All of that counts for `process_bytes`; what the sessions of a loop share does not: one
/// compressor for each window size in use, and one inflater.
///
/// What arrives is inflated once the message is whole, or as it arrives from 48 KiB on, and at most to
/// `max_message_size`; beyond that the session ends with 1009. Corrupt data ends it with 1007.
///
/// A message that a handler takes in [`pieces`](crate::pieces) is inflated as it arrives, and holds the 47
/// KiB of an inflater from its first byte to its last. One that is sent in pieces is compressed a piece at a
/// time: the conditions are asked about its first piece, whatever its size, and where no context is kept
/// from message to message none is kept from piece to piece either, so that it holds nothing.
///
/// ```
/// use wirewheel::extension::Deflate;
/// use wirewheel::{Application, WebSockets};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new().extension(
///         Deflate::new().compression_level(6).compress_if_bigger_than(256),
///     ));
/// }
/// ```
///
/// All options:
///
/// ```
/// use wirewheel::extension::Deflate;
/// let for_many_small_messages_in_json = Deflate::new()
///     .compression_level(1)
///     .compress_if(|message| message.is_text())
///     .compress_if_bigger_than(0)
///     .server_context_takeover(true) // 189 KiB a session, with a window of 9 bits
///     .server_max_window_bits(9)
///     .client_context_takeover(true) // 47 KiB a session
///     .client_max_window_bits(12);
/// # let _ = for_many_small_messages_in_json;
/// ```
pub struct Deflate {
    policy: Rc<Policy>,
    streams: Rc<Streams>,
}

impl fmt::Debug for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflate").field("demand", &self.policy.demand).finish_non_exhaustive()
    }
}

/// A condition on what is compressed.
type Condition = Rc<dyn Fn(&Message<'_>) -> bool>;

#[derive(Clone)]
struct Policy {
    demand: Demand,
    level: u32,
    /// Only messages of more bytes are compressed; `None` is the default.
    bigger_than: Option<usize>,
    conditions: Vec<Condition>,
}

impl Default for Deflate {
    fn default() -> Self {
        Self::new()
    }
}

impl Deflate {
    /// No context kept on either side, windows of 15 bits, level 6, every message of over 64 bytes
    /// that gets smaller.
    pub fn new() -> Self {
        let demand = Demand {
            server_keeps_context: false,
            client_keeps_context: false,
            server_bits: 15,
            client_bits: 15,
        };
        let policy =
            Rc::new(Policy { demand, level: 6, bigger_than: None, conditions: Vec::new() });
        Self { policy, streams: Rc::default() }
    }

    /// A new session's.
    fn state(&self, terms: Terms) -> DeflateState {
        DeflateState {
            policy: Rc::clone(&self.policy),
            streams: Rc::clone(&self.streams),
            terms,
            decoded: false,
            compressor: None,
            inflater: None,
            waiting: Vec::new(),
            streams_in: false,
            streams_out: false,
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(Rc::make_mut(&mut self.policy));
        self
    }

    /// How hard to compress: 0 (not at all) to 9. Default 6.
    #[must_use]
    pub fn compression_level(self, level: u32) -> Self {
        self.change(|policy| policy.level = level)
    }

    /// Whether the server may keep its compressor from one message to the next. Default false: the
    /// answer has `server_no_context_takeover`, whatever the client offers (Ktor's
    /// `serverNoContextTakeOver`, which has no effect on a server there).
    #[must_use]
    pub fn server_context_takeover(self, on: bool) -> Self {
        self.change(|policy| policy.demand.server_keeps_context = on)
    }

    /// Whether the client may keep its compressor from one message to the next, for which the
    /// server has to keep a window. Default false: the answer has `client_no_context_takeover`.
    #[must_use]
    pub fn client_context_takeover(self, on: bool) -> Self {
        self.change(|policy| policy.demand.client_keeps_context = on)
    }

    /// The largest window that the server compresses with, 9 to 15 bits. Default 15; a client may ask
    /// for less.
    #[must_use]
    pub fn server_max_window_bits(self, bits: u8) -> Self {
        self.change(|policy| policy.demand.server_bits = bits)
    }

    /// The largest window that clients may compress with, 9 to 15 bits. Default 15. It holds for
    /// clients that leave it to the server (`client_max_window_bits` in their offer); RFC 7692
    /// section 7.1.2.2 does not let it be asked of others. It saves the client's memory, not the
    /// server's.
    #[must_use]
    pub fn client_max_window_bits(self, bits: u8) -> Self {
        self.change(|policy| policy.demand.client_bits = bits)
    }

    /// Compresses only messages for which `condition` holds (Ktor's `compressIf`). Several
    /// conditions must all hold.
    #[must_use]
    pub fn compress_if(self, condition: impl Fn(&Message<'_>) -> bool + 'static) -> Self {
        self.change(|policy| policy.conditions.push(Rc::new(condition)))
    }

    /// Compresses only messages of more than `bytes` (Ktor's `compressIfBiggerThan`). Default: 0 if
    /// the server keeps a context, which helps the shortest; else 64, since without one a short
    /// message saves nothing but costs as much as a long one.
    #[must_use]
    pub fn compress_if_bigger_than(self, bytes: usize) -> Self {
        self.change(|policy| policy.bigger_than = Some(bytes))
    }
}

impl ExtensionFactory for Deflate {
    fn name(&self) -> &str {
        "permessage-deflate"
    }

    fn rsv(&self) -> Rsv {
        Rsv::RSV1
    }

    fn takes_pieces(&self) -> bool {
        true
    }

    fn negotiate(&self, offer: &ExtensionOffer) -> Option<Agreement> {
        let terms = Terms::accept(&self.policy.demand, offer)?;
        Some(terms.answer(Agreement::new(self.state(terms))))
    }

    #[cfg(feature = "client")]
    fn offer(&self) -> Option<ExtensionOffer> {
        Some(self.policy.demand.offer(ExtensionOffer::new(self.name())))
    }

    #[cfg(feature = "client")]
    fn accept(&self, answer: &ExtensionOffer) -> Result<Agreement, String> {
        let terms = Terms::answered(&self.policy.demand, answer)?;
        Ok(Agreement::new(self.state(terms)))
    }

    fn check(&self) -> Result<(), String> {
        let Policy { demand, level, .. } = &*self.policy;
        for (name, bits) in [
            ("server_max_window_bits", demand.server_bits),
            ("client_max_window_bits", demand.client_bits),
        ] {
            if !WINDOW_BITS.contains(&bits) {
                return Err(format!("{name} is {bits}: it must be at least 9 and at most 15"));
            }
        }
        if *level > 9 {
            return Err(format!("compression_level is {level}: it must be at most 9"));
        }
        Ok(())
    }
}

impl Policy {
    fn compresses(&self, message: &ExtensionMessage<'_>, keeps_context: bool) -> bool {
        let bytes = message.payload();
        let usual = if keeps_context { 0 } else { SHORT_BYTES };
        let worth_it = bytes.len() > self.bigger_than.unwrap_or(usual);
        worth_it && message.may_compress() && self.holds(message.is_text(), bytes, message.rsv())
    }

    /// Whether all conditions hold.
    fn holds(&self, is_text: bool, bytes: &[u8], rsv: Rsv) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        let payload = match std::str::from_utf8(bytes) {
            Ok(text) if is_text => Payload::Text(text),
            _ => Payload::Binary(bytes),
        };
        let message = Message::new(payload, rsv);
        self.conditions.iter().all(|condition| condition(&message))
    }
}

/// The extension in one session.
struct DeflateState {
    policy: Rc<Policy>,
    streams: Rc<Streams>,
    terms: Terms,
    /// The message that `decode` sees next was inflated piece by piece.
    decoded: bool,
    /// Kept from message to message if the terms say so; else the loop's is used.
    compressor: Option<Box<Compressor>>,
    /// Kept from message to message if the terms say so; else there only within a message.
    inflater: Option<Box<Inflater>>,
    /// The start of a message that is not inflated yet.
    waiting: Vec<u8>,
    /// The message is inflated as it arrives.
    streams_in: bool,
    /// The message that is sent in pieces is compressed.
    streams_out: bool,
}

impl DeflateState {
    /// A piece of a message. An inflater, and what a few bytes inflate to, are taken only for what is
    /// as much on the wire, or whole: a message that has begun holds no more than arrived of it.
    fn inflate_piece(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ExtensionError> {
        let arrived = self.waiting.len().saturating_add(piece.bytes.len());
        if !self.streams_in && !piece.last && arrived < INFLATER_BYTES {
            let waiting = &mut self.waiting;
            let more = growth(waiting.len(), waiting.capacity(), piece.bytes.len(), INFLATER_BYTES);
            waiting.reserve_exact(more);
            waiting.extend_from_slice(piece.bytes);
            return Ok(());
        }
        self.streams_in = !piece.last;
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.inflate(&waiting, false, body, limit)?;
        }
        self.inflate(piece.bytes, piece.last, body, limit)
    }

    fn inflate(
        &mut self,
        bytes: &[u8],
        last: bool,
        body: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), ExtensionError> {
        let inflater = self.inflater.get_or_insert_with(|| self.streams.take_inflater());
        inflater.feed(bytes, body, limit)?;
        if last {
            inflater.end_message(body, limit)?;
            self.release_inflater();
        }
        Ok(())
    }

    /// A message has ended.
    fn release_inflater(&mut self) {
        if !self.terms.peer_context {
            if let Some(inflater) = self.inflater.take() {
                self.streams.give_back(inflater);
            }
        }
    }

    fn can_compress(&self) -> bool {
        WINDOW_BITS.contains(&self.terms.own_bits)
    }

    /// The compressor that keeps its context from message to message.
    fn own_compressor(&mut self) -> &mut Compressor {
        let (level, bits) = (self.policy.level, self.terms.own_bits);
        self.compressor.get_or_insert_with(|| Box::new(Compressor::new(level, bits)))
    }
}

impl PieceExtension for DeflateState {
    fn decode_some(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
        room: usize,
    ) -> Result<usize, ExtensionError> {
        let inflater = self.inflater.get_or_insert_with(|| self.streams.take_inflater());
        let taken = inflater.feed_some(piece.bytes, body, room)?;
        if piece.last && taken == piece.bytes.len() {
            inflater.end_message(body, usize::MAX)?; // four bytes, of which comes little
            self.release_inflater();
        }
        Ok(taken)
    }

    fn encode_some(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
    ) -> Result<Rsv, ExtensionError> {
        if piece.first {
            // How long the message will be nobody knows: the conditions are asked about its start.
            self.streams_out = self.can_compress()
                && piece.may_compress
                && self.policy.holds(piece.text, piece.bytes, piece.rsv);
        }
        if !self.streams_out {
            body.extend_from_slice(piece.bytes);
            return Ok(Rsv::NONE);
        }
        let (level, bits) = (self.policy.level, self.terms.own_bits);
        let done = if self.terms.own_context {
            self.own_compressor().compress_piece(piece.bytes, piece.last, body)
        } else {
            self.streams.compress_piece(level, bits, (piece.bytes, piece.last), body)
        };
        // Half a message that is compressed cannot be gone on with in any other form.
        done.map(|()| Rsv::RSV1).ok_or_else(|| {
            ExtensionError::failed(CloseCode::INTERNAL_ERROR, "the compressor failed")
        })
    }
}

impl Extension for DeflateState {
    fn encode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        _max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        if !self.can_compress() || !self.policy.compresses(message, self.terms.own_context) {
            return Ok(());
        }
        let (level, bits) = (self.policy.level, self.terms.own_bits);
        let compressed = if self.terms.own_context {
            self.own_compressor().compress(message.payload(), true)
        } else {
            self.streams.compress(level, bits, message.payload())
        };
        if let Some(compressed) = compressed {
            message.replace(compressed);
            message.set_rsv(message.rsv().with(Rsv::RSV1));
        }
        Ok(())
    }

    fn decode(
        &mut self,
        message: &mut ExtensionMessage<'_>,
        max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        if !message.rsv().rsv1() {
            return Ok(());
        }
        if !std::mem::take(&mut self.decoded) {
            let mut body = Vec::new();
            self.inflate(message.payload(), true, &mut body, max_message_size)?;
            message.replace(body);
        }
        message.set_rsv(message.rsv().without(Rsv::RSV1));
        Ok(())
    }

    fn decode_piece(
        &mut self,
        piece: &MessagePiece<'_>,
        body: &mut Vec<u8>,
        max_message_size: usize,
    ) -> Result<(), ExtensionError> {
        if !piece.rsv.rsv1() {
            return super::keep_piece(piece.bytes, body, max_message_size);
        }
        self.decoded = piece.last;
        self.inflate_piece(piece, body, max_message_size)
    }

    fn in_pieces(&mut self) -> Option<&mut dyn PieceExtension> {
        Some(self)
    }

    fn share_key(&self) -> Option<u64> {
        if self.terms.own_context {
            return None;
        }
        // The same streams mean the same installation, so the same level and conditions.
        let installation = Rc::as_ptr(&self.streams).addr() as u64;
        Some(mixed(installation, u64::from(self.terms.own_bits)))
    }

    #[allow(
        clippy::arithmetic_side_effects,
        reason = "two constants of some hundred KiB, and less than another"
    )]
    fn memory(&self) -> usize {
        let compressor =
            self.compressor.as_ref().map_or(0, |_| compressor_bytes(self.terms.own_bits));
        let inflater = self.inflater.as_ref().map_or(0, |_| INFLATER_BYTES);
        compressor + inflater + self.waiting.capacity()
    }
}
