//! Owns the way from messages to values and back: converters, JSON, typed handlers.

use std::error::Error;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeOwned};
use serde::ser::Serialize;

use crate::words::close::CloseInfo;
use crate::words::convert::ConvertError;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::message::Message;

use crate::app::call::Call;
use crate::app::handler::{Handler, Hooks, Idle, on_message};
use crate::context::timers::TimerId;
use crate::session::Session;

/// What a converter makes of a value.
///
/// ```
/// use wirewheel::Content;
/// assert_ne!(Content::Text("1".into()), Content::Binary(b"1".to_vec()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

/// Reads a value from the deserializer that a converter makes of a message.
///
/// ```
/// use wirewheel::{ReadValue, erased_serde};
/// fn read_json<'de>(bytes: &'de [u8], read: ReadValue<'_, 'de>) -> Result<(), erased_serde::Error> {
///     let mut json = serde_json::Deserializer::from_slice(bytes);
///     read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json))
/// }
/// ```
pub type ReadValue<'r, 'de> =
    &'r mut dyn FnMut(&mut dyn erased_serde::Deserializer<'de>) -> Result<(), erased_serde::Error>;

/// Turns values into messages and back (Ktor's `WebsocketContentConverter`); feature `json`.
///
/// It is installed with [`WebSockets::content_converter`](crate::WebSockets::content_converter), or
/// for a route, and used by [`send_serialized`](Session::send_serialized) and
/// [`deserialize`](Session::deserialize). [`JsonConverter`] is one; any format with a serde
/// implementation makes another:
///
/// ```
/// use std::error::Error;
/// use wirewheel::{Content, ContentConverter, ReadValue, erased_serde};
///
/// /// JSON in binary messages, as some devices send it.
/// struct BinaryJson;
///
/// impl ContentConverter for BinaryJson {
///     fn accepts(&self, text: bool) -> bool {
///         !text
///     }
///     fn serialize(&self, value: &dyn erased_serde::Serialize) -> Result<Content, Box<dyn Error>> {
///         Ok(Content::Binary(serde_json::to_vec(value)?))
///     }
///     fn deserialize<'de>(&self, bytes: &'de [u8], read: ReadValue<'_, 'de>) -> Result<(), Box<dyn Error>> {
///         let mut json = serde_json::Deserializer::from_slice(bytes);
///         read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json))?;
///         Ok(json.end()?)
///     }
/// }
/// ```
pub trait ContentConverter {
    /// Whether it takes text messages (`true`) or binary ones (`false`); Ktor's `isApplicable`.
    fn accepts(&self, text: bool) -> bool;

    /// Writes a value.
    ///
    /// # Errors
    /// Why the value has no form in this format.
    fn serialize(&self, value: &dyn erased_serde::Serialize) -> Result<Content, Box<dyn Error>>;

    /// Makes a deserializer of a message's payload and hands it to `read`, once.
    ///
    /// # Errors
    /// What is wrong with the payload: `read`'s error, or anything behind the value.
    fn deserialize<'de>(
        &self,
        bytes: &'de [u8],
        read: ReadValue<'_, 'de>,
    ) -> Result<(), Box<dyn Error>>;
}

/// The converter that is installed, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Converter(Option<Rc<dyn ContentConverter>>);

impl fmt::Debug for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Converter" } else { "no Converter" })
    }
}

impl Converter {
    pub(crate) fn new(converter: impl ContentConverter + 'static) -> Self {
        Self(Some(Rc::new(converter)))
    }

    /// This one, or else the other.
    pub(crate) fn or(self, other: &Self) -> Self {
        if self.0.is_some() { self } else { other.clone() }
    }
}

/// Values as JSON in text messages (Ktor's `KotlinxWebsocketSerializationConverter(Json)`); feature
/// `json`. Binary messages are the wrong kind. Nesting is limited to 128 levels.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use wirewheel::{Application, Call, JsonConverter, WebSockets, on_value};
///
/// #[derive(Deserialize, Serialize)]
/// struct Customer { id: u64, name: String }
///
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new().content_converter(JsonConverter));
///     app.routing(|route| {
///         route.web_socket("/customer", |_call: &Call| {
///             on_value(|session, customer: Customer| session.send_serialized(&customer))
///         });
///     });
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonConverter;

