//! The request as application code sees it.

use std::any::Any;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::app::deferral::Deferral;
use crate::app::pattern::BETWEEN_PIECES;
use crate::protocol::head::RequestHead;
#[cfg(feature = "client")]
use crate::protocol::response_head::ResponseHead;
use crate::structures::footprint::footprint;
use crate::words::time::Time;
#[cfg(feature = "tls")]
use crate::words::tls::TlsPeer;

/// A request: head, parameters, addresses, agreed subprotocol (Ktor's `call`). Cloning it is cheap;
/// a session that wants it after `on_connect` keeps a clone, others do not pay for it.
///
/// ```
/// use wirewheel::{Call, Response};
/// fn whoami(call: &Call) -> Response {
///     let name = call.parameter("name").unwrap_or_else(|| "stranger".into());
///     Response::text(format!("{name} at {}", call.remote_addr()))
/// }
/// ```
///
/// All that can be asked of one:
///
/// ```
/// use wirewheel::{Call, HandlerResult, Session};
/// fn on_connect(session: &mut Session<'_>, call: &Call) -> HandlerResult {
///     // GET /rooms/a%20b/x/y?as=anna&tag=1&tag=2 on the route /rooms/{room}/{rest...}
///     println!("{} {} = {} ? {}", call.method(), call.uri(), call.path(), call.query());
///     let room = call.parameter("room"); // "a b"
///     let rest = call.parameters("rest"); // "x", "y"
///     let (name, tags) = (call.query_parameter("as"), call.parameters("tag")); // "anna"; "1", "2"
///     let (agent, id) = (call.header("user-agent"), call.cookie("id"));
///     let is_anna = name.as_deref() == Some("anna"); // parameters are decoded: a Cow
///     let lines = call.headers().count();
///     let (peer, client, here) = (call.remote_addr(), call.client_addr(), call.local_addr());
///     println!("{}://{}", call.scheme(), call.host()); // as the client sees it
///     session.send(&format!(
///         "{room:?} {rest:?} {name:?} {is_anna} {tags:?} {agent:?} {id:?} {lines} {peer} {client} \
///          {here} {:?}",
///         call.protocol(),
///     ))
/// }
/// ```
#[derive(Clone)]
pub struct Call(Rc<CallParts>);

struct CallParts {
    head: RequestHead,
    /// Path parameters, decoded, in the order of the pattern; the pieces of a tail are one value.
    parameters: Vec<(String, String)>,
    between: Between,
    protocol: OnceCell<String>,
    attached: OnceCell<Box<Attached>>,
    deferral: Deferral,
    /// What the server answered, where this side is the client.
    #[cfg(feature = "client")]
    answer: Option<ResponseHead>,
}

/// Between whom a request goes, and what the client called the server.
#[derive(Clone, Debug)]
pub(crate) struct Between {
    pub(crate) remote: SocketAddr,
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
    /// When the request was read.
    pub(crate) at: Time,
    /// The client spoke TLS, with this server or with a proxy.
    pub(crate) secure: bool,
    /// What the peer showed in its handshake with this server.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsPeer>,
    /// What a trusted proxy says in place of `Host`.
    pub(crate) host: Option<Box<str>>,
}

/// A value that the application keeps with a request, and the one that came after it.
struct Attached {
    value: Box<dyn Any>,
    next: OnceCell<Box<Self>>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("method", &self.method()).field("uri", &self.uri()).finish()
    }
}

impl Call {
    pub(crate) fn new(
        head: RequestHead,
        parameters: Vec<(String, String)>,
        between: Between,
        agreed: Option<String>,
    ) -> Self {
        let protocol = OnceCell::new();
        if let Some(agreed) = agreed {
            let _ = protocol.set(agreed); // empty until now
        }
        Self(Rc::new(CallParts {
            head,
            parameters,
            between,
            protocol,
            attached: OnceCell::new(),
            deferral: Deferral::default(),
            #[cfg(feature = "client")]
            answer: None,
        }))
    }

    /// The request of a session that was dialled, with its answer.
    #[cfg(feature = "client")]
    pub(crate) fn of_client(
        head: RequestHead,
        between: Between,
        agreed: Option<String>,
        answer: ResponseHead,
    ) -> Self {
        let protocol = agreed.map_or_else(OnceCell::new, OnceCell::from);
        let (parameters, attached) = (Vec::new(), OnceCell::new());
        let (deferral, answer) = (Deferral::default(), Some(answer));
        Self(Rc::new(CallParts { head, parameters, between, protocol, attached, deferral, answer }))
    }

