//! Values as messages: content converters, and JSON.

use std::error::Error;
use std::fmt;
use std::rc::Rc;

use serde::Deserialize;

use crate::words::message_buf::MessageBuf;

/// Reads a value from the deserializer that a converter makes of a message.
///
/// ```
/// use wirewheel::json::{ReadValue, erased_serde};
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
/// for a route, and used by [`send_serialized`](crate::Session::send_serialized) and
/// [`deserialize`](crate::Session::deserialize). [`JsonConverter`] is one; any format with a serde
/// implementation makes another:
///
/// ```
/// use std::error::Error;
/// use wirewheel::json::{ContentConverter, ReadValue, erased_serde};
/// use wirewheel::message::MessageBuf;
///
/// /// JSON in binary messages, as some devices send it.
/// struct BinaryJson;
///
/// impl ContentConverter for BinaryJson {
///     fn accepts(&self, text: bool) -> bool {
///         !text
///     }
///     fn serialize(&self, value: &dyn erased_serde::Serialize) -> Result<MessageBuf, Box<dyn Error>> {
///         Ok(serde_json::to_vec(value)?.into())
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

    /// Whether it takes request bodies of this `Content-Type`, in small letters and without parameters;
    /// others get 415. By default `application/json` and what ends with `+json`. Types that a page of
    /// anybody may send without asking (`text/plain`, forms) are better not taken.
    ///
    /// ```
    /// use wirewheel::json::{ContentConverter, JsonConverter};
    /// assert!(JsonConverter.accepts_type("application/json"));
    /// assert!(!JsonConverter.accepts_type("text/plain"));
    /// ```
    fn accepts_type(&self, content_type: &str) -> bool {
        content_type == "application/json" || content_type.ends_with("+json")
    }

    /// Writes a value as a text or a binary message: `String` and `Vec<u8>` turn into one.
    ///
    /// # Errors
    /// Why the value has no form in this format.
    fn serialize(&self, value: &dyn erased_serde::Serialize) -> Result<MessageBuf, Box<dyn Error>>;

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
pub(crate) struct Converter(pub(crate) Option<Rc<dyn ContentConverter>>);

impl fmt::Debug for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Converter" } else { "no Converter" })
    }
}

impl Converter {
    pub(crate) fn new(converter: impl ContentConverter + 'static) -> Self {
        Self(Some(Rc::new(converter)))
    }

    /// Reads a value; the error says what is wrong with the bytes.
    pub(crate) fn read_value<'m, T: Deserialize<'m>>(
        converter: &dyn ContentConverter,
        bytes: &'m [u8],
    ) -> Result<T, String> {
        let mut value = None;
        let read = converter.deserialize(bytes, &mut |deserializer| {
            value = Some(T::deserialize(deserializer)?);
            Ok(())
        });
        read.map_err(|error| error.to_string())?;
        value.ok_or_else(|| "the converter read no value".to_owned())
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
/// use wirewheel::json::{JsonConverter, on_value};
/// use wirewheel::{Application, Call, WebSockets};
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

    fn serialize(&self, value: &dyn erased_serde::Serialize) -> Result<MessageBuf, Box<dyn Error>> {
        Ok(serde_json::to_string(value)?.into())
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
