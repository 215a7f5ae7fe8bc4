//! Conversions from and to the types of the crate tungstenite (feature `tungstenite`).
//!
//! They stand in one file, and nothing else of the public API names a type of tungstenite: its major
//! versions are breaking changes of this feature alone.

use tungstenite::protocol::frame::Utf8Bytes;
use tungstenite::protocol::frame::coding::CloseCode as TheirCode;
use tungstenite::protocol::{CloseFrame, Message as Theirs, WebSocketConfig};

use crate::app::application::WebSockets;
use crate::words::bounds::LARGEST_SIZE;
use crate::words::close::{CloseCode, CloseReason, CloseReasonError};
use crate::words::compat::Compat;
use crate::words::convert::ConvertError;
use crate::words::message::{Message, Payload};
use crate::words::message_buf::MessageBuf;

/// Feature `tungstenite`. The payload is copied; reserved bits are not kept.
impl From<Message<'_>> for Theirs {
    fn from(message: Message<'_>) -> Self {
        match message.payload() {
            Payload::Text(text) => Self::text(text),
            Payload::Binary(bytes) => Self::binary(bytes.to_vec()),
        }
    }
}

/// Feature `tungstenite`. The payload is copied.
impl From<&MessageBuf> for Theirs {
    fn from(message: &MessageBuf) -> Self {
        message.as_message().into()
    }
}

/// Feature `tungstenite`. The payload is copied.
impl From<MessageBuf> for Theirs {
    fn from(message: MessageBuf) -> Self {
        message.as_message().into()
    }
}

/// Feature `tungstenite`. The payload is copied.
///
/// ```
/// # #[cfg(feature = "tungstenite")] {
/// use wirewheel::message::MessageBuf;
/// let theirs = tungstenite::Message::text("hello");
/// let ours = MessageBuf::try_from(&theirs)?;
/// assert_eq!(ours, MessageBuf::from("hello"));
/// assert_eq!(tungstenite::Message::from(&ours), theirs);
/// assert!(MessageBuf::try_from(&tungstenite::Message::Ping("".into())).is_err());
/// # }
/// # Ok::<(), wirewheel::error::ConvertError>(())
/// ```
impl TryFrom<&Theirs> for MessageBuf {
    type Error = ConvertError;

    /// # Errors
    /// [`ConvertError::BadValue`] for what is no text and no binary message: a ping, a pong, a Close or
    /// a single frame.
    fn try_from(message: &Theirs) -> Result<Self, ConvertError> {
        let other = match message {
            Theirs::Text(text) => return Ok(text.as_str().into()),
            Theirs::Binary(bytes) => return Ok(bytes.as_ref().into()),
            Theirs::Ping(_) => "a ping: Session::ping sends one",
            Theirs::Pong(_) => "a pong: Session::pong sends one",
            Theirs::Close(_) => "a Close: Session::close takes it as a CloseReason",
            Theirs::Frame(_) => "a frame, which may be a part of a message",
        };
        Err(ConvertError::BadValue { reason: format!("no message, but {other}") })
    }
}

/// Feature `tungstenite`. As of a reference.
impl TryFrom<Theirs> for MessageBuf {
    type Error = ConvertError;

    fn try_from(message: Theirs) -> Result<Self, ConvertError> {
        Self::try_from(&message)
    }
}

/// Feature `tungstenite`. Every code has its number there, and keeps it on the way back.
impl From<CloseCode> for TheirCode {
    fn from(code: CloseCode) -> Self {
        u16::from(code).into()
    }
}

/// Feature `tungstenite`.
impl From<TheirCode> for CloseCode {
    fn from(code: TheirCode) -> Self {
        Self::new(code.into())
    }
}

/// Feature `tungstenite`.
impl From<&CloseReason> for CloseFrame {
    fn from(reason: &CloseReason) -> Self {
        Self { code: reason.code().into(), reason: Utf8Bytes::from(reason.text()) }
    }
}

/// Feature `tungstenite`.
impl From<CloseReason> for CloseFrame {
    fn from(reason: CloseReason) -> Self {
        (&reason).into()
    }
}

/// Feature `tungstenite`.
///
/// ```
/// # #[cfg(feature = "tungstenite")] {
/// use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
/// use wirewheel::CloseReason;
/// let theirs = CloseFrame { code: CloseCode::Away, reason: "closing time".into() };
/// let ours = CloseReason::try_from(theirs.clone())?;
/// assert_eq!((u16::from(ours.code()), ours.text()), (1001, "closing time"));
/// assert_eq!(CloseFrame::from(ours), theirs);
/// # }
/// # Ok::<(), wirewheel::error::CloseReasonError>(())
/// ```
impl TryFrom<CloseFrame> for CloseReason {
    type Error = CloseReasonError;

