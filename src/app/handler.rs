//! The hooks of a session: the trait, and the same from closures.

use std::time::Duration;

use crate::words::close::CloseInfo;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::message::Message;

use crate::app::call::Call;
use crate::session::Session;
use crate::structures::ids::TimerId;

/// What a session does: one value per session, made by the route's factory.
///
/// The order is fixed: `on_connect` first; then messages, pings and pongs as they come; `on_error` if
/// something failed; `on_close` last, exactly once for each `on_connect`. No hook runs inside
/// another. A hook that returns an error ends its session with 1011
/// ([`HandlerError`](crate::error::HandlerError)), and so does one that panics, where panics unwind
/// ([`SessionError::Panic`]); a factory, an upgrade hook or a page that panics gives a 500.
///
/// ```
/// use wirewheel::{Call, Handler, HandlerResult, Message, Session};
///
/// struct Counter { messages: u64 }
///
/// impl Handler for Counter {
///     fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
///         session.send(&format!("hello, {}", call.path()))
///     }
///     fn on_message(&mut self, session: &mut Session<'_>, _message: Message<'_>) -> HandlerResult {
///         self.messages += 1;
///         session.send(&self.messages.to_string())
///     }
/// }
/// ```
///
/// All hooks:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::error::SessionError;
/// use wirewheel::{Call, CloseInfo, Handler, HandlerResult, Message, Session, TimerId};
/// struct Full;
/// impl Handler for Full {
///     fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
///         session.set_timer(Duration::from_secs(60))?;
///         Ok(())
///     }
///     fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
///         session.send(message)
///     }
///     fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
///         println!("{} asks {payload:?}", session.id());
///         Ok(())
///     }
///     fn on_pong(&mut self, _session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
///         println!("round trip {rtt:?}");
///         Ok(())
///     }
///     fn on_own_pong(&mut self, _session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
///         println!("ping(..) was answered: {payload:?}");
///         Ok(())
///     }
///     fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
///         session.send("you have caught up")
///     }
///     fn on_timer(&mut self, session: &mut Session<'_>, _timer: TimerId) -> HandlerResult {
///         session.send("a minute has passed")
///     }
///     fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
///         eprintln!("{}: {error}", session.id());
///     }
///     fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
///         println!("closed: {} {}", close.code(), close.text());
///     }
/// }
/// ```
pub trait Handler {
    /// The upgrade is done (Ktor: the start of the `webSocket` block). `call` is the request; keep
    /// `call.clone()` if it is wanted later.
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let _ = (session, call);
        Ok(())
    }

    /// A whole message arrived, borrowed from the read buffer. Not called after `close`.
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let _ = (session, message);
        Ok(())
    }

    /// The peer sent a ping, with up to 125 bytes. It is answered already. Not called after `close`.
    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        let _ = (session, payload);
        Ok(())
    }

    /// The pong that matches the server's own ping arrived, `rtt` after it was sent.
    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        let _ = (session, rtt);
        Ok(())
    }

    /// Another pong arrived: the answer to a [`ping`](Session::ping) of the application's own, with its
    /// payload, or one that nobody asked for, as RFC 6455 section 5.5.3 lets a peer send. Not called
    /// after `close`.
    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        let _ = (session, payload);
        Ok(())
    }

    /// The peer was slow, and everything that was waiting for it to read is written now.
    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        let _ = session;
        Ok(())
    }

    /// A timer that [`set_timer`](Session::set_timer) set is over.
    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        let _ = (session, timer);
        Ok(())
    }

    /// Something failed: the peer broke the protocol, a timeout or limit struck, the network
    /// failed, or a hook returned an error. A Close of either side and a plain end of the
    /// connection are not failures. `session.close_info()` is known here.
    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        let _ = (session, error);
    }

    /// The session is over; nothing can be sent to it any more, and no hook is called after this one.
    /// What it says to others (`emit`, `server()`) is said.
    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        let _ = (session, close);
    }
}

