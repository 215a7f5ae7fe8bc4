//! The options of a session that is dialled.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::context::loop_state::ServerRef;
use crate::protocol::client_handshake::check_request_header;
use crate::protocol::client_url::ClientUrl;
use crate::protocol::connect_error::ConnectError;
#[cfg(feature = "json")]
use crate::protocol::content::{ContentConverter, Converter};
use crate::protocol::extension::ExtensionFactory;
use crate::protocol::http_proxy::{HttpProxy, proxy_of_environment};
use crate::protocol::token::is_token;
use crate::session::agreement::{Factories, check_factories};
use crate::structures::backoff::BackoffBounds;
use crate::words::bounds::check_time;
use crate::words::close::CloseInfo;
use crate::words::connect::Reconnect;
use crate::words::options::{SessionOptions, session_option_setters};
#[cfg(feature = "tls")]
use crate::words::{
    tls::{CertificateFiles, Pem},
    tls_client::{ClientTlsOptions, Pin, Pinned, Roots},
};

/// How a session is dialled, and its options. Clones share their memory; dialers with clones of the same
/// options and one URL share more.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::{ConnectError, ConnectOptions, Reconnect};
/// use wirewheel::CloseInfo;
/// fn token() -> String {
///     "secret of this minute".into()
/// }
/// let options = ConnectOptions::new()
///     .header("User-Agent", "gateway/1.0")
///     .header_with("Authorization", || format!("Bearer {}", token())) // asked for each attempt
///     .protocol("device.v2")
///     .protocol("device.v1")
///     .connect_timeout(Duration::from_secs(10))
///     .backoff(Duration::from_secs(1), Duration::from_secs(60))
///     .proxy("http://proxy.example:3128")
///     .redirects(3)
///     .on_failure(|error: &ConnectError, _next: Duration| match error.status() {
///         Some(410) => Reconnect::Stop,
///         _ => Reconnect::Retry,
///     })
///     .on_lost(|close: &CloseInfo, _next: Duration| match u16::from(close.code()) {
///         4001 => Reconnect::After(Duration::from_secs(3600)),
///         _ => Reconnect::Retry,
///     })
///     .ping_period(Duration::from_secs(30))
///     .max_frame_size(256 << 10);
/// # let _ = options;
/// ```
///
/// The options of the session, which are those of a server's, and where the connection leads:
///
/// ```
/// use std::time::Duration;
/// use wirewheel::client::ConnectOptions;
/// use wirewheel::compat::Compat;
/// use wirewheel::options::{OutboxOverflow, Rate};
/// let options = ConnectOptions::new()
///     .proxy_from_environment()
///     .ping_period(Duration::from_secs(20)) // or None
///     .timeout(Duration::from_secs(15))
///     .idle_timeout(None)
///     .write_timeout(Duration::from_secs(30))
///     .pause_timeout(None)
///     .max_frame_size(64 << 10)
///     .max_message_size(256 << 10)
///     .max_outgoing_message_size(1 << 20)
///     .max_fragments(1_000)
///     .max_piecewise_message_size(16 << 20)
///     .outbox_bytes(128 << 10)
///     .outbox_messages(1_000)
///     .on_outbox_full(OutboxOverflow::DropOldest)
///     .message_rate(Rate::per_second(50).burst(100))
///     .message_rate_closes(false)
///     .compat(Compat::new().lenient_rsv(true)); // masking is always on
/// # #[cfg(feature = "deflate")]
/// let options = options.extension(wirewheel::extension::Deflate::new());
/// # #[cfg(feature = "json")]
/// let options = options.content_converter(wirewheel::json::JsonConverter);
/// # let _ = options;
/// ```
#[derive(Clone)]
#[must_use = "hand it to Application::connect or ServerRef::connect"]
pub struct ConnectOptions {
    settings: Rc<Settings>,
}

/// What the options are made of.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) session: SessionOptions,
    pub(crate) headers: Vec<(String, HeaderValue)>,
    pub(crate) protocols: Vec<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) backoff: BackoffBounds,
    pub(crate) redirects: u8,
    proxy: ProxyChoice,
    #[cfg(feature = "tls")]
    pub(crate) tls: ClientTlsOptions,
    pub(crate) extensions: Rc<Factories>,
    #[cfg(feature = "json")]
    pub(crate) converter: Converter,
    pub(crate) on_failure: Option<Rc<FailureHook>>,
    pub(crate) on_lost: Option<Rc<LossHook>>,
    pub(crate) after_failure: Option<Rc<FailureAction>>,
}