    /// The head of the server's answer, where the session was dialled; `None` in a server's sessions.
    ///
    /// ```
    /// use wirewheel::Call;
    /// fn server(call: &Call) -> Option<&str> {
    ///     call.answer()?.header("server")
    /// }
    /// ```
    #[cfg(feature = "client")]
    pub fn answer(&self) -> Option<&ResponseHead> {
        self.0.answer.as_ref()
    }

    /// Bytes of memory that the request takes, without what was attached to it.
    pub(crate) fn memory(&self) -> usize {
        let parameters = self.0.parameters.iter();
        let parameters = parameters.map(|(name, value)| {
            footprint(name.capacity()).saturating_add(footprint(value.capacity()))
        });
        let places = self.0.parameters.capacity().saturating_mul(size_of::<(String, String)>());
        let own = size_of::<CallParts>().saturating_add(self.0.head.memory());
        let own = own.saturating_add(self.0.deferral.memory()).saturating_add(places);
        parameters.fold(own, usize::saturating_add)
    }

    pub(crate) fn head(&self) -> &RequestHead {
        &self.0.head
    }

    pub(crate) fn deferral(&self) -> &Deferral {
        &self.0.deferral
    }

    /// Notes the subprotocol that the server chose; the first choice counts.
    pub(crate) fn agree_protocol(&self, protocol: &str) {
        self.0.protocol.get_or_init(|| protocol.to_owned());
    }

    /// The method, such as `GET` or `POST`.
    pub fn method(&self) -> &str {
        self.0.head.method()
    }

    /// Path and query as they were sent, not decoded, whatever the form of the target.
    pub fn uri(&self) -> &str {
        self.0.head.target()
    }

    /// The path as it was sent, not decoded; [`parameter`](Self::parameter) gives decoded parts.
    pub fn path(&self) -> &str {
        self.uri().split('?').next().unwrap_or_default()
    }

    /// The query as it was sent, without `?`; empty if there is none.
    pub fn query(&self) -> &str {
        self.uri().split_once('?').map_or("", |(_, query)| query)
    }

