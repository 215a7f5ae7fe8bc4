//! What an application dials: where to, with which options, and the handler of each session.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::app::byte_handler::{ByteHandler, OfBytes};
use crate::app::call::Call;
use crate::app::connect_options::{ConnectOptions, Settings};
use crate::app::endpoint::{Endpoint, InPieces, OfFrames, OfMessages};
use crate::app::handler::Handler;
use crate::app::piece_handler::PieceHandler;
use crate::app::raw_handler::RawHandler;
use crate::context::dialers::{DialerCell, Dialers};
use crate::protocol::client_url::{ClientUrl, Place};
use crate::protocol::frame::FrameRules;
use crate::protocol::http_proxy::HttpProxy;
use crate::protocol::piece_reader::PieceStep;
use crate::session::Session;
use crate::session::agreement::Delivery;
use crate::session::byte_stream::PlainBytes;
use crate::session::event_stream::EventEncoder;
use crate::session::extensions::Pipeline;
use crate::structures::ids::TimerId;
#[cfg(feature = "tls")]
use crate::transport::tls::connector::{TlsConnector, TlsStart};
use crate::words::close::CloseInfo;
use crate::words::error::{HandlerResult, SessionError};
use crate::words::frame::Frame;
use crate::words::limits::Limits;
use crate::words::message::Message;
use crate::words::piece::Piece;

/// All that an attempt needs of the application.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) url: Rc<ClientUrl>,
    pub(crate) settings: Rc<Settings>,
    pub(crate) proxy: Option<Rc<HttpProxy>>,
    /// `None` before it is used.
    #[cfg(feature = "tls")]
    tls: Option<Rc<TlsConnector>>,
    pub(crate) delivery: Delivery,
    /// What encodes where no WebSocket is spoken. Only who dials such has it linked.
    pub(crate) bytes: Option<Rc<dyn EventEncoder>>,
    pub(crate) factory: Rc<ClientFactory>,
}

/// Never in the clear where a URL asks for TLS.
pub(crate) const NO_TLS: &str =
    "wss:// needs the feature tls of this library: features = [\"client\", \"tls\"] in Cargo.toml";

/// Makes the handler of one session, of which the dialer hears.
type ClientFactory = dyn Fn(&Call, Rc<DialerCell>) -> Box<dyn Endpoint>;

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.url)
    }
}

