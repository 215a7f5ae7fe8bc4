//! The message as a handler sees it: borrowed, whole, text or binary.

use std::borrow::Cow;
use std::fmt;

/// The reserved bits of a message's first frame (RFC 6455 section 5.2), RSV1 highest.
///
/// All clear unless `lenient_rsv` lets bits through that no extension owns.
///
/// ```
/// use wirewheel::raw::Rsv;
/// let bits = Rsv::RSV1.with(Rsv::RSV2);
/// assert!(bits.rsv1() && bits.rsv2() && !bits.rsv3());
/// assert_eq!(bits.without(Rsv::RSV1).without(Rsv::RSV2), Rsv::NONE);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rsv(u8);

/// Beside the bits of a [`Message`]: it is not to be compressed.
const UNCOMPRESSED: u8 = 0b1000;

impl Rsv {
    /// No bit.
    pub const NONE: Self = Self(0);
    /// RSV1 alone, which is permessage-deflate's.
    pub const RSV1: Self = Self(0b100);
    /// RSV2 alone.
    pub const RSV2: Self = Self(0b010);
    /// RSV3 alone.
    pub const RSV3: Self = Self(0b001);

    /// The three bits as they stand in the frame, shifted to the right: RSV1 is 4.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits & 0b111)
    }

    /// The same three bits.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// The bits of both.
    ///
    /// ```
    /// use wirewheel::raw::Rsv;
    /// assert!(Rsv::RSV1.with(Rsv::RSV3).rsv3());
    /// ```
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits but for the other's.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// RSV1.
    pub const fn rsv1(self) -> bool {
        self.0 & 0b100 != 0
    }

    /// RSV2.
    pub const fn rsv2(self) -> bool {
        self.0 & 0b010 != 0
    }

    /// RSV3.
    pub const fn rsv3(self) -> bool {
        self.0 & 0b001 != 0
    }
}

/// What a message carries.
///
/// ```
/// use wirewheel::message::Payload;
/// use wirewheel::{HandlerResult, Message, Session};
/// fn on_message(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
///     match message.payload() {
///         Payload::Text(text) => session.send(&text.to_uppercase()),
///         Payload::Binary(bytes) => session.send(&[bytes, &[0]].concat()),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Text, checked to be UTF-8.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

/// A whole message, borrowed: from the loop's read buffer when it arrives, from the caller when it
/// is sent (Ktor's `Frame.Text` and `Frame.Binary` with `fin`).
///
/// Text and bytes turn into one by themselves: `session.send("text")`, `session.send(&bytes)`.
///
/// ```
/// use wirewheel::Message;
/// let message = Message::from("hello");
/// assert_eq!(message.text(), Some("hello"));
/// assert_eq!(message.bytes(), b"hello");
/// assert!(message.is_text() && message.payload() == wirewheel::message::Payload::Text("hello"));
/// assert_eq!(message.rsv(), wirewheel::raw::Rsv::NONE);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    payload: Payload<'a>,
    rsv: Rsv,
}

impl<'a> Message<'a> {
    pub(crate) const fn new(payload: Payload<'a>, rsv: Rsv) -> Self {
        Self { payload, rsv }
    }

    /// Text or bytes, to match on.
    pub fn payload(&self) -> Payload<'a> {
        self.payload
    }

    /// The text, if this is a text message.
    pub fn text(&self) -> Option<&'a str> {
        match self.payload {
            Payload::Text(text) => Some(text),
            Payload::Binary(_) => None,
        }
    }

    /// The payload as bytes, whatever its kind.
    pub fn bytes(&self) -> &'a [u8] {
        match self.payload {
            Payload::Text(text) => text.as_bytes(),
            Payload::Binary(bytes) => bytes,
        }
    }

    /// Whether this is a text message.
    pub fn is_text(&self) -> bool {
        matches!(self.payload, Payload::Text(_))
    }

    /// The reserved bits of the first frame; see [`Rsv`].
    pub fn rsv(&self) -> Rsv {
        Rsv::from_bits(self.rsv.0)
    }

    /// Whether it may be compressed when it is sent, where permessage-deflate was agreed on. Default true:
    /// what is installed decides. False for what is compressed already, such as pictures, or holds a secret
    /// beside what an attacker chose, whose length would tell: it goes out without RSV1.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Message, Session};
    /// fn show(session: &mut Session<'_>, jpeg: &[u8]) -> HandlerResult {
    ///     session.send(Message::from(jpeg).compressed(false))
    /// }
    /// ```
    #[must_use]
    pub fn compressed(self, on: bool) -> Self {
        let bits = self.rsv().0 | if on { 0 } else { UNCOMPRESSED };
        Self { rsv: Rsv(bits), ..self }
    }

    /// What [`compressed`](Self::compressed) was told.
    pub(crate) fn may_compress(&self) -> bool {
        self.rsv.0 & UNCOMPRESSED == 0
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.payload.fmt(f)
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(Payload::Text(text), Rsv::default())
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::new(Payload::Binary(bytes), Rsv::default())
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

/// What is a message already: text, bytes, and whatever a type of your own holds of these.
///
/// ```
/// use wirewheel::message::AsMessage;
/// use wirewheel::{HandlerResult, Message, Session};
/// struct Line { text: String }
/// impl AsMessage for Line {
///     fn as_message(&self) -> Message<'_> {
///         Message::from(&self.text)
///     }
/// }
/// fn greet(session: &mut Session<'_>, line: &Line) -> HandlerResult {
///     session.send("text")?;
///     session.send(format!("{} bytes of text", line.text.len()))?;
///     session.send(vec![1, 2, 3])?;
///     session.send(line)
/// }
/// ```
pub trait AsMessage {
    /// The message, borrowed.
    fn as_message(&self) -> Message<'_>;
}

impl AsMessage for str {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl AsMessage for String {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl AsMessage for [u8] {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl AsMessage for Vec<u8> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl<const N: usize> AsMessage for [u8; N] {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        self.into()
    }
}

impl<B: AsMessage + ToOwned<Owned: AsMessage> + ?Sized> AsMessage for Cow<'_, B> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        match self {
            Self::Borrowed(message) => message.as_message(),
            Self::Owned(message) => message.as_message(),
        }
    }
}

impl AsMessage for Message<'_> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        *self
    }
}

impl<T: AsMessage + ?Sized> AsMessage for &T {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        (**self).as_message()
    }
}

/// What turns into a message when it is sent to many: encoded once, whoever gets it.
///
/// Whatever is a message ([`AsMessage`]) does; another type of your own does by calling `take` once with
/// its encoding.
///
/// ```
/// use wirewheel::message::ToMessage;
/// use wirewheel::Message;
/// struct Reading { celsius: f32 }
/// impl ToMessage for Reading {
///     fn to_message(&self, take: &mut dyn FnMut(Message<'_>)) {
///         take(Message::from(&format!("{:.1}", self.celsius)));
///     }
/// }
/// ```
pub trait ToMessage {
    /// Calls `take` with the message. Where it is called several times, the first counts.
    fn to_message(&self, take: &mut dyn FnMut(Message<'_>));
}

impl<T: AsMessage + ?Sized> ToMessage for T {
    fn to_message(&self, take: &mut dyn FnMut(Message<'_>)) {
        take(self.as_message());
    }
}
