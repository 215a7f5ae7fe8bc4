//! Owns the way from messages to values and back: converters, JSON, typed handlers.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::words::close::CloseInfo;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::message::Message;

use crate::app::call::Call;
use crate::app::handler::{Handler, Hooks, Idle, on_message};
use crate::session::Session;
use crate::structures::ids::TimerId;

/// A handler that is handed values instead of messages; feature `json`. [`Typed`] makes a
/// [`Handler`] of it. A message that is no such value ends the session (1003 or 1007).
///
/// ```
/// use serde::Deserialize;
/// use wirewheel::json::{JsonConverter, Typed, TypedHandler};
/// use wirewheel::{Application, HandlerResult, Session, WebSockets};
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
/// use wirewheel::error::SessionError;
/// use wirewheel::json::TypedHandler;
/// use wirewheel::{Call, CloseInfo, HandlerResult, Session, TimerId};
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
/// use wirewheel::json::{Typed, TypedHandler};
/// use wirewheel::{HandlerResult, Session};
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

/// Begins a handler of closures with a hook that is handed values; see
/// [`JsonConverter`](crate::json::JsonConverter) for an
/// example; feature `json`.
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
