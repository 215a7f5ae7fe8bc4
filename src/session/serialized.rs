//! Sending and reading values through the content converter.

use std::rc::Rc;

use serde::de::Deserialize;
use serde::ser::Serialize;

use crate::protocol::content::ContentConverter;
use crate::words::convert::ConvertError;
use crate::words::error::HandlerResult;
use crate::words::message::Message;

use crate::session::Session;

/// What a session does with values; feature `json`.
impl Session<'_> {
    /// Sends a value as the installed converter writes it (Ktor's `sendSerialized`).
    ///
    /// # Errors
    /// [`HandlerError::Convert`](crate::error::HandlerError::Convert) if there is no converter or the value
    /// has no form in its format; else as [`send`](Self::send).
    pub fn send_serialized<T: Serialize + ?Sized>(&mut self, value: &T) -> HandlerResult {
        let converter = self.converter()?;
        let message = converter.serialize(&value);
        self.send(&message.map_err(|error| ConvertError::BadValue { reason: error.to_string() })?)
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
