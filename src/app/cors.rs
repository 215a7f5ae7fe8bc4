//! CORS: which pages of other origins may read answers, and send what needs leave (the Fetch standard, "CORS
//! protocol").

use std::time::Duration;

use crate::protocol::head::RequestHead;
use crate::protocol::token::is_token;
use crate::words::quoted::Quoted;

use crate::app::answer_filter::AnswerFilter;
use crate::app::call::Call;
use crate::app::origins::{OriginOptions, OriginRules};
use crate::app::response::{Response, has_header, set_header};

/// Methods that change nothing, so that every page may send them.
const SAFE_METHODS: [&str; 2] = ["GET", "HEAD"];

/// Which pages of other origins may read the answers of a scope, for [`Routing::cors`](crate::Routing::cors)
/// (Ktor's `CORS`).
///
/// Its origins are written as those that may open a WebSocket
/// ([`allowed_origins`](crate::WebSockets::allowed_origins)), and unless it names its own they are the same:
/// one list says whose pages may talk with this server.
///
/// ```
/// use std::time::Duration;
/// use wirewheel::pages::Cors;
/// use wirewheel::{Application, Response, WebSockets};
/// fn module(app: &mut Application) {
///     app.install(WebSockets::new().allowed_origins(["https://dashboard.example"]));
///     app.routing(|route| {
///         route.route("/api", |route| {
///             route.cors(
///                 Cors::new() // the dashboard
///                     .headers(["Authorization", "Content-Type"])
///                     .credentials(true)
///                     .max_age(Duration::from_secs(600)),
///             );
///             route.get("/state", |_call| Response::json("{}"));
///         });
///     });
/// }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "hand it to Routing::cors"]
pub struct Cors {
    origins: Option<Vec<String>>,
    methods: Vec<String>,
    headers: Vec<String>,
    exposed: Vec<String>,
    credentials: bool,
    max_age: Option<Duration>,
}

impl Cors {
    /// The origins that are installed, `GET` and `HEAD`, no header that a page has to ask for, no
    /// credentials.
    pub fn new() -> Self {
        Self::default()
    }

    /// The origins whose pages may read, in place of those that are installed; see
    /// [`WebSockets::allowed_origins`](crate::WebSockets::allowed_origins).
    ///
    /// ```
    /// let cors = wirewheel::pages::Cors::new().allowed_origins(["https://*.example.com"]);
    /// # let _ = cors;
    /// ```
    pub fn allowed_origins<S: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = S>,
    ) -> Self {
        self.origins = Some(origins.into_iter().map(Into::into).collect());
        self
    }

    /// Lets everybody's pages read: `Access-Control-Allow-Origin: *`. Not with credentials.
    ///
    /// ```
    /// let public = wirewheel::pages::Cors::new().allow_any_origin();
    /// # let _ = public;
    /// ```
    pub fn allow_any_origin(self) -> Self {
        self.allowed_origins(["*"])
    }

    /// Methods that these pages may send beside `GET` and `HEAD`, such as `POST` and `PUT`: what the rule
    /// about origins keeps from pages of others, routes in this scope take from them.
    ///
    /// ```
    /// let cors = wirewheel::pages::Cors::new().methods(["POST", "PUT"]);
    /// # let _ = cors;
    /// ```
    pub fn methods<S: Into<String>>(mut self, methods: impl IntoIterator<Item = S>) -> Self {
        self.methods.extend(methods.into_iter().map(Into::into));
        self
    }

    /// Headers that a page may send, such as `Authorization`; `Content-Type` for JSON is one of them.
    pub fn headers<S: Into<String>>(mut self, headers: impl IntoIterator<Item = S>) -> Self {
        self.headers.extend(headers.into_iter().map(Into::into));
        self
    }

    /// Headers of answers that a page's script may read, such as `ETag`, beside those that every script may.
    ///
    /// ```
    /// let cors = wirewheel::pages::Cors::new().exposed_headers(["ETag", "Content-Range"]);
    /// # let _ = cors;
    /// ```
    pub fn exposed_headers<S: Into<String>>(
        mut self,
        headers: impl IntoIterator<Item = S>,
    ) -> Self {
        self.exposed.extend(headers.into_iter().map(Into::into));
        self
    }

    /// Whether a page's requests may have cookies and the like. Default false. Not with any origin, nor with
    /// `null`, which anybody's page can have.
    pub fn credentials(mut self, on: bool) -> Self {
        self.credentials = on;
        self
    }

    /// How long a browser may remember what it was allowed, in seconds. Default: what browsers do by
    /// themselves, 5 s.
    pub fn max_age(mut self, time: Duration) -> Self {
        self.max_age = Some(time);
        self
    }

    /// Checks it, and fills in the origins that are installed.
    pub(crate) fn finish(self, installed: &OriginOptions) -> Result<CorsRules, String> {
        for (what, names) in
            [("method", &self.methods), ("header", &self.headers), ("header", &self.exposed)]
        {
            if let Some(name) = names.iter().find(|name| !is_token(name)) {
                return Err(format!("{what} {name:?} is no token (RFC 9110)"));
            }
        }
        let own = OriginOptions { allowed: self.origins.map(Into::into), hosts: None };
        let origins = own.or(installed).rules()?;
        if origins.is_empty() {
            return Err("no page of another origin may read: name them with allowed_origins, of Cors or of \
                        WebSockets"
                .into());
        }
        if self.credentials && origins.lists_anybody() {
            return Err(
                "credentials(true) with an origin that everybody can have (\"*\", \"null\", \
                        \"https://*\"): name the origins"
                    .into(),
            );
        }
        let methods = SAFE_METHODS.into_iter().chain(self.methods.iter().map(String::as_str));
        Ok(CorsRules {
            origins,
            methods: methods.collect::<Vec<_>>().join(", "),
            headers: self.headers.join(", "),
            exposed: self.exposed.join(", "),
            credentials: self.credentials,
            max_age: self.max_age.map(|time| time.as_secs().to_string()),
        })
    }
}

