//! What an application dials: where to, with which options, and the handler of each session.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::app::application::Application;
use crate::app::call::Call;
use crate::app::connect_options::{ConnectOptions, Settings};
use crate::app::endpoint::{Endpoint, OfFrames, OfMessages};
use crate::app::handler::Handler;
use crate::app::raw_handler::RawHandler;
use crate::context::dialers::{Dialer, DialerCell, DialerKey};
use crate::context::loop_state::ServerRef;
use crate::protocol::client_url::ClientUrl;
use crate::protocol::http_proxy::HttpProxy;
use crate::session::Session;
use crate::structures::ids::TimerId;
use crate::words::close::CloseInfo;
use crate::words::error::{ConfigError, HandlerResult, SessionError};
use crate::words::frame::Frame;
use crate::words::message::Message;

/// All that an attempt needs of the application.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) url: Rc<ClientUrl>,
    pub(crate) settings: Rc<Settings>,
    pub(crate) proxy: Option<Rc<HttpProxy>>,
    pub(crate) raw: bool,
    pub(crate) factory: Rc<ClientFactory>,
}

/// Makes the handler of one session, of which the dialer hears.
type ClientFactory = dyn Fn(&Call, Rc<DialerCell>) -> Box<dyn Endpoint>;

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.url)
    }
}

impl Connector {
    fn new(
        url: &str,
        options: &ConnectOptions,
        raw: bool,
        factory: Rc<ClientFactory>,
    ) -> Result<Self, String> {
        let url = ClientUrl::parse(url)?;
        if let Some(Err(mistake)) = url.place.address() {
            return Err(mistake);
        }
        let settings = Rc::clone(options.settings());
        settings.check()?;
        let proxy = settings.proxy(&url)?.map(Rc::new);
        Ok(Self { url: Rc::new(url), settings, proxy, raw, factory })
    }

    fn of_messages<F, H>(url: &str, options: &ConnectOptions, factory: F) -> Result<Self, String>
    where
        F: Fn(&Call) -> H + 'static,
        H: Handler + 'static,
    {
        let make = move |call: &Call, cell| -> Box<dyn Endpoint> {
            Box::new(DialledEndpoint { inner: OfMessages(factory(call)), cell })
        };
        Self::new(url, options, false, Rc::new(make))
    }

    fn of_frames<F, H>(url: &str, options: &ConnectOptions, factory: F) -> Result<Self, String>
    where
        F: Fn(&Call) -> H + 'static,
        H: RawHandler + 'static,
    {
        let make = move |call: &Call, cell| -> Box<dyn Endpoint> {
            Box::new(DialledEndpoint { inner: OfFrames(factory(call)), cell })
        };
        Self::new(url, options, true, Rc::new(make))
    }
}

impl Application {
    /// Dials a session, and dials again whenever it ends or an attempt fails; feature `client`. `url` is
    /// `ws://host/path`, `wss://host/path`, or `ws+unix:/run/x.sock:/path` (`ws+unix:@name:/path` in
    /// Linux's abstract namespace); user information becomes Basic credentials. `factory` makes the handler
    /// of each session, with the [`Call`] of its handshake, whose answer is [`Call::answer`]. A mistake is
    /// kept and returned when the server starts, as that of a route is.
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::{Application, Call, HandlerResult, Handler, Message, Session};
    /// #[derive(Default)]
    /// struct Uplink;
    /// impl Handler for Uplink {
    ///     fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
    ///         println!("{:?} chose {:?}", call.uri(), call.protocol());
    ///         session.send("here I am")
    ///     }
    ///     fn on_message(&mut self, _: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
    ///         println!("{:?}", message.text());
    ///         Ok(())
    ///     }
    /// }
    /// fn module(app: &mut Application) {
    ///     let options = ConnectOptions::new().protocol("device.v1");
    ///     app.connect("ws://cloud.example/dev/42", options, |_call: &Call| Uplink::default());
    /// }
    /// ```
    pub fn connect<F, H>(&mut self, url: &str, options: ConnectOptions, factory: F) -> Dialer
    where
        F: Fn(&Call) -> H + 'static,
        H: Handler + 'static,
    {
        self.dial(url, Connector::of_messages(url, &options, factory))
    }