impl ContentConverter for JsonConverter {
    fn accepts(&self, text: bool) -> bool {
        text
    }

    fn serialize(&self, value: &dyn erased_serde::Serialize) -> Result<Content, Box<dyn Error>> {
        Ok(Content::Text(serde_json::to_string(value)?))
    }

    fn deserialize<'de>(
        &self,
        bytes: &'de [u8],
        read: ReadValue<'_, 'de>,
    ) -> Result<(), Box<dyn Error>> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        read(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json))?;
        Ok(json.end()?)
    }
}

/// What a session does with values; feature `json`.
impl Session<'_> {
    /// Sends a value as the installed converter writes it (Ktor's `sendSerialized`).
    ///
    /// # Errors
    /// [`HandlerError::Convert`](crate::HandlerError::Convert) if there is no converter or the value
    /// has no form in its format; else as [`send`](Self::send).
    pub fn send_serialized<T: Serialize + ?Sized>(&mut self, value: &T) -> HandlerResult {
        let converter = self.converter()?;
        let content = converter.serialize(&value);
        match content.map_err(|error| ConvertError::BadValue { reason: error.to_string() })? {
            Content::Text(text) => self.send(&text),
            Content::Binary(bytes) => self.send(&bytes),
        }
    }

    /// Reads a value from a message as the installed converter understands it (Ktor's
    /// `receiveDeserialized`). What the value borrows, it borrows from the message.
    ///
    /// # Errors
    /// [`ConvertError::NoConverter`], [`ConvertError::WrongKind`] and [`ConvertError::BadData`]; from a
    /// hook they end the session with 1011, 1003 and 1007.
    ///
    /// ```
    /// use wirewheel::{HandlerResult, Message, Session};
    /// fn on_message(session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///     match session.deserialize::<(u32, &str)>(&message) {
    ///         Ok((number, name)) => session.send_serialized(&[number.to_string().as_str(), name]),
    ///         Err(error) => session.send(&format!("not understood: {error}")),
    ///     }
    /// }
    /// ```
    pub fn deserialize<'m, T: Deserialize<'m>>(
        &self,
        message: &Message<'m>,
    ) -> Result<T, ConvertError> {
        let converter = self.converter()?;
        if !converter.accepts(message.is_text()) {
            return Err(ConvertError::wrong_kind(message));
        }
        let mut value = None;
        let read = converter.deserialize(message.bytes(), &mut |deserializer| {
            value = Some(T::deserialize(deserializer)?);
            Ok(())
        });
        read.map_err(|error| ConvertError::bad_data(message, &error))?;
        value.ok_or_else(|| ConvertError::bad_data(message, &"the converter read no value"))
    }

    fn converter(&self) -> Result<Rc<dyn ContentConverter>, ConvertError> {
        let of_route = self.shared.converters.get(usize::from(self.state.route));
        of_route.and_then(|converter| converter.0.clone()).ok_or(ConvertError::NoConverter)
    }
}