    /// A parameter, decoded: of the path, else of the query (Ktor's `call.parameters`).
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let of_path = self.0.parameters.iter().find(|(known, _)| known == name);
        match of_path {
            Some((_, value)) => value.split(BETWEEN_PIECES).next().map(Cow::Borrowed),
            None => self.query_parameter(name),
        }
    }

    /// All values of a parameter: the pieces of a tail `{name...}`, then the query's.
    pub fn parameters(&self, name: &str) -> Vec<Cow<'_, str>> {
        let of_path = self.0.parameters.iter().filter(|(known, _)| known == name);
        let of_query = self.query_pairs().filter(|(known, _)| known == name);
        of_path
            .flat_map(|(_, value)| value.split(BETWEEN_PIECES).map(Cow::Borrowed))
            .chain(of_query.map(|(_, value)| value))
            .collect()
    }

    /// The first value of a query parameter, decoded as a form (`+` is a space).
    pub fn query_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        self.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn query_pairs(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query().as_bytes())
    }

    /// The value of the first header line of that name, in any case of letters. Bytes that are no
    /// UTF-8 are shown as U+FFFD; [`header_bytes`](Self::header_bytes) has them as they were sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.head.first(name)
    }

    /// The value of the first header line of that name, byte by byte as it was sent: HTTP takes any byte
    /// of 0x80 and above in a value, whatever the encoding (RFC 9110 section 5.5).
    ///
    /// ```
    /// use wirewheel::Call;
    /// /// Devices that know only ISO 8859-1, in which a byte is a character.
    /// fn name(call: &Call) -> Option<String> {
    ///     call.header_bytes("x-name").map(|bytes| bytes.iter().copied().map(char::from).collect())
    /// }
    /// ```
    pub fn header_bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.head.all_bytes(name).next()
    }

    /// Every header line in order, names as they were sent; values as [`header`](Self::header) shows
    /// them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.head.lines()
    }

    /// The value of a cookie, as it was sent but for quotes around it (RFC 6265 section 5.4).
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.0.head.all("cookie").flat_map(|line| line.split(';'));
        let mut named = pairs.filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = named.find(|(known, _)| known.trim() == name)?;
        let value = value.trim();
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some(unquoted.unwrap_or(value))
    }

    /// The peer's address: who connected, a proxy if there is one in front.
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.between.remote
    }

    /// The client's address (Ktor's `call.request.origin`): what a proxy of
    /// [`trusted_proxies`](crate::WebSockets::trusted_proxies) says, else the peer's. The port is 0
    /// where the proxy does not say it. Where the proxy names no client (`PROXY UNKNOWN`,
    /// `for=unknown`), and for the peer of a Unix socket, it is `0.0.0.0:0`, which no client can
    /// make itself by anything that it sends.
    pub fn client_addr(&self) -> SocketAddr {
        self.0.between.client
    }

    /// `https` if the client [spoke TLS](Self::is_secure), else `http`.
    pub fn scheme(&self) -> &str {
        if self.is_secure() { "https" } else { "http" }
    }

    /// Whether the client spoke TLS: with a proxy of
    /// [`trusted_proxies`](crate::WebSockets::trusted_proxies) that says so, or with this server where no
    /// such proxy says otherwise.
    ///
    /// ```
    /// use wirewheel::{Accept, Call, Response};
    /// fn only_over_tls(call: &Call) -> Result<Accept, Response> {
    ///     match call.is_secure() {
    ///         true => Ok(Accept::new()),
    ///         false => Err(Response::text("wss:// only").status(403)),
    ///     }
    /// }
    /// ```
    pub fn is_secure(&self) -> bool {
        self.0.between.secure
    }

    /// The name of this server that the peer asked for in its TLS handshake (SNI), in small letters;
    /// `None` where it asked for none, or where there was no TLS here.
    ///
    /// ```
    /// fn is_for_the_cloud(call: &wirewheel::Call) -> bool {
    ///     call.server_name() == Some("cloud.example")
    /// }
    /// ```
    #[cfg(feature = "tls")]
    pub fn server_name(&self) -> Option<&str> {
        self.0.between.tls.as_ref()?.server_name.as_deref().map(|name| &**name)
    }

    /// The certificate that the peer showed in its TLS handshake, in DER. It was judged by the rules of
    /// the listener; `None` where the peer showed none.
    ///
    /// ```
    /// use wirewheel::Call;
    /// fn is_known(call: &Call, device: &[u8]) -> bool {
    ///     call.peer_certificate() == Some(device) // the very certificate, pinned
    /// }
    /// ```
    #[cfg(feature = "tls-client-auth")]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.0.between.tls.as_ref()?.certificates.first().map(Vec::as_slice)
    }

    /// Host, and port where one was written, under which the client asked for this server: what a proxy
    /// of [`trusted_proxies`](crate::WebSockets::trusted_proxies) says, else that of a target in
    /// absolute form, else `Host`. As it was sent; empty in HTTP/1.0 without `Host`.
    ///
    /// ```
    /// use wirewheel::{Call, Response};
    /// fn elsewhere(call: &Call) -> Response {
    ///     let target = format!("{}://{}/app/", call.scheme(), call.host());
    ///     Response::new(302).header("Location", target)
    /// }
    /// ```
    pub fn host(&self) -> &str {
        self.0.between.host.as_deref().unwrap_or_else(|| self.0.head.host())
    }

    /// The address the peer connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.between.local
    }

    /// When the request was read, since the server began; in the test kit it is virtual time. Later hooks
    /// have [`Session::now`](crate::Session::now).
    ///
    /// ```
    /// use wirewheel::{Call, Response};
    /// fn uptime(call: &Call) -> Response {
    ///     Response::text(format!("{} s", call.now().as_secs()))
    /// }
    /// ```
    pub fn now(&self) -> Duration {
        self.0.between.at.since(Time::ZERO)
    }

    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> Option<&str> {
        self.0.protocol.get().map(String::as_str)
    }

    /// Keeps a value with this request (Ktor's `call.attributes`): who an upgrade hook found out the
    /// client to be, for the handler. One value of each type; false if there is one already.
    ///
    /// ```
    /// use wirewheel::{Accept, Application, Call, Response, WebSockets, on_connect};
    /// struct User(String);
    /// fn module(app: &mut Application) {
    ///     app.install(WebSockets::new());
    ///     app.routing(|route| {
    ///         route.on_upgrade(|call| match call.cookie("token") {
    ///             Some("secret") => {
    ///                 call.attach(User("anna".into()));
    ///                 Ok(Accept::new())
    ///             }
    ///             _ => Err(Response::new(401)),
    ///         });
    ///         route.web_socket("/me", |_call: &Call| on_connect(|session, call| {
    ///             session.send(call.attached::<User>().map_or("nobody", |user| &user.0))
    ///         }));
    ///     });
    /// }
    /// ```
    pub fn attach<T: 'static>(&self, value: T) -> bool {
        let mut place = &self.0.attached;
        while let Some(attached) = place.get() {
            if attached.value.is::<T>() {
                return false;
            }
            place = &attached.next;
        }
        place.set(Box::new(Attached { value: Box::new(value), next: OnceCell::new() })).is_ok()
    }

    /// The value of this type that was [attached](Self::attach).
    pub fn attached<T: 'static>(&self) -> Option<&T> {
        let mut next = self.0.attached.get();
        while let Some(attached) = next {
            if let Some(value) = attached.value.downcast_ref() {
                return Some(value);
            }
            next = attached.next.get();
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::head::tests::head;

    /// The request of a head, for tests of what answers it.
    pub(crate) fn call(text: &str) -> Call {
        Call::new(head(text), Vec::new(), between(), None)
    }

    /// One of its own for each address, so that none stands for another.
    fn between() -> Between {
        let address = |last| SocketAddr::from(([192, 0, 2, last], u16::from(last)));
        Between {
            remote: address(1),
            client: address(2),
            local: address(3),
            at: Time::from_micros(4),
            secure: false,
            #[cfg(feature = "tls")]
            tls: None,
            host: None,
        }
    }

    #[test]
    fn everything_in_a_request_can_be_asked_for() {
        let head = head(
            "GET /rooms/a%20b?x=1&y=p+q&x=2 HTTP/1.1\r\nHost: h:80\r\nCookie: a=1; b=\"two\"\r\n\
             Cookie: c=3\r\nX-Y: z\r\n\r\n",
        );
        let parameters = vec![("room".to_owned(), "a b".to_owned()), ("x".into(), "0".into())];
        let call = Call::new(head, parameters, between(), Some("chat".into()));
        assert_eq!((call.method(), call.uri()), ("GET", "/rooms/a%20b?x=1&y=p+q&x=2"));
        assert_eq!((call.path(), call.query()), ("/rooms/a%20b", "x=1&y=p+q&x=2"));
        let addresses = [call.remote_addr(), call.client_addr(), call.local_addr()];
        assert_eq!(addresses.map(|address| address.port()), [1, 2, 3]);
        assert_eq!((call.scheme(), call.host()), ("http", "h:80"));
        assert_eq!(call.parameter("room").as_deref(), Some("a b"));
        assert_eq!(call.parameter("y").as_deref(), Some("p q"));
        assert_eq!(call.parameters("x"), ["0", "1", "2"]);
        assert_eq!(call.query_parameter("x").as_deref(), Some("1"));
        let cookies = ["a", "b", "c", "d"].map(|name| call.cookie(name));
        assert_eq!(cookies, [Some("1"), Some("two"), Some("3"), None]);
        assert_eq!((call.header("x-y"), call.protocol()), (Some("z"), Some("chat")));
        let lines: Vec<_> = call.headers().map(|(name, _)| name).collect();
        assert_eq!(lines, ["Host", "Cookie", "Cookie", "X-Y"]);
        assert!(call.attach("anna") && call.attach(7_u8) && !call.attach("ben"));
        assert_eq!((call.attached(), call.attached()), (Some(&"anna"), Some(&7_u8)));
        assert_eq!(call.attached::<u16>(), None);
    }

    #[test]
    fn the_host_is_the_proxys_word_then_the_targets_then_the_lines() {
        let call = |text: &str, between| Call::new(head(text), Vec::new(), between, None);
        let told = Between { secure: true, host: Some("box.example".into()), ..between() };
        let absolute = "GET http://a:81/x HTTP/1.1\r\nHost: b\r\n\r\n";
        let by_proxy = call(absolute, told);
        assert_eq!((by_proxy.scheme(), by_proxy.host()), ("https", "box.example"));
        let by_target = call(absolute, between());
        assert_eq!((by_target.host(), by_target.uri()), ("a:81", "/x"));
        assert_eq!(call("GET / HTTP/1.0\r\n\r\n", between()).host(), "");
    }
}
