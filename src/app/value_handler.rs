//! A handler of closures that is handed values instead of messages.

use serde::de::DeserializeOwned;

use crate::words::error::HandlerResult;
use crate::words::message::Message;

use crate::app::handler::{Hooks, Idle, on_message};
use crate::session::Session;

/// Begins a handler of closures with a hook that is handed values; feature `json`. See
/// [`JsonConverter`](crate::json::JsonConverter) for an example.
///
/// A [`Handler`](crate::Handler) of your own calls [`Session::deserialize`] in its `on_message`, which is
/// all that this does. A message that is no such value ends the session (1003 or 1007).
///
/// ```
/// use wirewheel::json::on_value;
/// use wirewheel::Call;
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
