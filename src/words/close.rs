//! Close codes and reasons (RFC 6455 section 7.4) and the account of how a session ended.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;

/// A close code (RFC 6455 section 7.4; Ktor's `CloseReason.Codes`).
///
/// ```
/// use wirewheel::CloseCode;
/// assert_eq!(u16::from(CloseCode::GOING_AWAY), 1001);
/// assert!(CloseCode::new(4000).may_be_sent());
/// assert!(!CloseCode::ABNORMAL.may_be_sent());
/// ```
///
/// ```
/// use wirewheel::CloseCode;
/// let of_this_server = [
///     CloseCode::NORMAL, CloseCode::GOING_AWAY, CloseCode::PROTOCOL_ERROR, CloseCode::CANNOT_ACCEPT,
///     CloseCode::NOT_CONSISTENT, CloseCode::VIOLATED_POLICY, CloseCode::TOO_BIG,
///     CloseCode::INTERNAL_ERROR, CloseCode::SERVICE_RESTART, CloseCode::TRY_AGAIN_LATER,
/// ];
/// let of_others = [CloseCode::NO_EXTENSION, CloseCode::BAD_GATEWAY];
/// assert!(of_this_server.into_iter().chain(of_others).all(CloseCode::may_be_sent));
/// assert!(!CloseCode::NO_STATUS.may_be_sent()); // only reported
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server stops, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a kind of data that this endpoint cannot accept.
    pub const CANNOT_ACCEPT: Self = Self(1003);
    /// 1005: reported where a Close without a code arrived; never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: reported where the connection ended without a Close; never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: data that does not fit its type, such as text that is not UTF-8.
    pub const NOT_CONSISTENT: Self = Self(1007);
    /// 1008: a message that breaks this endpoint's policy.
    pub const VIOLATED_POLICY: Self = Self(1008);
    /// 1009: a frame or message over the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// 1010: sent by clients that miss an extension.
    pub const NO_EXTENSION: Self = Self(1010);
    /// 1011: the server met a condition that it did not expect.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the server is overloaded; try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway had a bad answer from the server behind it.
    pub const BAD_GATEWAY: Self = Self(1014);

    /// Any number as a code; [`may_be_sent`](Self::may_be_sent) says whether it is legal on the wire.
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// Whether this code may stand in a Close frame (RFC 6455 section 7.4.1 and 7.4.2, and the
    /// IANA registry up to 1014).
    pub const fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

/// A close code with a text for people (Ktor's `CloseReason`).
///
/// ```
/// use wirewheel::{CloseCode, CloseReason};
/// let reason = CloseReason::new(CloseCode::NORMAL, "Client said BYE")?;
/// assert_eq!((reason.code(), reason.text()), (CloseCode::NORMAL, "Client said BYE"));
/// assert_eq!(CloseReason::MAX_TEXT_BYTES, 123);
/// assert!(CloseReason::new(CloseCode::ABNORMAL, "").is_err());
/// assert!(CloseReason::new(CloseCode::NORMAL, "x".repeat(124)).is_err());
/// # Ok::<(), wirewheel::error::CloseReasonError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloseReason {
    code: CloseCode,
    /// Invariant: at most [`Self::MAX_TEXT_BYTES`] bytes.
    text: Box<str>,
}

impl CloseReason {
    /// The most bytes of text: a control frame holds 125 (RFC 6455 section 5.5), the code takes two.
    pub const MAX_TEXT_BYTES: usize = 123;

    /// A reason to send. The code must be legal on the wire and the text at most
    /// [`MAX_TEXT_BYTES`](Self::MAX_TEXT_BYTES) of UTF-8.
    pub fn new(code: CloseCode, text: impl Into<String>) -> Result<Self, CloseReasonError> {
        let text = text.into();
        if !code.may_be_sent() {
            return Err(CloseReasonError::IllegalCode(code));
        }
        if text.len() > Self::MAX_TEXT_BYTES {
            return Err(CloseReasonError::TextTooLong { bytes: text.len() });
        }
        Ok(Self { code, text: text.into() })
    }