/// CORS as it is answered.
#[derive(Debug)]
pub(crate) struct CorsRules {
    origins: OriginRules,
    methods: String,
    headers: String,
    exposed: String,
    credentials: bool,
    max_age: Option<String>,
}

impl CorsRules {
    /// The value for `Access-Control-Allow-Origin`; `None` where the page may not read.
    fn allowed<'a>(&self, head: &'a RequestHead) -> Option<&'a str> {
        if self.origins.lists_any() {
            return Some("*");
        }
        let mut lines = head.all("origin");
        let origin = lines.next().filter(|origin| self.origins.lists(origin))?;
        lines.next().is_none().then_some(origin)
    }

    /// What both kinds of answers have.
    fn common(&self, head: &RequestHead, response: Response) -> Response {
        let response = match self.allowed(head) {
            Some(origin) => with(response, "Access-Control-Allow-Origin", origin),
            None => response,
        };
        let response = if self.credentials && self.allowed(head).is_some() {
            with(response, "Access-Control-Allow-Credentials", "true")
        } else {
            response
        };
        if self.origins.lists_any() { response } else { with(response, "Vary", "Origin") }
    }
}

/// An answer of whichever kind with one more header, the bare 500 of a fault too: pages may read why.
fn with(mut response: Response, name: &str, value: &str) -> Response {
    set_header(&mut response.headers, name.into(), value.into());
    response
}

impl AnswerFilter for CorsRules {
    fn preflight(&self, head: &RequestHead) -> Option<Response> {
        let (origin, _) = (head.first("origin")?, head.first("access-control-request-method")?);
        if self.allowed(head).is_none() {
            let why = format!("pages of Origin {} may not: see cors", Quoted(origin));
            return Some(Response::refusal_because(403, &why));
        }
        // The lists themselves, whatever was asked for: the browser says to its user what is missing.
        let mut response = Response::new(204).header("Access-Control-Allow-Methods", &self.methods);
        if !self.headers.is_empty() {
            response = response.header("Access-Control-Allow-Headers", &self.headers);
        }
        if let Some(max_age) = &self.max_age {
            response = response.header("Access-Control-Max-Age", max_age);
        }
        Some(self.common(head, response))
    }

    fn allows(&self, head: &RequestHead) -> Option<bool> {
        let is_listed = self.methods.split(", ").any(|method| method == head.method());
        Some(is_listed && self.allowed(head).is_some())
    }