/// A route's factory may choose between kinds of handlers.
///
/// ```
/// use wirewheel::{Call, Handler, on_connect, on_message};
/// fn choose(call: &Call) -> Box<dyn Handler> {
///     match call.query_parameter("echo").is_some() {
///         true => Box::new(on_message(|session, message| session.send(message))),
///         false => Box::new(on_connect(|session, _call| session.send("I only talk"))),
///     }
/// }
/// ```
impl<H: Handler + ?Sized> Handler for Box<H> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        (**self).on_connect(session, call)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        (**self).on_message(session, message)
    }

    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        (**self).on_ping(session, payload)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        (**self).on_pong(session, rtt)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        (**self).on_own_pong(session, payload)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        (**self).on_drain(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        (**self).on_timer(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        (**self).on_error(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        (**self).on_close(session, close);
    }
}

/// A handler made of closures: [`on_message`] and [`on_connect`] begin one, its methods add hooks.
///
/// ```no_run
/// use wirewheel::{Application, Call, Server, WebSockets, on_message};
/// fn main() -> wirewheel::Result<()> {
///     Server::bind("127.0.0.1:8080", |app: &mut Application| {
///         app.install(WebSockets::new());
///         app.routing(|route| {
///             route.web_socket("/echo", |_call: &Call| {
///                 on_message(|session, message| session.send(message))
///                     .on_close(|_session, close| println!("closed: {}", close.code()))
///             });
///         });
///     })?
///     .run()
/// }
/// ```
///
/// ```
/// use std::time::Duration;
/// use wirewheel::{Call, Handler, on_message};
/// fn talker(_call: &Call) -> impl Handler + use<> {
///     on_message(|session, message| session.send(message))
///         .on_connect(|session, _call| {
///             session.set_timer(Duration::from_secs(60))?;
///             session.send("hello")
///         })
///         .on_timer(|session, _timer| session.send("a minute has passed"))
///         .on_ping(|_session, payload| Ok(println!("it asks {payload:?}")))
///         .on_pong(|_session, rtt| Ok(println!("round trip {rtt:?}")))
///         .on_own_pong(|_session, payload| Ok(println!("ping(..) was answered: {payload:?}")))
///         .on_drain(|session| Ok(session.resume()))
///         .on_error(|_session, error| eprintln!("{error}"))
///         .on_close(|_session, close| println!("{}", close.code()))
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Hooks<
    Connect,
    Receive,
    Ping = Idle,
    Pong = Idle,
    OwnPong = Idle,
    Drain = Idle,
    Timer = Idle,
    Fail = Idle,
    Close = Idle,
> {
    pub(crate) connect: Connect,
    pub(crate) receive: Receive,
    ping: Ping,
    pong: Pong,
    own_pong: OwnPong,
    pub(crate) drain: Drain,
    pub(crate) timer: Timer,
    pub(crate) fail: Fail,
    pub(crate) close: Close,
}

/// A hook of [`Hooks`] that does nothing.
///
/// ```
/// use wirewheel::hooks::{Hooks, Idle};
/// use wirewheel::on_message;
/// type Echo<F> = Hooks<Idle, F>; // the others are idle
/// fn is_small<F>(hooks: &Echo<F>) -> bool {
///     size_of_val(hooks) == size_of::<F>() // what is idle takes no room
/// }
/// assert!(is_small(&on_message(|session, message| session.send(message))));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Idle;

/// Begins a handler of closures with `on_message`; see [`Hooks`].
///
/// ```
/// use wirewheel::{Call, on_message};
/// let echo = |_call: &Call| on_message(|session, message| session.send(message));
/// # let _ = echo;
/// ```
pub fn on_message<F>(hook: F) -> Hooks<Idle, F>
where
    F: FnMut(&mut Session<'_>, Message<'_>) -> HandlerResult,
{
    Hooks::receiving(hook)
}

/// Begins a handler of closures with `on_connect`; see [`Hooks`].
///
/// ```
/// use wirewheel::{Call, on_connect};
/// let greeter = |_call: &Call| on_connect(|session, call| session.send(call.path()));
/// # let _ = greeter;
/// ```
pub fn on_connect<F>(hook: F) -> Hooks<F, Idle>
where
    F: FnMut(&mut Session<'_>, &Call) -> HandlerResult,
{
    Hooks::receiving(Idle).on_connect(hook)
}

impl<M> Hooks<Idle, M> {
    pub(crate) fn receiving(receive: M) -> Self {
        Self {
            connect: Idle,
            receive,
            ping: Idle,
            pong: Idle,
            own_pong: Idle,
            drain: Idle,
            timer: Idle,
            fail: Idle,
            close: Idle,
        }
    }
}

impl<C, M, I, P, O, D, T, E, X> Hooks<C, M, I, P, O, D, T, E, X> {
    /// Sets [`Handler::on_connect`].
    pub fn on_connect<F>(self, hook: F) -> Hooks<F, M, I, P, O, D, T, E, X>
    where
        F: FnMut(&mut Session<'_>, &Call) -> HandlerResult,
    {
        let Self { receive, ping, pong, own_pong, drain, timer, fail, close, .. } = self;
        Hooks { connect: hook, receive, ping, pong, own_pong, drain, timer, fail, close }
    }

    /// Sets [`Handler::on_message`].
    pub fn on_message<F>(self, hook: F) -> Hooks<C, F, I, P, O, D, T, E, X>
    where
        F: FnMut(&mut Session<'_>, Message<'_>) -> HandlerResult,
    {
        let Self { connect, ping, pong, own_pong, drain, timer, fail, close, .. } = self;
        Hooks { connect, receive: hook, ping, pong, own_pong, drain, timer, fail, close }
    }

    /// Sets [`Handler::on_ping`].
    pub fn on_ping<F>(self, hook: F) -> Hooks<C, M, F, P, O, D, T, E, X>
    where
        F: FnMut(&mut Session<'_>, &[u8]) -> HandlerResult,
    {
        let Self { connect, receive, pong, own_pong, drain, timer, fail, close, .. } = self;
        Hooks { connect, receive, ping: hook, pong, own_pong, drain, timer, fail, close }
    }

    /// Sets [`Handler::on_pong`].
    pub fn on_pong<F>(self, hook: F) -> Hooks<C, M, I, F, O, D, T, E, X>
    where
        F: FnMut(&mut Session<'_>, Duration) -> HandlerResult,
    {
        let Self { connect, receive, ping, own_pong, drain, timer, fail, close, .. } = self;
        Hooks { connect, receive, ping, pong: hook, own_pong, drain, timer, fail, close }
    }

    /// Sets [`Handler::on_own_pong`].
    pub fn on_own_pong<F>(self, hook: F) -> Hooks<C, M, I, P, F, D, T, E, X>
    where
        F: FnMut(&mut Session<'_>, &[u8]) -> HandlerResult,
    {
        let Self { connect, receive, ping, pong, drain, timer, fail, close, .. } = self;
        Hooks { connect, receive, ping, pong, own_pong: hook, drain, timer, fail, close }
    }

    /// Sets [`Handler::on_drain`].
    pub fn on_drain<F>(self, hook: F) -> Hooks<C, M, I, P, O, F, T, E, X>
    where
        F: FnMut(&mut Session<'_>) -> HandlerResult,
    {
        let Self { connect, receive, ping, pong, own_pong, timer, fail, close, .. } = self;
        Hooks { connect, receive, ping, pong, own_pong, drain: hook, timer, fail, close }
    }

    /// Sets [`Handler::on_timer`].
    pub fn on_timer<F>(self, hook: F) -> Hooks<C, M, I, P, O, D, F, E, X>
    where
        F: FnMut(&mut Session<'_>, TimerId) -> HandlerResult,
    {
        let Self { connect, receive, ping, pong, own_pong, drain, fail, close, .. } = self;
        Hooks { connect, receive, ping, pong, own_pong, drain, timer: hook, fail, close }
    }

    /// Sets [`Handler::on_error`].
    pub fn on_error<F>(self, hook: F) -> Hooks<C, M, I, P, O, D, T, F, X>
    where
        F: FnMut(&mut Session<'_>, &SessionError),
    {
        let Self { connect, receive, ping, pong, own_pong, drain, timer, close, .. } = self;
        Hooks { connect, receive, ping, pong, own_pong, drain, timer, fail: hook, close }
    }

    /// Sets [`Handler::on_close`].
    pub fn on_close<F>(self, hook: F) -> Hooks<C, M, I, P, O, D, T, E, F>
    where
        F: FnMut(&mut Session<'_>, &CloseInfo),
    {
        let Self { connect, receive, ping, pong, own_pong, drain, timer, fail, .. } = self;
        Hooks { connect, receive, ping, pong, own_pong, drain, timer, fail, close: hook }
    }
}

/// A place of [`Hooks`] that holds a closure or [`Idle`]. Sealed: closures and `Idle` are all.
#[allow(clippy::unused_unit, reason = "a macro writes the return type of every hook")]
#[allow(unnameable_types, reason = "sealed: nobody else is to implement a hook")]
pub(crate) mod hook {
    use super::{
        Call, CloseInfo, Duration, HandlerResult, Idle, Message, Session, SessionError, TimerId,
    };

    macro_rules! hook {
        ($name:ident($($arg:ident: $T:ty),*) -> $Out:ty, $idle:expr) => {
            pub trait $name {
                fn run(&mut self, session: &mut Session<'_>, $($arg: $T),*) -> $Out;
            }
            impl $name for Idle {
                fn run(&mut self, _: &mut Session<'_>, $(_: $T),*) -> $Out {
                    $idle
                }
            }
            impl<F: FnMut(&mut Session<'_>, $($T),*) -> $Out> $name for F {
                fn run(&mut self, session: &mut Session<'_>, $($arg: $T),*) -> $Out {
                    self(session, $($arg),*)
                }
            }
        };
    }
    hook!(Connect(call: &Call) -> HandlerResult, Ok(()));
    hook!(Receive(message: Message<'_>) -> HandlerResult, Ok(()));
    hook!(Ping(payload: &[u8]) -> HandlerResult, Ok(()));
    hook!(Pong(rtt: Duration) -> HandlerResult, Ok(()));
    hook!(OwnPong(payload: &[u8]) -> HandlerResult, Ok(()));
    hook!(Drain() -> HandlerResult, Ok(()));
    hook!(Timer(timer: TimerId) -> HandlerResult, Ok(()));
    hook!(Fail(error: &SessionError) -> (), ());
    hook!(Close(close: &CloseInfo) -> (), ());
}

impl<C, M, I, P, O, D, T, E, X> Handler for Hooks<C, M, I, P, O, D, T, E, X>
where
    C: hook::Connect,
    M: hook::Receive,
    I: hook::Ping,
    P: hook::Pong,
    O: hook::OwnPong,
    D: hook::Drain,
    T: hook::Timer,
    E: hook::Fail,
    X: hook::Close,
{
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.connect.run(session, call)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        self.receive.run(session, message)
    }

    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.ping.run(session, payload)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.pong.run(session, rtt)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.own_pong.run(session, payload)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.drain.run(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        self.timer.run(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.fail.run(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.close.run(session, close);
    }
}