    /// # Errors
    /// A code that may not be sent, or a text over 123 bytes, neither of which that type refuses.
    fn try_from(frame: CloseFrame) -> Result<Self, CloseReasonError> {
        Self::new(frame.code.into(), frame.reason.as_str())
    }
}

/// Feature `tungstenite`. The options that mean the same here: `max_frame_size`, `max_message_size` and
/// `accept_unmasked_frames`; without a limit, a size is the largest that there is here, 1 GiB, for
/// which [`Limits::process_bytes`](crate::Limits::process_bytes) has to be raised too. The sizes of
/// buffers are left out: here the read buffer is that of the server
/// ([`Limits::read_buffer_bytes`](crate::Limits::read_buffer_bytes)), nothing is written late, and what
/// waits for a peer has the bound [`outbox_bytes`](WebSockets::outbox_bytes), which there is no limit
/// by default.
///
/// ```
/// # #[cfg(feature = "tungstenite")] {
/// use tungstenite::protocol::WebSocketConfig;
/// use wirewheel::{Application, WebSockets};
/// fn module(app: &mut Application) {
///     let config = WebSocketConfig::default()
///         .max_frame_size(Some(64 << 10))
///         .max_message_size(Some(1 << 20));
///     app.install(WebSockets::from(config).outbox_bytes(128 << 10));
/// }
/// # let _ = module;
/// # }
/// ```
impl From<WebSocketConfig> for WebSockets {
    fn from(config: WebSocketConfig) -> Self {
        Self::new()
            .max_frame_size(config.max_frame_size.unwrap_or(LARGEST_SIZE))
            .max_message_size(config.max_message_size.unwrap_or(LARGEST_SIZE))
            .compat(Compat::new().accept_unmasked_frames(config.accept_unmasked_frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Application, Call, Server, on_message};
    use tungstenite::protocol::frame::Frame;

    #[test]
    fn messages_go_there_and_back() {
        for ours in [
            MessageBuf::from("κόσμε"),
            MessageBuf::from(""),
            MessageBuf::from(b"\xff\x00"),
            MessageBuf::from(vec![7; 70_000]),
        ] {
            let theirs = Theirs::from(&ours);
            assert_eq!(theirs.is_text(), ours.as_message().is_text());
            assert_eq!(theirs, Theirs::from(ours.clone()));
            assert_eq!(theirs, Theirs::from(ours.as_message()));
            assert_eq!(MessageBuf::try_from(theirs), Ok(ours));
        }
    }

    #[test]
    fn what_is_no_message_is_an_error_that_says_what_it_is() {
        for (theirs, what) in [
            (Theirs::Ping("x".into()), "a ping"),
            (Theirs::Pong("x".into()), "a pong"),
            (Theirs::Close(None), "a Close"),
            (Theirs::Frame(Frame::ping("x")), "a frame"),
        ] {
            let error = MessageBuf::try_from(theirs).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn every_code_goes_there_and_back() {
        for number in 0..=u16::MAX {
            let code = CloseCode::new(number);
            assert_eq!(CloseCode::from(TheirCode::from(code)), code);
        }
    }

    #[test]
    fn reasons_go_there_and_back_and_what_cannot_be_sent_is_an_error() {
        for (code, text) in [(1000, ""), (1013, "later"), (4999, "κόσμε")] {
            let ours = CloseReason::new(CloseCode::new(code), text).unwrap();
            let theirs = CloseFrame::from(&ours);
            assert_eq!((u16::from(theirs.code), theirs.reason.as_str()), (code, text));
            assert_eq!(CloseReason::try_from(theirs), Ok(ours));
        }
        let theirs = |code: u16, text: &str| CloseFrame { code: code.into(), reason: text.into() };
        assert!(CloseReason::try_from(theirs(1005, "")).is_err());
        assert!(CloseReason::try_from(theirs(1000, &"x".repeat(124))).is_err());
    }

    /// What starting a server with these options says.
    fn start(config: WebSocketConfig) -> String {
        let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
            app.install(WebSockets::from(config));
            app.routing(|route| {
                route.web_socket("/", |_call: &Call| on_message(|s, message| s.send(message)));
            });
        });
        match server.and_then(Server::spawn) {
            Ok(handle) => {
                handle.shutdown(std::time::Duration::ZERO);
                String::new()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn options_mean_the_same_and_no_limit_is_the_largest() {
        let config = WebSocketConfig::default()
            .max_frame_size(Some(1000))
            .max_message_size(Some(2000))
            .accept_unmasked_frames(true);
        let expected = WebSockets::new()
            .max_frame_size(1000)
            .max_message_size(2000)
            .compat(Compat::new().accept_unmasked_frames(true));
        assert_eq!(format!("{:?}", WebSockets::from(config)), format!("{expected:?}"));
        assert_eq!(start(config), "");
        let unlimited = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
        let error = start(unlimited);
        assert!(error.contains("process_bytes"), "{error}");
    }
}
