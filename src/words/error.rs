//! The errors, sorted by whose fault they are, and the one map from a fault to a close code.

use std::error::Error;
use std::fmt;
use std::io;

use crate::words::close::{CloseCode, CloseReasonError};
use crate::words::convert::ConvertError;
use crate::words::extension::ExtensionError;

/// How the peer broke RFC 6455, or a limit on what it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A client frame without a mask (RFC 6455 section 5.1).
    UnmaskedFrame,
    /// A server's frame has a mask (RFC 6455 section 5.1).
    MaskedFrame,
    /// A reserved bit that no agreed extension owns (section 5.2).
    ReservedBits,
    /// An opcode that is not defined (section 5.2).
    UnknownOpcode(u8),
    /// A length in more bytes than it needs, or with its top bit set (section 5.2).
    BadLengthEncoding,
    /// A control frame in fragments (section 5.5).
    FragmentedControlFrame,
    /// A control frame of more than 125 bytes (section 5.5).
    ControlFrameTooBig,
    /// A continuation with nothing to continue (section 5.4).
    UnexpectedContinuation,
    /// A new message inside an unfinished one (section 5.4).
    UnfinishedMessage,
    /// A Close frame of one byte, or with a code that may not be sent (sections 5.5.1 and 7.4).
    BadClosePayload,
    /// Text, or the text of a Close frame, that is not UTF-8 (section 8.1).
    InvalidUtf8,
    /// A frame over `max_frame_size`.
    FrameTooBig {
        /// The length its header announced, in bytes.
        announced: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A message over `max_message_size`.
    MessageTooBig {
        /// The limit, in bytes.
        limit: u64,
    },
    /// A message in more fragments than `max_fragments`.
    TooManyFragments {
        /// The limit.
        limit: u32,
    },
}

impl ProtocolError {
    /// The close code that answers it (RFC 6455 section 7.4.1).
    ///
    /// ```
    /// use wirewheel::error::ProtocolError;
    /// use wirewheel::CloseCode;
    /// assert_eq!(ProtocolError::InvalidUtf8.close_code(), CloseCode::NOT_CONSISTENT);
    /// ```
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::UnmaskedFrame
            | Self::MaskedFrame
            | Self::ReservedBits
            | Self::UnknownOpcode(_)
            | Self::BadLengthEncoding
            | Self::FragmentedControlFrame
            | Self::ControlFrameTooBig
            | Self::UnexpectedContinuation
            | Self::UnfinishedMessage
            | Self::BadClosePayload => CloseCode::PROTOCOL_ERROR,
            Self::InvalidUtf8 => CloseCode::NOT_CONSISTENT,
            Self::FrameTooBig { .. } | Self::MessageTooBig { .. } => CloseCode::TOO_BIG,
            Self::TooManyFragments { .. } => CloseCode::VIOLATED_POLICY,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnmaskedFrame => f.write_str("client frame without a mask"),
            Self::MaskedFrame => f.write_str("server frame with a mask"),
            Self::ReservedBits => f.write_str("reserved bit without an extension"),
            Self::UnknownOpcode(opcode) => write!(f, "unknown opcode {opcode}"),
            Self::BadLengthEncoding => f.write_str("bad length encoding"),
            Self::FragmentedControlFrame => f.write_str("fragmented control frame"),
            Self::ControlFrameTooBig => f.write_str("control frame over 125 bytes"),
            Self::UnexpectedContinuation => f.write_str("continuation of nothing"),
            Self::UnfinishedMessage => f.write_str("new message inside an unfinished one"),
            Self::BadClosePayload => f.write_str("bad close payload"),
            Self::InvalidUtf8 => f.write_str("invalid UTF-8"),
            Self::FrameTooBig { announced, limit } => {
                write!(f, "frame of {announced} bytes, limit {limit}")
            }
            Self::MessageTooBig { limit } => write!(f, "message over {limit} bytes"),
            Self::TooManyFragments { limit } => write!(f, "message of over {limit} fragments"),
        }
    }
}