    /// A reason whose text is cut to fit, never inside a character.
    ///
    /// ```
    /// use wirewheel::{CloseCode, CloseReason};
    /// let reason = CloseReason::truncated(CloseCode::NORMAL, &"я".repeat(62))?;
    /// assert_eq!(reason.text(), "я".repeat(61));
    /// # Ok::<(), wirewheel::error::CloseReasonError>(())
    /// ```
    pub fn truncated(code: CloseCode, text: &str) -> Result<Self, CloseReasonError> {
        let mut end = text.len().min(Self::MAX_TEXT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self::new(code, text.get(..end).unwrap_or_default())
    }

    /// The reason that `close` was given, if it may be sent.
    pub(crate) fn checked(
        reason: impl TryInto<Self, Error: Into<CloseReasonError>>,
    ) -> Result<Self, CloseReasonError> {
        reason.try_into().map_err(Into::into)
    }

    /// A reason of ours whose code and text are known to fit.
    pub(crate) fn own(code: CloseCode, text: &str) -> Self {
        debug_assert!(code.may_be_sent() && text.len() <= Self::MAX_TEXT_BYTES);
        Self { code, text: text.into() }
    }

    /// The code.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The text, possibly empty.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl From<&Self> for CloseReason {
    fn from(reason: &Self) -> Self {
        reason.clone()
    }
}

/// A code without a text, if it may be sent.
impl TryFrom<CloseCode> for CloseReason {
    type Error = CloseReasonError;

    fn try_from(code: CloseCode) -> Result<Self, CloseReasonError> {
        Self::new(code, "")
    }
}

/// What is a reason already may be sent.
impl From<Infallible> for CloseReasonError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Why a [`CloseReason`] cannot be sent.
///
/// ```
/// use wirewheel::error::CloseReasonError;
/// use wirewheel::{CloseCode, CloseReason};
/// let refused = CloseReason::new(CloseCode::NO_STATUS, "");
/// assert_eq!(refused, Err(CloseReasonError::IllegalCode(CloseCode::NO_STATUS)));
/// let refused = CloseReason::new(CloseCode::NORMAL, "x".repeat(200));
/// assert_eq!(refused, Err(CloseReasonError::TextTooLong { bytes: 200 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReasonError {
    /// The code may not stand in a Close frame.
    IllegalCode(CloseCode),
    /// The text takes more than [`CloseReason::MAX_TEXT_BYTES`].
    TextTooLong {
        /// How many bytes it takes.
        bytes: usize,
    },
}

impl fmt::Display for CloseReasonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IllegalCode(code) => write!(
                f,
                "close code {code} may not be sent; use 1000-1003, 1007-1014 or 3000-4999"
            ),
            Self::TextTooLong { bytes } => write!(
                f,
                "a close reason of {bytes} bytes is over {}; use CloseReason::truncated",
                CloseReason::MAX_TEXT_BYTES
            ),
        }
    }
}

impl Error for CloseReasonError {}

/// Who ended a session.
///
/// ```
/// use wirewheel::{CloseInfo, ClosedBy};
/// fn describe(close: &CloseInfo) -> String {
///     let who = match close.closed_by() {
///         ClosedBy::Remote => "the peer",
///         ClosedBy::Local => "this server",
///         _ => "nobody, the connection is gone",
///     };
///     format!("{who} closed with {} {:?}", close.code(), close.text())
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClosedBy {
    /// This side: `close`, `abort`, a timeout, a limit, a protocol error of the peer.
    Local,
    /// The other side: its Close came first.
    Remote,
    /// Nobody with a Close: the connection ended or failed.
    Transport,
}

/// How a session ended: what `on_close` is told, and what `session.close_info()` says from the
/// moment the end is known (Ktor's `closeReason`, which leaves out who closed and how cleanly).
///
/// ```
/// use wirewheel::{CloseInfo, ClosedBy, Handler, Session};
/// struct Watch;
/// impl Handler for Watch {
///     fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
///         if close.closed_by() == ClosedBy::Transport && !close.is_clean() {
///             let (peer, code) = (session.remote_addr(), close.code());
///             eprintln!("{peer} vanished: {code} {:?}", close.text());
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseInfo {
    code: CloseCode,
    text: Box<str>,
    closed_by: ClosedBy,
    clean: bool,
    /// What the Close that answered the first says, where it says something else.
    second: Option<Box<(CloseCode, Box<str>)>>,
}

impl CloseInfo {
    pub(crate) fn new(code: CloseCode, text: &str, closed_by: ClosedBy, clean: bool) -> Self {
        Self { code, text: text.into(), closed_by, clean, second: None }
    }

    /// The second Close frame went out or came in.
    pub(crate) fn note_second(&mut self, code: CloseCode, text: &str) {
        if (code, text) != (self.code, &*self.text) {
            self.second = Some(Box::new((code, text.into())));
        }
    }