/// A handler that is handed values instead of messages; feature `json`. [`Typed`] makes a
/// [`Handler`] of it. A message that is no such value ends the session (1003 or 1007).
///
/// ```
/// use serde::Deserialize;
/// use wirewheel::{Application, HandlerResult, JsonConverter, Session, Typed, TypedHandler, WebSockets};
///
/// #[derive(Deserialize)]
/// #[serde(tag = "do", rename_all = "lowercase")]
/// enum Command { Add { number: i64 }, Reset }
///
/// struct Sum(i64);
///
/// impl TypedHandler for Sum {
///     type Incoming = Command;
///     fn on_message(&mut self, session: &mut Session<'_>, command: Command) -> HandlerResult {
///         self.0 = match command {
///             Command::Add { number } => self.0.saturating_add(number),
///             Command::Reset => 0,
///         };
///         session.send_serialized(&self.0)
///     }
/// }
///
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new().content_converter(JsonConverter));
///     app.routing(|route| { route.web_socket("/sum", |_call| Typed(Sum(0))); });
/// }
/// ```
///
/// All hooks:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{
///     Call, CloseInfo, HandlerResult, Session, SessionError, TimerId, TypedHandler,
/// };
/// struct Numbers;
/// impl TypedHandler for Numbers {
///     type Incoming = u64;
///     fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
///         session.set_timer(Duration::from_secs(60))?;
///         Ok(())
///     }
///     fn on_message(&mut self, session: &mut Session<'_>, number: u64) -> HandlerResult {
///         session.send_serialized(&number.saturating_add(1))
///     }
///     fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
///         session.send_serialized(&payload.len())
///     }
///     fn on_pong(&mut self, _session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
///         println!("round trip {rtt:?}");
///         Ok(())
///     }
///     fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
///         session.send_serialized(&payload.len())
///     }
///     fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
///         Ok(session.resume())
///     }
///     fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
///         session.send_serialized("a minute has passed")
///     }
///     fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
///         eprintln!("{error}");
///     }
///     fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
///         println!("closed: {}", close.code());
///     }
/// }
/// ```
pub trait TypedHandler {
    /// What the messages hold.
    type Incoming: DeserializeOwned;

    /// See [`Handler::on_connect`].
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let _ = (session, call);
        Ok(())
    }

    /// A message arrived, and this is what it holds.
    fn on_message(&mut self, session: &mut Session<'_>, value: Self::Incoming) -> HandlerResult;

    /// See [`Handler::on_ping`].
    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        let _ = (session, payload);
        Ok(())
    }

    /// See [`Handler::on_pong`].
    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        let _ = (session, rtt);
        Ok(())
    }

    /// See [`Handler::on_own_pong`].
    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        let _ = (session, payload);
        Ok(())
    }

    /// See [`Handler::on_drain`].
    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        let _ = session;
        Ok(())
    }

    /// See [`Handler::on_timer`].
    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        let _ = (session, timer);
        Ok(())
    }

    /// See [`Handler::on_error`].
    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        let _ = (session, error);
    }

    /// See [`Handler::on_close`].
    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        let _ = (session, close);
    }
}

/// A [`TypedHandler`] as a [`Handler`]; feature `json`.
///
/// ```
/// use wirewheel::{HandlerResult, Session, Typed, TypedHandler};
/// struct Double;
/// impl TypedHandler for Double {
///     type Incoming = i32;
///     fn on_message(&mut self, session: &mut Session<'_>, number: i32) -> HandlerResult {
///         session.send_serialized(&number.saturating_mul(2))
///     }
/// }
/// let factory = |_call: &wirewheel::Call| Typed(Double); // for route.web_socket
/// # let _ = factory;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Typed<H>(pub H);

impl<H: TypedHandler> Handler for Typed<H> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.0.on_connect(session, call)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let value = session.deserialize(&message)?;
        self.0.on_message(session, value)
    }

    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.0.on_ping(session, payload)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.0.on_pong(session, rtt)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.0.on_own_pong(session, payload)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.0.on_drain(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        self.0.on_timer(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.0.on_error(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.0.on_close(session, close);
    }
}

/// Begins a handler of closures with a hook that is handed values; see [`JsonConverter`] for an
/// example; feature `json`.
///
/// ```
/// use wirewheel::{Call, on_value};
/// let double = |_call: &Call| {
///     on_value(|session, number: i32| session.send_serialized(&number.saturating_mul(2)))
/// };
/// # let _ = double;
/// ```
pub fn on_value<T, F>(
    mut hook: F,
) -> Hooks<Idle, impl FnMut(&mut Session<'_>, Message<'_>) -> HandlerResult>
where
    T: DeserializeOwned,
    F: FnMut(&mut Session<'_>, T) -> HandlerResult,
{
    on_message(move |session: &mut Session<'_>, message: Message<'_>| {
        let value = session.deserialize(&message)?;
        hook(session, value)
    })
}