impl Error for ProtocolError {}

/// Why a message was not taken for sending.
///
/// ```
/// use wirewheel::error::{HandlerError, SendError};
/// use wirewheel::{HandlerResult, Session};
/// fn try_to_send(session: &mut Session<'_>, text: &str) -> HandlerResult {
///     match session.send(text) {
///         Err(HandlerError::Send(SendError::TooBig { bytes, limit })) => {
///             session.send(&format!("{bytes} bytes are over {limit}"))
///         }
///         result => result,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The session is closing or closed. Returned from a hook, this is not a fault.
    Closing,
    /// There is no room: the outbox is full because the peer does not read (where the outbox's
    /// policy is to close, the session ends with 1013), or a queue or log is at its limit.
    Full {
        /// The bytes already queued.
        buffered: usize,
    },
    /// The message is over `max_outgoing_message_size` (alone over the `max_bytes` of its flow), a frame of
    /// a raw session over `max_frame_size`, or the payload of a ping or pong over 125 bytes. Nothing was
    /// sent, and nothing ends: a hook may return it.
    TooBig {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A message in fragments is open: finish it first; or a fragment came with none open.
    Fragments,
    /// A message in pieces, or a stream, for an event stream or a session whose extension needs messages
    /// whole.
    WholeOnly,
    /// The session that was meant is over.
    Gone,
    /// A frame for a session that is handed messages; it would break their order.
    NotRaw,
    /// An extension failed on the message; the session ends with the extension's close code.
    Extension,
    /// A control frame in fragments, or a Close whose payload is not legal.
    BadFrame,
    /// A named event for a session that is no event stream.
    NotEventStream,
    /// An event whose name is empty or has a line break.
    BadEventName,
    /// A code that may not be sent was to close a session, such as 1006.
    CloseReason(CloseReasonError),
}

impl From<CloseReasonError> for SendError {
    fn from(error: CloseReasonError) -> Self {
        Self::CloseReason(error)
    }
}

/// The most bytes of a control frame (RFC 6455 section 5.5).
const CONTROL_PAYLOAD_MAX: usize = 125;

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closing => f.write_str("the session is closing"),
            Self::Full { buffered } => {
                write!(f, "there is no room: {buffered} bytes are already queued")
            }
            Self::TooBig { bytes, limit } => {
                let what = "send less at a time, or raise what limits it: \
                            max_outgoing_message_size, max_frame_size for send_frame, max_bytes for a flow";
                write!(f, "{bytes} bytes are over the limit of {limit}; {what}")?;
                if *limit == CONTROL_PAYLOAD_MAX {
                    f.write_str("; a control frame never holds more (RFC 6455 section 5.5)")?;
                }
                Ok(())
            }
            Self::Fragments => f.write_str("finish the open message in fragments first"),
            Self::WholeOnly => f.write_str(
                "an event stream, and an extension that needs messages whole, take none in pieces; use send",
            ),
            Self::Gone => f.write_str("the session is over"),
            Self::NotRaw => f.write_str("send_frame is for routes of web_socket_raw; use send"),
            Self::Extension => f.write_str("an extension failed on the message"),
            Self::BadFrame => f.write_str(
                "a control frame cannot be a fragment, and a Close holds nothing or a legal code \
                 and UTF-8",
            ),
            Self::NotEventStream => {
                f.write_str("send_event is for routes of event_stream; use send")
            }
            Self::BadEventName => f.write_str("the name of an event is one line, and not empty"),
            Self::CloseReason(error) => error.fmt(f),
        }
    }
}

impl Error for SendError {}