type FailureHook = dyn Fn(&ConnectError, Duration) -> Reconnect;
type LossHook = dyn Fn(&CloseInfo, Duration) -> Reconnect;
type FailureAction = dyn Fn(&mut ServerRef<'_>, &ConnectError);

/// Where the value of a header comes from.
#[derive(Clone)]
pub(crate) enum HeaderValue {
    Fixed(String),
    Made(Rc<dyn Fn() -> String>),
}

#[derive(Clone)]
enum ProxyChoice {
    None,
    Named(String),
    Environment,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions").field("settings", &self.settings).finish()
    }
}

impl fmt::Debug for Settings {
    /// Without headers and proxy, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("session", &self.session)
            .field("protocols", &self.protocols)
            .finish_non_exhaustive()
    }
}

impl ConnectOptions {
    /// The defaults: 10 s for an attempt, a back-off up to 60 s, pings every 20 s, no proxy, no redirects.
    pub fn new() -> Self {
        let settings = Settings {
            session: SessionOptions::of_client(),
            headers: Vec::new(),
            protocols: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            backoff: BackoffBounds {
                first: Duration::from_secs(1),
                largest: Duration::from_secs(60),
            },
            redirects: 0,
            proxy: ProxyChoice::None,
            #[cfg(feature = "tls")]
            tls: ClientTlsOptions::default(),
            extensions: Rc::default(),
            #[cfg(feature = "json")]
            converter: Converter::default(),
            on_failure: None,
            on_lost: None,
            after_failure: None,
        };
        Self { settings: Rc::new(settings) }
    }

    session_option_setters! { self: [mut self] -> Self }

    fn change(&mut self, change: impl FnOnce(&mut SessionOptions) + 'static) {
        change(&mut self.settings_mut().session);
    }

    fn settings_mut(&mut self) -> &mut Settings {
        Rc::make_mut(&mut self.settings)
    }