    /// The same, now that both Close frames were exchanged.
    pub(crate) fn cleanly(self) -> Self {
        Self { clean: true, ..self }
    }

    /// For the log.
    pub(crate) fn differing_answer(&self) -> String {
        self.second
            .as_ref()
            .map_or_else(String::new, |second| format!(", answered with {}", second.0))
    }

    /// What the Close frame of one side says.
    fn of(&self, side: ClosedBy) -> Option<(CloseCode, &str)> {
        let second = self.second.as_deref().map(|(code, text)| (*code, &**text));
        let first = (self.code, &*self.text);
        if self.closed_by == side {
            (self.code != CloseCode::ABNORMAL).then_some(first)
        } else {
            second.or_else(|| self.clean.then_some(first))
        }
    }

    /// The code of the peer's Close frame, whether it came first or answered ours; 1005 if it had none.
    /// `None` if no Close frame of the peer arrived.
    ///
    /// ```
    /// use wirewheel::{CloseInfo, ClosedBy};
    /// fn is_refused_by_the_page(close: &CloseInfo) -> bool {
    ///     // We closed with 4001, and it answered with 4999.
    ///     close.closed_by() == ClosedBy::Local && close.remote_code() != close.local_code()
    /// }
    /// fn answer_of_the_page(close: &CloseInfo) -> String {
    ///     format!("{:?} {}", close.remote_code(), close.remote_text())
    /// }
    /// ```
    pub fn remote_code(&self) -> Option<CloseCode> {
        self.of(ClosedBy::Remote).map(|(code, _)| code)
    }

    /// The text of the peer's Close frame; empty if it had none, or none arrived.
    pub fn remote_text(&self) -> &str {
        self.of(ClosedBy::Remote).map_or("", |(_, text)| text)
    }

    /// The code of this side's Close frame, whether it went first or answered the peer's; 1005 if it
    /// had none. `None` if there was no Close frame of ours.
    pub fn local_code(&self) -> Option<CloseCode> {
        self.of(ClosedBy::Local).map(|(code, _)| code)
    }

    /// The code of whichever Close frame came first; 1005 if it had none, 1006 if there was none.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// The text of that Close frame; empty if it had none.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Who ended the session.
    pub fn closed_by(&self) -> ClosedBy {
        self.closed_by
    }

    /// Whether both Close frames were exchanged (RFC 6455 section 7.1.4).
    pub fn is_clean(&self) -> bool {
        self.clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 section 7.4: 1004, 1005, 1006, 1015 are reserved, 0-999 unused, 1016-2999 unassigned.
    #[test]
    fn codes_that_may_be_sent() {
        let legal = [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999];
        let illegal = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535];
        assert!(legal.into_iter().all(|code| CloseCode::new(code).may_be_sent()));
        assert!(!illegal.into_iter().any(|code| CloseCode::new(code).may_be_sent()));
    }

    #[test]
    fn both_close_frames_are_known() {
        let [first, second] = [4001, 4999].map(CloseCode::new);
        let ours = CloseInfo::new(first, "bye", ClosedBy::Local, false);
        assert_eq!((ours.local_code(), ours.remote_code()), (Some(first), None));
        let echoed = ours.clone().cleanly();
        assert_eq!((echoed.remote_code(), echoed.remote_text()), (Some(first), "bye"));
        let mut answered = ours;
        answered.note_second(second, "no");
        let answered = answered.cleanly();
        assert_eq!((answered.code(), answered.text()), (first, "bye"));
        assert_eq!((answered.remote_code(), answered.remote_text()), (Some(second), "no"));
        let gone = CloseInfo::new(CloseCode::ABNORMAL, "", ClosedBy::Transport, false);
        assert_eq!((gone.local_code(), gone.remote_code()), (None, None));
        let theirs = CloseInfo::new(second, "", ClosedBy::Remote, true);
        assert_eq!((theirs.local_code(), theirs.remote_code()), (Some(second), Some(second)));
    }

    #[test]
    fn a_text_of_123_bytes_fits_and_124_does_not() {
        assert!(CloseReason::new(CloseCode::NORMAL, "x".repeat(123)).is_ok());
        assert_eq!(
            CloseReason::new(CloseCode::NORMAL, "x".repeat(124)),
            Err(CloseReasonError::TextTooLong { bytes: 124 })
        );
        assert!(CloseReason::new(CloseCode::NORMAL, "я".repeat(62)).is_err());
    }
}
