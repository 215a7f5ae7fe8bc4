//! Routes for requests with bodies: their options, and what of a request they refuse by its head.

use std::fmt;
use std::rc::Rc;

use crate::protocol::body::{BodyDecoder, BodyFault};
#[cfg(feature = "json")]
use crate::protocol::content::Converter;
use crate::protocol::framing::BodyFraming;
use crate::words::bounds::LARGEST_SIZE;

use crate::app::body::{BodyError, essence};
use crate::app::body_intake::{BodyEndpoint, BodyIntake};
use crate::app::call::Call;
use crate::app::origins::{OriginOptions, OriginRules};
use crate::app::response::Response;
use crate::app::setters::origin_setters;

/// The most bytes of a body where nothing else is said.
const MAX_BODY_SIZE: u64 = 64 << 10;

/// What is installed that a route for bodies has where it says nothing itself.
pub(crate) struct InstalledForBodies<'a> {
    pub(crate) origins: &'a OriginOptions,
    #[cfg(feature = "json")]
    pub(crate) converter: &'a Converter,
    pub(crate) process_bytes: usize,
}

/// A body whose head was let in, for whom makes something of it.
pub(crate) struct Admitted {
    pub(crate) decoder: BodyDecoder,
    pub(crate) expected: Option<u64>,
    #[cfg(feature = "json")]
    pub(crate) converter: Converter,
}

/// Makes what takes one body.
pub(crate) type MakeIntake = Rc<dyn Fn(&Call, Admitted) -> Result<Box<dyn BodyIntake>, Response>>;
type Guard = Box<dyn Fn(&Call) -> Result<(), Response>>;
type Finish =
    fn(BodyRoute, &InstalledForBodies<'_>) -> Result<(Rc<dyn BodyEndpoint>, BodyRouteKey), String>;

/// Where a route stands.
pub(crate) struct BodyRouteKey {
    pub(crate) method: String,
    pub(crate) path: String,
}

/// A route for requests with a body, as [`Routing::post`](crate::Routing::post) and its like return it; its
/// setters bound what it takes.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # {
/// use wirewheel::{Application, Response};
/// fn module(app: &mut Application) {
///     app.routing(|route| {
///         route
///             .post("/led", |_call, body| Ok::<_, wirewheel::body::BodyError>(body.text()?.to_owned()))
///             .max_body_size(16)
///             .content_types(["text/plain"])
///             .length_required()
///             .guard(|call| match call.header("authorization") {
///                 Some("Bearer secret") => Ok(()),
///                 _ => Err(Response::new(401).header("WWW-Authenticate", "Bearer")),
///             })
///             .hosts(["box.local"])
///             .allowed_origins(["https://dashboard.example"]); // or .allow_any_origin()
///     });
/// }
/// # wirewheel::testing::TestApplication::new(module).unwrap();
/// # }
/// ```
pub struct BodyRoute {
    key: BodyRouteKey,
    max_body_size: u64,
    length_required: bool,
    content_types: Vec<String>,
    guards: Vec<Guard>,
    origins: OriginOptions,
    #[cfg(feature = "json")]
    converter: Converter,
    make: MakeIntake,
    /// The whole body is kept in memory.
    is_kept: bool,
    /// Behind a pointer, so that only a program with such a route has its code.
    finish: Finish,
}

impl fmt::Debug for BodyRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BodyRouteKey { method, path } = &self.key;
        f.debug_struct("BodyRoute")
            .field("method", method)
            .field("path", path)
            .finish_non_exhaustive()
    }
}

impl BodyRoute {
    pub(crate) fn new(key: BodyRouteKey, make: MakeIntake, is_kept: bool) -> Self {
        Self {
            key,
            max_body_size: MAX_BODY_SIZE,
            length_required: false,
            content_types: Vec::new(),
            guards: Vec::new(),
            origins: OriginOptions::default(),
            #[cfg(feature = "json")]
            converter: Converter::default(),
            make,
            is_kept,
            finish: Self::finished,
        }
    }

    /// The most bytes of a body; more get 413, by the announced length or as soon as a chunk goes beyond.
    /// Default 64 KiB.
    pub fn max_body_size(&mut self, bytes: u64) -> &mut Self {
        self.max_body_size = bytes;
        self
    }

    /// Takes only bodies whose length is announced (`Content-Length`); others get 411. Default: chunked
    /// bodies are taken too, and a request that announces none has an empty body.
    pub fn length_required(&mut self) -> &mut Self {
        self.length_required = true;
        self
    }

    /// Takes only bodies of these types (`Content-Type` without its parameters, in any case of letters);
    /// others get 415. Default: any. An empty body needs none.
    pub fn content_types<S: Into<String>>(
        &mut self,
        types: impl IntoIterator<Item = S>,
    ) -> &mut Self {
        self.content_types = types.into_iter().map(Into::into).collect();
        self
    }

    /// Lets a request in by its head, or answers it, before its body is read or asked for
    /// (`Expect: 100-continue`). Called several times, each is asked, in their order.
    pub fn guard(&mut self, guard: impl Fn(&Call) -> Result<(), Response> + 'static) -> &mut Self {
        self.guards.push(Box::new(guard));
        self
    }

    origin_setters! { self: [&mut self] -> &mut Self }