/// What a hook returns when it fails, and what sending returns.
///
/// Any [`std::error::Error`] turns into one with `?`, and a text with `into`. A hook that returns one
/// ends its session: `on_error`, Close, `on_close`. The code is 1011, or 1003 or 1007 for what the peer sent
/// and the converter does not take. [`SendError::Closing`] and [`SendError::TooBig`] end nothing.
///
/// ```
/// use wirewheel::{Handler, HandlerResult, Message, Session};
/// struct Doubler;
/// impl Handler for Doubler {
///     fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
///         let Some(text) = message.text() else { return Err("text, please".into()) };
///         let number: i64 = text.parse()?; // not a number: 1011
///         session.send(&(number * 2).to_string())
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum HandlerError {
    /// A message was not taken for sending.
    Send(SendError),
    /// A message and a value could not be turned into each other.
    Convert(ConvertError),
    /// The application's own error.
    Other(Box<dyn Error + 'static>),
}

impl<E: Into<Box<dyn Error>>> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let boxed: Box<dyn Error> = error.into();
        let boxed = match boxed.downcast::<SendError>() {
            Ok(send) => return Self::Send(*send),
            Err(other) => other,
        };
        match boxed.downcast::<ConvertError>() {
            Ok(convert) => Self::Convert(*convert),
            Err(other) => Self::Other(other),
        }
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => error.fmt(f),
            Self::Convert(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// What a hook returns; see [`HandlerError`].
///
/// ```
/// use wirewheel::{HandlerResult, Message};
/// fn number(message: Message<'_>) -> HandlerResult<u64> {
///     Ok(message.text().unwrap_or_default().trim().parse()?)
/// }
/// assert_eq!(number(Message::from(" 7 ")).unwrap(), 7);
/// ```
pub type HandlerResult<T = ()> = Result<T, HandlerError>;

/// What ended a session that did not end by a Close of either side: what `on_error` is told.
///
/// ```
/// use wirewheel::error::SessionError;
/// use wirewheel::{CloseCode, Handler, Session};
/// struct Meter;
/// impl Handler for Meter {
///     fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
///         match error {
///             SessionError::PingTimeout | SessionError::Network(_) => {} // peers come and go
///             other => eprintln!("{}: {other}, so {}", session.id(), other.close_code()),
///         }
///     }
/// }
/// assert_eq!(SessionError::PingTimeout.close_code(), CloseCode::INTERNAL_ERROR);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer broke the protocol or a limit.
    Protocol(ProtocolError),
    /// No matching pong within `timeout` after a ping.
    PingTimeout,
    /// Nothing arrived for `idle_timeout`.
    IdleTimeout,
    /// More messages than `message_rate` came, and `message_rate_closes` is set.
    TooManyMessages,
    /// The peer took fewer of the queued bytes in `write_timeout` than `min_rate` asks for.
    WriteTimeout,
    /// The application did not take what the peer sends for `pause_timeout`.
    PauseTimeout,
    /// Of a message that the peer began, fewer bytes came in `write_timeout` than `min_rate` asks for.
    MessageTimeout,
    /// The outbox is full, or the memory budget used up.
    Overloaded,
    /// Certificates were reloaded, and the client's is refused now (`ClientCertificates::end_refused`).
    CertificateRefused,
    /// The connection failed: the peer or the network went away without a Close.
    Network(io::ErrorKind),
    /// An extension failed on a message, arriving or sent.
    Extension(ExtensionError),
    /// A hook did not understand what the peer sent, and returned that.
    Content(ConvertError),
    /// A hook returned an error.
    Handler(HandlerError),
    /// A hook panicked, with this message. The session ends like one whose hook failed; all others
    /// run on. Where panics abort (`panic = "abort"` in the profile) the process ends instead.
    Panic(String),
}

impl SessionError {
    /// The close code that answers it; 1006 where nothing can be sent.
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::Protocol(error) => error.close_code(),
            Self::Extension(error) => error.close_code(),
            Self::Content(error) => error.close_code(),
            Self::PingTimeout | Self::Handler(_) | Self::Panic(_) => CloseCode::INTERNAL_ERROR,
            Self::IdleTimeout => CloseCode::GOING_AWAY,
            Self::TooManyMessages | Self::MessageTimeout | Self::CertificateRefused => {
                CloseCode::VIOLATED_POLICY
            }
            Self::WriteTimeout | Self::PauseTimeout | Self::Overloaded => {
                CloseCode::TRY_AGAIN_LATER
            }
            Self::Network(_) => CloseCode::ABNORMAL,
        }
    }

    /// The text that goes with the code. It never carries the application's error.
    /// Whether it is that the peer takes nothing, or is to be given nothing more.
    pub(crate) fn says_that_nothing_is_taken(&self) -> bool {
        matches!(self, Self::WriteTimeout | Self::PingTimeout | Self::Overloaded)
    }

    pub(crate) fn close_text(&self) -> String {
        match self {
            Self::Protocol(error) => error.to_string(),
            Self::Extension(error) => error.to_string(),
            // The reason may quote the application's types.
            Self::Content(ConvertError::WrongKind { .. }) => "Wrong kind of message".into(),
            Self::Content(_) => "Bad data".into(),
            Self::PingTimeout => "Ping timeout".into(),
            Self::IdleTimeout => "Idle timeout".into(),
            Self::TooManyMessages => "Too many messages".into(),
            Self::WriteTimeout => "Write timeout".into(),
            Self::PauseTimeout => "Pause timeout".into(),
            Self::MessageTimeout => "Message timeout".into(),
            Self::Overloaded => "Try again later".into(),
            Self::CertificateRefused => "Certificate refused".into(),
            Self::Network(_) => String::new(),
            Self::Handler(_) | Self::Panic(_) => "Internal error".into(),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(error) => write!(f, "handler failed: {error}"),
            Self::Panic(message) => write!(f, "handler panicked: {message}"),
            Self::Content(error) => error.fmt(f),
            Self::Network(kind) => write!(f, "connection lost: {kind}"),
            Self::Protocol(_)
            | Self::Extension(_)
            | Self::PingTimeout
            | Self::IdleTimeout
            | Self::TooManyMessages
            | Self::WriteTimeout
            | Self::PauseTimeout
            | Self::MessageTimeout
            | Self::Overloaded
            | Self::CertificateRefused => f.write_str(&self.close_text()),
        }
    }
}