    fn change(&self, call: &Call, response: Response) -> Response {
        // Of a preflight, or of the application itself.
        if has_header(&response.headers, "access-control-allow-origin") {
            return response;
        }
        let response = self.common(call.head(), response);
        if self.exposed.is_empty() || self.allowed(call.head()).is_none() {
            return response;
        }
        with(response, "Access-Control-Expose-Headers", &self.exposed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::call::tests::call;

    fn rules(cors: Cors) -> Result<CorsRules, String> {
        cors.finish(&OriginOptions::default())
    }

    /// The header lines of an answer, without `Content-Type`.
    fn lines(response: &Response) -> Vec<String> {
        let lines = response.headers.iter().filter(|(name, _)| name != "Content-Type");
        lines.map(|(name, value)| format!("{name}: {value}")).collect()
    }

    fn request(method: &str, more: &str) -> Call {
        call(&format!("{method} /x HTTP/1.1\r\nHost: h\r\n{more}\r\n"))
    }

    #[test]
    fn a_preflight_says_what_may_be_sent() {
        let cors = Cors::new()
            .allowed_origins(["https://a.example"])
            .methods(["PUT"])
            .headers(["Authorization", "X-Y"])
            .credentials(true)
            .max_age(Duration::from_secs(600));
        let rules = rules(cors).unwrap();
        let ask = |more: &str| rules.preflight(request("OPTIONS", more).head());
        let from = |origin: &str| {
            ask(&format!("Origin: {origin}\r\nAccess-Control-Request-Method: PUT\r\n"))
        };
        let allowed = from("https://a.example").unwrap();
        assert_eq!(allowed.status_code(), 204);
        assert_eq!(
            lines(&allowed),
            [
                "Access-Control-Allow-Methods: GET, HEAD, PUT",
                "Access-Control-Allow-Headers: Authorization, X-Y",
                "Access-Control-Max-Age: 600",
                "Access-Control-Allow-Origin: https://a.example",
                "Access-Control-Allow-Credentials: true",
                "Vary: Origin",
            ]
        );
        let refused = from("https://b.example").unwrap();
        assert_eq!((refused.status_code(), lines(&refused)), (403, vec![]));
        assert!(ask("Origin: https://a.example\r\n").is_none(), "no preflight");
        assert!(ask("Access-Control-Request-Method: PUT\r\n").is_none(), "no page");
    }

    #[test]
    fn an_answer_says_who_may_read_it() {
        let cors = Cors::new().allowed_origins(["https://a.example"]).exposed_headers(["ETag"]);
        let own = rules(cors).unwrap();
        let any = rules(Cors::new().allow_any_origin()).unwrap();
        let of = |rules: &CorsRules, more| {
            lines(&rules.change(&request("GET", more), Response::text("x")))
        };
        let page = "Origin: https://a.example\r\n";
        let origin = "Access-Control-Allow-Origin: https://a.example";
        let exposed = "Access-Control-Expose-Headers: ETag";
        assert_eq!(of(&own, page), [origin, "Vary: Origin", exposed]);
        // What a cache keeps must not be given to another.
        assert_eq!(of(&own, ""), ["Vary: Origin"]);
        assert_eq!(of(&own, "Origin: https://b.example\r\n"), ["Vary: Origin"]);
        let two = "Origin: https://a.example\r\nOrigin: https://a.example\r\n";
        assert_eq!(of(&own, two), ["Vary: Origin"]);
        // The server's own page needs no leave, and is given none over a name that anybody can take.
        assert_eq!(of(&own, "Origin: http://h\r\n"), ["Vary: Origin"]);
        assert_eq!(of(&any, page), ["Access-Control-Allow-Origin: *"]);
        let set = Response::text("x").header("Access-Control-Allow-Origin", "https://c.example");
        assert_eq!(lines(&own.change(&request("GET", page), set)).len(), 1);
        // A page may read that there was a fault.
        let fault = Response::text("x").header("X", "a\nb");
        let fault = own.change(&request("GET", page), fault);
        assert_eq!(lines(&fault), [origin, "Vary: Origin", exposed]);
    }

    #[test]
    fn what_a_page_may_send_is_what_was_listed() {
        let rules = rules(Cors::new().allow_any_origin().methods(["PUT"])).unwrap();
        for (method, origin, expected) in [
            ("PUT", "Origin: https://a.example\r\n", true),
            ("POST", "Origin: https://a.example\r\n", false),
            ("GET", "Origin: https://a.example\r\n", true),
            ("put", "Origin: https://a.example\r\n", false),
        ] {
            assert_eq!(rules.allows(request(method, origin).head()), Some(expected), "{method}");
        }
    }

    #[test]
    fn what_lets_nobody_in_or_everybody_is_a_mistake() {
        let origin = || Cors::new().allowed_origins(["https://a.example"]);
        for (cors, expected) in [
            (Cors::new(), "allowed_origins"),
            (Cors::new().allowed_origins(["a.example"]), "scheme://host"),
            (Cors::new().allow_any_origin().credentials(true), "credentials"),
            (Cors::new().allowed_origins(["null"]).credentials(true), "credentials"),
            (Cors::new().allowed_origins(["https://*"]).credentials(true), "credentials"),
            (Cors::new().allowed_origins(["http://*:*"]).credentials(true), "credentials"),
            (origin().methods(["P T"]), "method \"P T\""),
            (origin().headers([""]), "header \"\""),
            (origin().exposed_headers(["a\r\nb"]), "no token"),
        ] {
            let mistake = rules(cors).unwrap_err();
            assert!(mistake.contains(expected), "{mistake}");
        }
        let installed = OriginOptions {
            allowed: Some(["https://a.example".to_owned()].into()),
            ..OriginOptions::default()
        };
        assert!(Cors::new().finish(&installed).unwrap().origins.lists("https://a.example"));
    }
}
