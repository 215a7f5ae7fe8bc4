//! The methods that dial: while the application is set up, and while it runs.

use crate::app::application::Application;
use crate::app::byte_handler::ByteHandler;
use crate::app::call::Call;
use crate::app::connect_options::ConnectOptions;
use crate::app::connector::Connector;
use crate::app::handler::Handler;
use crate::app::piece_handler::PieceHandler;
use crate::app::raw_handler::RawHandler;
use crate::context::dialers::{Dialer, DialerKey};
use crate::context::loop_state::ServerRef;
use crate::protocol::client_url::ClientUrl;
use crate::words::error::ConfigError;

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

    /// Dials a session that speaks a protocol of its own: `url` is `tcp://host:port`, `tls://host:port`
    /// (feature `tls`) or `unix:/run/x.sock`; feature `client`. It is dialled, and dialled again, as
    /// [`connect`](Self::connect) does, through a proxy too; of the options those of requests and answers
    /// have no meaning and are refused. See [`ByteHandler`], with an example.
    ///
    /// ```
    /// use wirewheel::client::{ByteHandler, ConnectOptions};
    /// use wirewheel::{Application, HandlerResult, Session};
    /// struct Log;
    /// impl ByteHandler for Log {
    ///     fn on_bytes(&mut self, _: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
    ///         println!("{bytes:?}");
    ///         Ok(())
    ///     }
    /// }
    /// fn module(app: &mut Application) {
    ///     app.connect_bytes("unix:/run/gpsd.sock", ConnectOptions::new(), || Log);
    /// }
    /// ```
    pub fn connect_bytes<F, H>(&mut self, url: &str, options: ConnectOptions, factory: F) -> Dialer
    where
        F: Fn() -> H + 'static,
        H: ByteHandler + 'static,
    {
        self.dial(url, Connector::of_bytes(url, &options, factory))
    }

    /// The same for a session that is handed messages in pieces; see [`pieces`](crate::pieces).
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::pieces::on_piece;
    /// use wirewheel::{Application, Call};
    /// fn module(app: &mut Application) {
    ///     app.connect_pieces("ws://127.0.0.1:9001/", ConnectOptions::new(), |_call: &Call| {
    ///         on_piece(|session, piece| session.send_piece(piece, piece.is_last()))
    ///     });
    /// }
    /// ```
    pub fn connect_pieces<F, H>(&mut self, url: &str, options: ConnectOptions, factory: F) -> Dialer
    where
        F: Fn(&Call) -> H + 'static,
        H: PieceHandler + 'static,
    {
        self.dial(url, Connector::of_pieces(url, &options, factory))
    }

    fn dial(&mut self, url: &str, connector: Result<Connector, String>) -> Dialer {
        self.only_once("Application::connect");
        #[cfg(feature = "tls")]
        let connector = connector.and_then(|connector| connector.with_tls(self.dialers()));
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
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::error::ConfigError;
    /// use wirewheel::raw::on_frame;
    /// use wirewheel::{Call, ServerRef};
    /// fn join(server: &mut ServerRef<'_>, url: &str) -> Result<(), ConfigError> {
    ///     let cloud = server.connect_raw(url, ConnectOptions::new(), |_call: &Call| {
    ///         on_frame(|session, frame| session.send_frame(frame))
    ///     })?;
    ///     assert!(server.find_dialer(cloud.key()).is_some());
    ///     Ok(())
    /// }
    /// ```
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

    /// The same for a session that speaks a protocol of its own; see [`Application::connect_bytes`].
    ///
    /// ```
    /// use wirewheel::client::{ByteHandler, ConnectOptions};
    /// use wirewheel::error::ConfigError;
    /// use wirewheel::{HandlerResult, ServerRef, Session};
    /// struct Log;
    /// impl ByteHandler for Log {
    ///     fn on_bytes(&mut self, _: &mut Session<'_>, bytes: &[u8]) -> HandlerResult {
    ///         println!("{bytes:?}");
    ///         Ok(())
    ///     }
    /// }
    /// fn listen_to(server: &mut ServerRef<'_>, device: &str) -> Result<(), ConfigError> {
    ///     server.connect_bytes(&format!("tcp://{device}:2101"), ConnectOptions::new(), || Log)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_bytes<F, H>(
        &mut self,
        url: &str,
        options: ConnectOptions,
        factory: F,
    ) -> Result<Dialer, ConfigError>
    where
        F: Fn() -> H + 'static,
        H: ByteHandler + 'static,
    {
        self.dial(Connector::of_bytes(url, &options, factory))
    }

    /// The same for a session that is handed messages in pieces; see [`Application::connect_pieces`].
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::error::ConfigError;
    /// use wirewheel::pieces::on_piece;
    /// use wirewheel::{Call, ServerRef};
    /// fn fetch(server: &mut ServerRef<'_>, url: &str) -> Result<(), ConfigError> {
    ///     server.connect_pieces(url, ConnectOptions::new(), |_call: &Call| {
    ///         on_piece(|_session, piece| Ok(println!("{} bytes", piece.bytes().len())))
    ///     })?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_pieces<F, H>(
        &mut self,
        url: &str,
        options: ConnectOptions,
        factory: F,
    ) -> Result<Dialer, ConfigError>
    where
        F: Fn(&Call) -> H + 'static,
        H: PieceHandler + 'static,
    {
        self.dial(Connector::of_pieces(url, &options, factory))
    }

    fn dial(&self, connector: Result<Connector, String>) -> Result<Dialer, ConfigError> {
        let dialers = &self.shared.dialers;
        #[cfg(feature = "tls")]
        let connector = connector.and_then(|connector| connector.with_tls(dialers));
        let connector = connector.map_err(ConfigError)?;
        self.shared.limits.check_message(&connector.settings.session).map_err(ConfigError)?;
        let added = dialers.add(Box::new(connector));
        added.ok_or_else(|| ConfigError("there are too many dialers".into()))
    }

    /// The dialer of that name, while it has not stopped or somebody has it; none of another loop.
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