    pub(crate) fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// Adds a header line to the request. What the handshake writes itself may not be set.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let header = (name.into(), HeaderValue::Fixed(value.into()));
        self.settings_mut().headers.push(header);
        self
    }

    /// Adds a header line whose value is made anew for each attempt, such as a token that expires. A value
    /// that cannot be sent fails the attempt.
    pub fn header_with(
        mut self,
        name: impl Into<String>,
        value: impl Fn() -> String + 'static,
    ) -> Self {
        let header = (name.into(), HeaderValue::Made(Rc::new(value)));
        self.settings_mut().headers.push(header);
        self
    }

    /// Offers a subprotocol; called several times, they are offered in that order. Which one the server
    /// chose, if any, is in [`Call::protocol`](crate::Call::protocol).
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.settings_mut().protocols.push(protocol.into());
        self
    }

    /// The most time of an attempt, from the name of the server to its answer. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings_mut().connect_timeout = timeout;
        self
    }

    /// The delays between attempts: the first after a session was lost is drawn from 0 to 3 s; the next
    /// one from half to whole of twice `first`, which doubles up to `largest`. They start anew once a session
    /// has heard something from the server, or has lived as long as `largest`. Default 1 s and 60 s.
    pub fn backoff(mut self, first: Duration, largest: Duration) -> Self {
        self.settings_mut().backoff = BackoffBounds { first, largest };
        self
    }

    /// Follows so many redirects of an attempt, at most 10; never from `wss` to `ws`, and without
    /// credentials (user information, `Authorization`, `Cookie`, `Host`) where another server is named.
    /// Default 0: a redirect is a refusal.
    pub fn redirects(mut self, most: u8) -> Self {
        self.settings_mut().redirects = most;
        self
    }

    /// Connects through an HTTP proxy (`CONNECT`), such as `http://user:password@proxy:3128`. The proxy
    /// resolves the server's name.
    pub fn proxy(mut self, proxy: impl Into<String>) -> Self {
        self.settings_mut().proxy = ProxyChoice::Named(proxy.into());
        self
    }

    /// Connects through the proxy that the environment names when the dialer is made: `HTTPS_PROXY` for
    /// `wss`, else `ALL_PROXY`, in capitals or not, but not to hosts in `NO_PROXY`.
    pub fn proxy_from_environment(mut self) -> Self {
        self.settings_mut().proxy = ProxyChoice::Environment;
        self
    }

    /// The authorities that may have signed the certificate of a server at `wss://`; feature `tls`. Default:
    /// [`Roots::system`].
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// use wirewheel::tls::Roots;
    /// let options = ConnectOptions::new().roots(Roots::pem("/etc/box/authority.pem"));
    /// # let _ = options;
    /// ```
    #[cfg(feature = "tls")]
    pub fn roots(mut self, roots: Roots) -> Self {
        self.settings_mut().tls.roots = Some(roots);
        self
    }

    /// Takes that certificate of a server and no other, by its SHA-256 in hexadecimal digits; feature `tls`.
    /// Called several times, any of them. Where no [`roots`](Self::roots) are named, nothing else of it
    /// counts: not its authority, nor its host, nor its time, so that a machine without a clock can dial.
    /// Where they are, it has to be valid as well.
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// // openssl x509 -in box.pem -noout -fingerprint -sha256
    /// let fingerprint = ["9A"; 32].join(":");
    /// let options = ConnectOptions::new().pinned_certificate(fingerprint);
    /// # let _ = options;
    /// ```
    #[cfg(feature = "tls")]
    pub fn pinned_certificate(self, sha256: impl Into<String>) -> Self {
        self.pinned(Pinned::Certificate, sha256.into())
    }

    /// The same by the SHA-256 of its public key (SubjectPublicKeyInfo), which a certificate keeps that is
    /// renewed with its key.
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// // openssl x509 -in box.pem -noout -pubkey | openssl pkey -pubin -outform der | sha256sum
    /// let present = "9a".repeat(32);
    /// let next = "9b".repeat(32); // of the key that it will have
    /// let options = ConnectOptions::new().pinned_public_key(present).pinned_public_key(next);
    /// # let _ = options;
    /// ```
    #[cfg(feature = "tls")]
    pub fn pinned_public_key(self, sha256: impl Into<String>) -> Self {
        self.pinned(Pinned::PublicKey, sha256.into())
    }

    #[cfg(feature = "tls")]
    fn pinned(mut self, of: Pinned, sha256: String) -> Self {
        self.settings_mut().tls.pins.push(Pin::new(of, sha256));
        self
    }

    /// The certificate that is shown to a server that asks for one, and its key, both PEM; feature `tls`.
    /// As those of [`TlsOptions::new`](crate::tls::TlsOptions::new).
    ///
    /// ```
    /// use wirewheel::client::ConnectOptions;
    /// let options = ConnectOptions::new().client_certificate("/etc/box/box.pem", "/etc/box/box.key");
    /// # let _ = options;
    /// ```
    #[cfg(feature = "tls")]
    pub fn client_certificate(mut self, chain: impl Into<Pem>, key: impl Into<Pem>) -> Self {
        let files = CertificateFiles { chain: chain.into(), key: key.into() };
        self.settings_mut().tls.certificate = Some(files);
        self
    }

    /// Offers an extension, such as [`Deflate`](crate::extension::Deflate); in several calls several, in
    /// that order.
    pub fn extension(mut self, factory: impl ExtensionFactory + 'static) -> Self {
        Rc::make_mut(&mut self.settings_mut().extensions).push(Rc::new(factory));
        self
    }

    /// Sets what turns messages into values and back; feature `json`.
    #[cfg(feature = "json")]
    pub fn content_converter(mut self, converter: impl ContentConverter + 'static) -> Self {
        self.settings_mut().converter = Converter::new(converter);
        self
    }

    /// Decides what follows a failed attempt, whose delay would be `next`. Default: the next attempt after
    /// that delay. It already honours `Retry-After`, up to an hour, and is as long as it gets where the
    /// server refuses this client (401, 403, 404, 407, 410).
    pub fn on_failure(
        mut self,
        decide: impl Fn(&ConnectError, Duration) -> Reconnect + 'static,
    ) -> Self {
        self.settings_mut().on_failure = Some(Rc::new(decide));
        self
    }

    /// Decides what follows a session that has ended, where the delay would be `next`. Default: the next
    /// attempt after that delay, which is as long as it gets where the other side closed with 1008 or 4000
    /// to 4999. A session that this side closed with 1000 is the last one, and nothing is decided.
    pub fn on_lost(mut self, decide: impl Fn(&CloseInfo, Duration) -> Reconnect + 'static) -> Self {
        self.settings_mut().on_lost = Some(Rc::new(decide));
        self
    }

    /// Runs `action` on the loop after each failed attempt, once it is decided what follows: for sessions
    /// and flows that wait for this one.
    ///
    /// ```
    /// use wirewheel::client::{ConnectOptions, Reconnect};
    /// use wirewheel::{CloseCode, CloseReason, SessionId};
    /// fn for_a_visitor(visitor: SessionId) -> ConnectOptions {
    ///     ConnectOptions::new().on_failure(|_error, _next| Reconnect::Stop).after_failure(
    ///         move |server, error| {
    ///             let reason = CloseReason::truncated(CloseCode::BAD_GATEWAY, &error.to_string());
    ///             let _ = server.close(visitor, reason.expect("1014 may be sent"));
    ///         },
    ///     )
    /// }
    /// ```
    pub fn after_failure(
        mut self,
        action: impl Fn(&mut ServerRef<'_>, &ConnectError) + 'static,
    ) -> Self {
        self.settings_mut().after_failure = Some(Rc::new(action));
        self
    }
}