impl Connector {
    fn new<E: Endpoint + 'static>(
        url: ClientUrl,
        options: &ConnectOptions,
        delivery: Delivery,
        endpoint: impl Fn(&Call) -> E + 'static,
    ) -> Result<Self, String> {
        if let Some(Err(mistake)) = url.place.address() {
            return Err(mistake);
        }
        if url.secure && !cfg!(feature = "tls") {
            return Err(NO_TLS.into());
        }
        let settings = Rc::clone(options.settings());
        settings.check()?;
        let proxy = settings.proxy(&url)?.map(Rc::new);
        if proxy.is_some() && matches!(url.place, Place::Unix(_)) {
            return Err("proxy: a Unix socket is on this machine, and no proxy leads to it".into());
        }
        let factory = Rc::new(move |call: &Call, cell| -> Box<dyn Endpoint> {
            Box::new(DialledEndpoint { inner: endpoint(call), cell })
        });
        Ok(Self {
            url: Rc::new(url),
            settings,
            proxy,
            #[cfg(feature = "tls")]
            tls: None,
            delivery,
            bytes: None,
            factory,
        })
    }

    /// Makes what TLS needs where the URL asks for it, so that what is missing is a mistake in the set-up.
    #[cfg(feature = "tls")]
    pub(super) fn with_tls(mut self, dialers: &Dialers) -> Result<Self, String> {
        if self.url.secure {
            self.tls_start(dialers, &Rc::clone(&self.url))?;
        }
        Ok(self)
    }

    /// What a connection to the host of `url` begins TLS with.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_start(
        &mut self,
        dialers: &Dialers,
        url: &ClientUrl,
    ) -> Result<TlsStart, String> {
        let tls = match self.tls.take() {
            Some(tls) => tls,
            None => dialers.tls.find(&self.settings.tls).map_err(|mistake| mistake.to_string())?,
        };
        self.tls = Some(Rc::clone(&tls));
        let start = match &url.place {
            Place::Tcp { host, .. } => TlsStart::new(tls, host)?,
            Place::Unix(path) => TlsStart::new(tls, path)?,
        };
        Ok(if url.is_bytes { start.of_bytes() } else { start })
    }

    pub(super) fn of_messages<F, H>(
        url: &str,
        options: &ConnectOptions,
        factory: F,
    ) -> Result<Self, String>
    where
        F: Fn(&Call) -> H + 'static,
        H: Handler + 'static,
    {
        Self::new(ClientUrl::parse(url)?, options, Delivery::Messages, move |call| {
            OfMessages::<H>::new(factory(call))
        })
    }

    pub(super) fn of_pieces<F, H>(
        url: &str,
        options: &ConnectOptions,
        factory: F,
    ) -> Result<Self, String>
    where
        F: Fn(&Call) -> H + 'static,
        H: PieceHandler + 'static,
    {
        Self::new(ClientUrl::parse(url)?, options, Delivery::Pieces, move |call| {
            OfMessages::<H, InPieces>::new(factory(call))
        })
    }

    pub(super) fn of_frames<F, H>(
        url: &str,
        options: &ConnectOptions,
        factory: F,
    ) -> Result<Self, String>
    where
        F: Fn(&Call) -> H + 'static,
        H: RawHandler + 'static,
    {
        Self::new(ClientUrl::parse(url)?, options, Delivery::Frames, move |call| {
            OfFrames(factory(call))
        })
    }

    pub(super) fn of_bytes<F, H>(
        url: &str,
        options: &ConnectOptions,
        factory: F,
    ) -> Result<Self, String>
    where
        F: Fn() -> H + 'static,
        H: ByteHandler + 'static,
    {
        options.settings().check_bytes()?;
        let url = ClientUrl::parse_bytes(url)?;
        // As behind a raw handler's back, nothing is asked by itself.
        let connector = Self::new(url, options, Delivery::Frames, move |_call| OfBytes(factory()))?;
        Ok(Self { bytes: Some(Rc::new(PlainBytes)), ..connector })
    }
}

/// Refuses options of dialled sessions that cannot be meant together with these limits.
pub(super) fn check_dialled(dialers: &Dialers, limits: &Limits) -> Result<(), String> {
    dialers.check_fresh(|connector| {
        let Some(connector) = connector.downcast_ref::<Connector>() else { return Ok(()) };
        limits
            .check_message(&connector.settings.session)
            .map_err(|mistake| format!("Application::connect {}: {mistake}", connector.url))
    })
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

    fn next_piece<'a>(
        &self,
        pipeline: &mut Pipeline,
        rx: &'a mut [u8],
        rules: &FrameRules,
    ) -> Result<(PieceStep<'a>, usize), SessionError> {
        self.inner.next_piece(pipeline, rx, rules)
    }

    fn on_piece(&mut self, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
        self.cell.heard.set(true);
        self.inner.on_piece(session, piece)
    }

    fn on_ping(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.inner.on_ping(session, payload)
    }

    fn on_pong(&mut self, session: &mut Session<'_>, rtt: Duration) -> HandlerResult {
        self.cell.heard.set(true);
        self.inner.on_pong(session, rtt)
    }

    fn on_own_pong(&mut self, session: &mut Session<'_>, payload: &[u8]) -> HandlerResult {
        self.cell.heard.set(true);
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

    fn bytes_held(&self) -> usize {
        self.inner.bytes_held()
    }

    fn on_close(&mut self, session: &mut Session<'_>, close: &CloseInfo) {
        self.cell.note_end(close); // first: the application's part may panic
        self.inner.on_close(session, close);
    }
}