    fn origins_mut(&mut self) -> &mut OriginOptions {
        &mut self.origins
    }

    #[cfg(feature = "json")]
    fn converter_mut(&mut self) -> &mut Converter {
        &mut self.converter
    }

    /// Checks the route.
    pub(crate) fn finish(
        self,
        installed: &InstalledForBodies<'_>,
    ) -> Result<(Rc<dyn BodyEndpoint>, BodyRouteKey), String> {
        (self.finish)(self, installed)
    }

    fn finished(
        self,
        installed: &InstalledForBodies<'_>,
    ) -> Result<(Rc<dyn BodyEndpoint>, BodyRouteKey), String> {
        let (size, most) = (self.max_body_size, installed.process_bytes as u64);
        let BodyRouteKey { method, path } = &self.key;
        let at_route = |mistake: String| format!("route {path:?}, {method}: {mistake}");
        if size == 0 {
            return Err(at_route("max_body_size is 0: it must be at least 1".into()));
        }
        // The default is let pass: the smallest budgets are below it.
        if self.is_kept && size > most.clamp(MAX_BODY_SIZE, LARGEST_SIZE as u64) {
            return Err(at_route(format!(
                "max_body_size is {size}: no such body could arrive whole, process_bytes of Limits is \
                 {most}. Routing::receive takes it in pieces"
            )));
        }
        let origins = self.origins.or(installed.origins).rules().map_err(at_route)?;
        let types = self.content_types.iter().map(|known| known.to_ascii_lowercase());
        let endpoint = FinishedRoute {
            max_body_size: size,
            length_required: self.length_required,
            content_types: types.collect(),
            guards: self.guards,
            origins: (method != "OPTIONS").then_some(origins),
            #[cfg(feature = "json")]
            converter: self.converter.or(installed.converter),
            make: self.make,
        };
        Ok((Rc::new(endpoint), self.key))
    }
}

struct FinishedRoute {
    max_body_size: u64,
    length_required: bool,
    content_types: Vec<String>,
    guards: Vec<Guard>,
    origins: Option<OriginRules>,
    #[cfg(feature = "json")]
    converter: Converter,
    make: MakeIntake,
}

/// What a body is refused for, in words for the log.
mod reason {
    pub(super) const GUARD: &str = "the route's guard refused it";
    pub(super) const LENGTH: &str = "the length of its body is not announced";
    pub(super) const ENCODING: &str = "its body has a Content-Encoding";
    pub(super) const TYPE: &str = "its body has a type that the route does not take";
    pub(super) const TOO_LONG: &str = "its body is over the route's max_body_size";
    pub(super) const HANDLER: &str = "the route's handler refused it";
}

impl BodyEndpoint for FinishedRoute {
    fn begin(
        &self,
        call: &Call,
        max_overhead: usize,
    ) -> Result<Box<dyn BodyIntake>, (Response, &'static str)> {
        for guard in &self.guards {
            guard(call).map_err(|refusal| (refusal, reason::GUARD))?;
        }
        self.check_length(call)?;
        self.check_type(call)?;
        let framing = call.head().framing.body();
        let decoder = BodyDecoder::new(framing, self.max_body_size, max_overhead)
            .map_err(|fault: BodyFault| (Response::refusal(fault.status()), reason::TOO_LONG))?;
        let expected = match framing {
            BodyFraming::None => Some(0),
            BodyFraming::Length(length) => Some(length),
            BodyFraming::Chunked => None,
        };
        let admitted = Admitted {
            decoder,
            expected,
            #[cfg(feature = "json")]
            converter: self.converter.clone(),
        };
        (self.make)(call, admitted).map_err(|refusal| (refusal, reason::HANDLER))
    }

    fn origins(&self) -> Option<&OriginRules> {
        self.origins.as_ref()
    }
}

impl FinishedRoute {
    fn check_length(&self, call: &Call) -> Result<(), (Response, &'static str)> {
        let head = call.head();
        // In HTTP/1.0 a body without a length would end with the connection (RFC 1945 section 7.2.2), which a
        // cut makes look the same: its sender has to say where the end is.
        let has_body_by_method = matches!(head.method(), "POST" | "PUT" | "PATCH");
        let is_needed = self.length_required || (head.minor_version == 0 && has_body_by_method);
        if is_needed && !head.framing.has_length() {
            return Err((Response::refusal(411), reason::LENGTH));
        }
        Ok(())
    }

    fn check_type(&self, call: &Call) -> Result<(), (Response, &'static str)> {
        let head = call.head();
        let mut codings = head.tokens("content-encoding");
        if codings.any(|coding| !coding.eq_ignore_ascii_case("identity")) {
            // RFC 9110 section 15.5.16: where the coding is the reason, the answer ought to say so.
            let refusal = Response::refusal(415).header("Accept-Encoding", "identity");
            return Err((refusal, reason::ENCODING));
        }
        if self.content_types.is_empty() || head.framing.body() == BodyFraming::None {
            return Ok(());
        }
        let found = call.header("content-type");
        let is_taken = found.is_some_and(|found| self.content_types.contains(&essence(found)));
        let found = found.map(str::to_owned);
        is_taken.then_some(()).ok_or_else(|| (BodyError::WrongType { found }.into(), reason::TYPE))
    }
}