/// A value that an option does not take; the text names the option and the bounds.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{HandlerResult, Session};
/// fn tune(session: &mut Session<'_>) -> HandlerResult {
///     let mistake = session.set_timeout(Duration::ZERO).unwrap_err();
///     session.send(&mistake.to_string()) // "timeout is 0ns: it must be at least 1 ms ..."
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(crate) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}

/// Why an order of another thread was not taken.
///
/// ```
/// use wirewheel::error::HandleError;
/// use wirewheel::flow::FlowKey;
/// use wirewheel::Handle;
/// /// Whether it is worth measuring on.
/// fn publish(server: &Handle, flow: FlowKey<str>, reading: &str) -> bool {
///     match server.emit(flow, reading) {
///         Ok(()) | Err(HandleError::Full) => true, // full: this one is left out
///         Err(_) => false,                         // stopped
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// The loop has not kept up: too many orders or bytes are pending. Try again later, or drop.
    Full,
    /// The server is over.
    Stopped,
    /// A code that may not be sent was to close a session, such as 1006.
    CloseReason(CloseReasonError),
}

impl From<CloseReasonError> for HandleError {
    fn from(error: CloseReasonError) -> Self {
        Self::CloseReason(error)
    }
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("too much is pending at the server: try again later"),
            Self::Stopped => f.write_str("the server has stopped"),
            Self::CloseReason(error) => error.fmt(f),
        }
    }
}

impl Error for HandleError {}

/// Why a session does not get a name; see [`ServerRef::name`](crate::ServerRef::name).
///
/// ```
/// use wirewheel::error::NameError;
/// use wirewheel::{ServerRef, SessionId};
/// fn register(server: &mut ServerRef<'_>, id: SessionId, device: &str) -> bool {
///     match server.name(id, device) {
///         Err(NameError::Taken) => false, // connected already: server.take_name(id, device) replaces it
///         result => result.is_ok(),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// Another session has it.
    Taken,
    /// The session is over.
    Gone,
    /// The name is empty, or over 256 bytes.
    Length,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Taken => "another session has this name: take_name takes it away",
            Self::Gone => "the session is over",
            Self::Length => "a name has 1 to 256 bytes",
        })
    }
}