    /// The same for a session that is handed frames; see [`RawHandler`]. It sends no pings of its own.
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::raw::on_frame;
    /// use wirewheel::{Application, Call};
    /// fn module(app: &mut Application) {
    ///     app.connect_raw("ws://127.0.0.1:9001/", ConnectOptions::new(), |_call: &Call| {
    ///         on_frame(|session, frame| session.send_frame(frame))
    ///     });
    /// }
    /// ```
    pub fn connect_raw<F, H>(&mut self, url: &str, options: ConnectOptions, factory: F) -> Dialer
    where
        F: Fn(&Call) -> H + 'static,
        H: RawHandler + 'static,
    {
        self.dial(url, Connector::of_frames(url, &options, factory))
    }

    fn dial(&mut self, url: &str, connector: Result<Connector, String>) -> Dialer {
        let connector: Box<dyn std::any::Any> = match connector {
            Ok(connector) => Box::new(connector),
            Err(mistake) => {
                self.mistake(format!("Application::connect {}: {mistake}", without_secrets(url)));
                Box::new(()) // the application will not start
            }
        };
        self.dialers().add_for_setup(connector)
    }
}

impl ServerRef<'_> {
    /// Dials a session while the server runs; see [`Application::connect`].
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::error::ConfigError;
    /// use wirewheel::{Call, ServerRef, on_message};
    /// fn join(server: &mut ServerRef<'_>, url: &str) -> Result<(), ConfigError> {
    ///     server.connect(url, ConnectOptions::new(), |_call: &Call| {
    ///         on_message(|session, message| session.send(message))
    ///     })?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// A mistake in the URL or in an option, or too many dialers (65,536); the text says which.
    pub fn connect<F, H>(
        &mut self,
        url: &str,
        options: ConnectOptions,
        factory: F,
    ) -> Result<Dialer, ConfigError>
    where
        F: Fn(&Call) -> H + 'static,
        H: Handler + 'static,
    {
        self.dial(Connector::of_messages(url, &options, factory))
    }

    /// The same for a session that is handed frames; see [`Application::connect_raw`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_raw<F, H>(
        &mut self,
        url: &str,
        options: ConnectOptions,
        factory: F,
    ) -> Result<Dialer, ConfigError>
    where
        F: Fn(&Call) -> H + 'static,
        H: RawHandler + 'static,
    {
        self.dial(Connector::of_frames(url, &options, factory))
    }

    fn dial(&mut self, connector: Result<Connector, String>) -> Result<Dialer, ConfigError> {
        let connector = connector.map_err(ConfigError)?;
        self.shared.limits.check_message(&connector.settings.session).map_err(ConfigError)?;
        let added = self.shared.dialers.add(Box::new(connector));
        added.ok_or_else(|| ConfigError("there are too many dialers".into()))
    }

    /// The dialer of that name, while it has not stopped or somebody has it.
    pub fn find_dialer(&self, key: DialerKey) -> Option<Dialer> {
        self.shared.dialers.find(key)
    }
}

/// A URL as it may be shown, also where it is none.
fn without_secrets(url: &str) -> String {
    match ClientUrl::parse(url) {
        Ok(url) => url.to_string(),
        Err(_) => {
            let shown = url.split(['?', '#']).next().unwrap_or_default();
            let (scheme, rest) = shown.split_once("://").unwrap_or(("", shown));
            let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
            format!("{scheme}://{rest}")
        }
    }
}

/// The endpoint of a dialled session, of which its dialer hears.
struct DialledEndpoint<E> {
    inner: E,
    cell: Rc<DialerCell>,
}

impl<E: Endpoint> Endpoint for DialledEndpoint<E> {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        self.inner.on_connect(session, call)
    }

    #[inline]
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        self.cell.heard.set(true);
        self.inner.on_message(session, message)
    }

    fn on_frame(&mut self, session: &mut Session<'_>, frame: Frame<'_>) -> HandlerResult {
        self.cell.heard.set(true);
        self.inner.on_frame(session, frame)
    }

    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.inner.on_ping(session, payload)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.cell.heard.set(true);
        self.inner.on_pong(session, rtt)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.inner.on_own_pong(session, payload)
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        self.inner.on_drain(session)
    }

    fn on_timer(&mut self, session: &mut Session<'_>, timer: TimerId) -> HandlerResult {
        self.inner.on_timer(session, timer)
    }

    fn on_error(&mut self, session: &mut Session<'_>, error: &SessionError) {
        self.inner.on_error(session, error);
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.cell.note_end(close); // first: the application's part may panic
        self.inner.on_close(session, close);
    }
}