/// The most redirects that may be followed.
const REDIRECTS_MAX: u8 = 10;

impl Settings {
    /// Refuses what has no meaning where no WebSocket is spoken.
    pub(crate) fn check_bytes(&self) -> Result<(), String> {
        let of_web_socket = [
            ("header", !self.headers.is_empty()),
            ("protocol", !self.protocols.is_empty()),
            ("redirects", self.redirects > 0),
            ("extension", !self.extensions.is_empty()),
        ];
        match of_web_socket.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(format!("{name} is for sessions that speak WebSocket")),
            None => Ok(()),
        }
    }

    /// Refuses what cannot be meant, by name.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.session.check()?;
        check_time("connect_timeout", self.connect_timeout)?;
        check_time("backoff", self.backoff.first)?;
        check_time("backoff", self.backoff.largest)?;
        if self.backoff.first > self.backoff.largest {
            return Err("backoff: the first delay is longer than the largest".into());
        }
        if self.redirects > REDIRECTS_MAX {
            return Err(format!("redirects is {}: it must be at most 10", self.redirects));
        }
        for (name, value) in &self.headers {
            let value = match value {
                HeaderValue::Fixed(value) => value,
                HeaderValue::Made(_) => "",
            };
            check_request_header(name, value)?;
        }
        for (number, protocol) in self.protocols.iter().enumerate() {
            if !is_token(protocol) {
                return Err(format!("subprotocol {protocol:?} is no token (RFC 9110)"));
            }
            // RFC 6455 section 4.1: they "MUST all be unique strings".
            if self.protocols.iter().take(number).any(|other| other == protocol) {
                return Err(format!("subprotocol {protocol:?} is offered twice"));
            }
        }
        #[cfg(feature = "tls")]
        self.tls.check()?;
        check_factories(&self.extensions)
    }

    /// The proxy for a URL.
    pub(crate) fn proxy(&self, url: &ClientUrl) -> Result<Option<HttpProxy>, String> {
        match &self.proxy {
            ProxyChoice::None => Ok(None),
            ProxyChoice::Named(proxy) => HttpProxy::parse(proxy).map(Some),
            ProxyChoice::Environment => proxy_of_environment(url, |name| std::env::var(name).ok()),
        }
    }

    /// The header lines of a request; the error names one that cannot be sent.
    pub(crate) fn request_headers(&self) -> Result<Vec<(String, String)>, String> {
        let made = self.headers.iter().map(|(name, value)| match value {
            HeaderValue::Fixed(value) => Ok((name.clone(), value.clone())),
            HeaderValue::Made(make) => {
                let value = make();
                check_request_header(name, &value)?;
                Ok((name.clone(), value))
            }
        });
        made.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        for (options, named) in [
            (ConnectOptions::new().connect_timeout(Duration::ZERO), "connect_timeout"),
            (ConnectOptions::new().backoff(Duration::ZERO, Duration::from_secs(1)), "backoff"),
            (
                ConnectOptions::new().backoff(Duration::from_secs(2), Duration::from_secs(1)),
                "backoff",
            ),
            (ConnectOptions::new().redirects(11), "redirects"),
            (ConnectOptions::new().header("Upgrade", "x"), "Upgrade"),
            (ConnectOptions::new().header_with("a b", String::new), "a b"),
            (ConnectOptions::new().protocol("a b"), "a b"),
            (ConnectOptions::new().protocol("a").protocol("a"), "twice"),
            (ConnectOptions::new().ping_period(Duration::ZERO), "ping_period"),
        ] {
            let mistake = options.settings().check().unwrap_err();
            assert!(mistake.contains(named), "{named}: {mistake}");
        }
        let url = ClientUrl::parse("ws://h/").unwrap();
        assert!(ConnectOptions::new().proxy("socks5://h").settings().proxy(&url).is_err());
        assert_eq!(ConnectOptions::new().settings().check(), Ok(()));
    }

    #[test]
    fn headers_are_made_anew_and_checked_anew() {
        let count = Rc::new(std::cell::Cell::new(0));
        let made = Rc::clone(&count);
        let options =
            ConnectOptions::new().header("X-Fixed", "f").header_with("X-Made", move || {
                made.set(made.get() + 1);
                if made.get() < 3 { made.get().to_string() } else { "a\r\nb".into() }
            });
        let values = |options: &ConnectOptions| {
            let headers = options.settings().request_headers()?;
            Ok::<_, String>(headers.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
        };
        assert_eq!(values(&options), Ok(vec!["f".into(), "1".into()]));
        assert_eq!(values(&options), Ok(vec!["f".into(), "2".into()]));
        assert!(values(&options).is_err());
        assert_eq!(count.get(), 3);
    }
}