impl Error for NameError {}

/// Why a question was not put, or has no answer; see [`ServerRef::ask`](crate::ServerRef::ask).
///
/// ```
/// use wirewheel::error::AskError;
/// fn status(error: AskError) -> u16 {
///     match error {
///         AskError::Timeout => 504,
///         AskError::Ended | AskError::Send(_) => 502,
///         _ => 500,
///     }
/// }
/// assert_eq!(status(AskError::Timeout), 504);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AskError {
    /// No answer came in time.
    Timeout,
    /// The session ended before it answered.
    Ended,
    /// The question could not be sent: the session is over, or there is no room.
    Send(SendError),
    /// A question with this correlation is open in this session.
    Duplicate,
    /// As many are open as [`Limits::max_questions`](crate::Limits::max_questions) allows.
    TooMany,
    /// The correlation is over 256 bytes, or the time is none that an option would take.
    Invalid,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer came in time"),
            Self::Ended => f.write_str("the session ended before it answered"),
            Self::Send(error) => error.fmt(f),
            Self::Duplicate => f.write_str("a question with this correlation is open already"),
            Self::TooMany => {
                f.write_str("too many questions are open: raise Limits::max_questions")
            }
            Self::Invalid => f.write_str(
                "a correlation has at most 256 bytes, and a timeout is no zero and no year",
            ),
        }
    }
}

impl Error for AskError {}

impl From<SendError> for AskError {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

/// Why a server did not start, or its loop ended.
///
/// ```
/// use wirewheel::error::ServerError;
/// use wirewheel::{Application, Server};
/// fn serve(address: &str) {
///     match Server::bind(address, |_app: &mut Application| {}).and_then(Server::run) {
///         Ok(()) => println!("stopped"),
///         Err(ServerError::Bind { address, source }) => eprintln!("{address}: {source}"),
///         Err(ServerError::Config(mistake)) => eprintln!("{mistake}"),
///         Err(other) => eprintln!("{other}"),
///     }
/// }
/// ```
#[non_exhaustive]
pub enum ServerError {
    /// A mistake in the application's set-up; the text names it and says what to do.
    Config(String),
    /// An address could not be listened on.
    Bind {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The event loop could not be made or failed.
    Loop(io::Error),
    /// [`Handle::join`](crate::Handle::join) was called on the server's own thread, by a hook or a
    /// timer: it would wait for itself. Nothing has changed, and another thread can still join.
    JoinOnLoop,
}

/// As it is told to a user: a `main` that returns the error shows it this way.
impl fmt::Debug for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(mistake) => f.write_str(mistake),
            Self::Bind { address, source } if source.kind() == io::ErrorKind::InvalidInput => {
                write!(
                    f,
                    "cannot listen on {address}: {source}; it must be host:port or unix:/path"
                )
            }
            Self::Bind { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Loop(source) => write!(f, "event loop: {source}"),
            Self::JoinOnLoop => f.write_str(
                "join was called on the server's own thread, for whose end it waits: ask for a \
                 shutdown here, and join on another thread",
            ),
        }
    }
}

impl Error for ServerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(_) | Self::JoinOnLoop => None,
            Self::Bind { source, .. } | Self::Loop(source) => Some(source),
        }
    }
}

/// The result of starting and running a server.
///
/// ```
/// use wirewheel::{Application, Server};
/// fn address() -> wirewheel::Result<std::net::SocketAddr> {
///     Ok(Server::bind("127.0.0.1:0", |_app: &mut Application| {})?.local_addr())
/// }
/// assert!(address().is_ok());
/// ```
pub type Result<T, E = ServerError> = std::result::Result<T, E>;
