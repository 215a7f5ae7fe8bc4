//! Routes of event streams: one-way sessions over plain HTTP (WHATWG HTML, server-sent events).

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::session::event_stream::{EventEncoder, ServerSentEvents};
use crate::words::bounds::check_time;
use crate::words::options::{OutboxOverflow, SessionOptions, session_option_setters};

use crate::app::call::Call;
use crate::app::origins::OriginOptions;
use crate::app::pattern::Pattern;
use crate::app::response::{Accept, Response};
use crate::app::route_config::RouteConfig;
use crate::app::setters::origin_setters;
use crate::app::web_socket_route::{Installed, WebSocketRoute};
#[cfg(feature = "json")]
use crate::protocol::content::Converter;

/// What a client waits before it connects again, and up to half as much more.
const RETRY: Duration = Duration::from_secs(3);

/// A route of event streams; its setters override, for its streams, what is installed.
///
/// Of the options of [`WebSockets`](crate::WebSockets) those of what arrives mean nothing here, since nothing
/// does: they are not there.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
/// use wirewheel::options::OutboxOverflow;
/// use wirewheel::{Accept, Application, Call, Response, on_connect};
/// fn module(app: &mut Application) {
///     let options = FlowOptions::new().replay(100).on_buffer_overflow(BufferOverflow::DropOldest);
///     let news: SharedFlow = app.flow(options);
///     app.routing(move |route| {
///         route
///             .event_stream("/news", move |_call: &Call| {
///                 let news = news.clone();
///                 on_connect(move |session, _call| session.collect(&news))
///             })
///             .retry(Duration::from_secs(1))
///             .base64()
///             .ping_period(Duration::from_secs(30)) // or None
///             .timeout(Duration::from_secs(15))
///             .write_timeout(Duration::from_secs(30))
///             .max_outgoing_message_size(256 << 10)
///             .outbox_bytes(128 << 10)
///             .outbox_messages(1_000)
///             .on_outbox_full(OutboxOverflow::DropOldest)
///             .allowed_origins(["https://box.example"]) // or .allow_any_origin()
///             .hosts(["box.local"])
///             .on_request(|call: &Call| match call.cookie("token") {
///                 Some("secret") => Ok(Accept::new()),
///                 _ => Err(Response::new(204)), // "do not come back"
///             });
///     });
/// }
/// # wirewheel::Server::bind("127.0.0.1:0", module)?.spawn()?.shutdown(Duration::ZERO);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct EventStreamRoute {
    route: WebSocketRoute,
    base64: bool,
    retry: Duration,
    /// Makes the encoder. Only `new` names it, so that a program without such a route does not link it.
    encoder: fn(bool, Duration) -> Rc<dyn EventEncoder>,
}

impl fmt::Debug for EventStreamRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStreamRoute").field("route", &self.route).finish_non_exhaustive()
    }
}

impl EventStreamRoute {
    pub(super) fn new(route: WebSocketRoute) -> Self {
        let encoder = |base64, retry| Rc::new(ServerSentEvents { base64, retry }) as Rc<_>;
        Self { route, base64: false, retry: RETRY, encoder }
    }

    pub(super) fn path(&self) -> &str {
        self.route.path()
    }

    origin_setters! { self: [&mut self] -> &mut Self }
    session_option_setters! { @setters self [&mut self] [&mut Self]
        /// Time between heartbeats; `None` switches them off. Default 15 s.
        ping_period: optional Duration, |options, period| options.ping_period = period;
        /// How long a client's system may take to acknowledge a heartbeat, from when the next one is due;
        /// then the stream ends with 1011. Default 15 s.
        timeout: required Duration, |options, time| options.timeout = time;
        /// Ends a stream (1013) whose client takes less of what waits in this time than
        /// [`min_rate`](crate::Limits::min_rate) asks for. Default 30 s.
        write_timeout: required Duration, |options, time| options.write_timeout = time;
        /// The most bytes of a message. A larger one is refused with
        /// [`SendError::TooBig`](crate::error::SendError::TooBig), and of a flow's passed over; so is one
        /// that line breaks or base64 make more than twice as long. Default: a quarter of `process_bytes`.
        max_outgoing_message_size: required usize,
            |options, bytes| options.max_outgoing_message_size = Some(bytes);
        /// The most bytes that wait for a client that does not read; one message is always taken while
        /// nothing waits. Default 64 KiB.
        outbox_bytes: required usize, |options, bytes| options.outbox_bytes = bytes;
        /// The most messages that wait for a client that does not read. Default 4,096.
        outbox_messages: required usize, |options, count| options.outbox_messages = count;
        /// What happens to a message that does not fit in the outbox. Default
        /// [`OutboxOverflow::Close`]: 1013.
        on_outbox_full: required OutboxOverflow, |options, policy| options.on_outbox_full = policy;
    }

    /// Sends binary messages in base64. Default: they are skipped and counted, as an event carries text.
    pub fn base64(&mut self) -> &mut Self {
        self.base64 = true;
        self
    }

    /// What a client waits before it connects again, and up to half as much more, which is drawn for each
    /// stream so that not all come back at once. Default 3 s.
    pub fn retry(&mut self, retry: Duration) -> &mut Self {
        self.retry = retry;
        self
    }

    /// Asks `hook` before a stream begins, after those of the scopes around; see
    /// [`Routing::on_upgrade`](crate::Routing::on_upgrade). An `EventSource` connects again after an answer
    /// of 200 alone, so a rejection of any other status, such as 204 or 401, ends it for good. A
    /// `Content-Type` that an acceptance adds is left out.
    pub fn on_request(
        &mut self,
        hook: impl Fn(&Call) -> Result<Accept, Response> + 'static,
    ) -> &mut Self {
        self.route.on_upgrade(hook);
        self
    }

    fn change(&mut self, change: impl FnOnce(&mut SessionOptions) + 'static) {
        self.route.change(change);
    }

    fn origins_mut(&mut self) -> &mut OriginOptions {
        self.route.origins_mut()
    }

    #[cfg(feature = "json")]
    fn converter_mut(&mut self) -> &mut Converter {
        self.route.converter_mut()
    }

    /// Checks it, as it is put in the table.
    pub(crate) fn finish(
        mut self,
        installed: &Installed,
    ) -> Result<(Pattern, RouteConfig), String> {
        let Self { base64, retry, encoder, .. } = self;
        let at_route = |mistake| format!("route {:?}: {mistake}", self.route.path());
        check_time("retry", retry).map_err(at_route)?;
        self.route.change(|options| {
            // Nothing ever arrives, and there are no frames.
            options.idle_timeout = None;
            options.masking = false;
        });
        self.route.negotiate_extensions(false);
        let (pattern, mut config) = self.route.finish(installed)?;
        config.events = Some(encoder(base64, retry));
        Ok((pattern, config))
    }
}
