//! A finished WebSocket route, and what it asks the application.

use std::fmt;
use std::rc::Rc;

use crate::context::detached::Detached;
use crate::protocol::extension::header::ExtensionOffer;
use crate::protocol::handshake::offered_protocols;
use crate::words::options::SessionOptions;

use crate::app::call::Call;
use crate::app::endpoint::Endpoint;
use crate::app::origins::OriginRules;
use crate::app::response::{Accept, Response};
#[cfg(feature = "json")]
use crate::protocol::content::Converter;
use crate::session::agreement::{Agreed, Delivery, Factories};
use crate::session::event_stream::EventEncoder;

/// Makes the handler of one session.
pub(crate) type Factory = Rc<dyn Fn(&Call) -> Box<dyn Endpoint>>;
/// What becomes of a connection once its upgrade is accepted.
#[derive(Clone)]
pub(crate) enum Purpose {
    /// A session, with a handler of its own.
    Session(Factory),
    /// It leaves the loop.
    Detached(DetachHook),
}
/// Takes one connection off the loop.
pub(crate) type DetachHook = Rc<dyn Fn(&Call, Detached)>;
/// Accepts or rejects an upgrade.
pub(crate) type UpgradeHook = Rc<dyn Fn(&Call) -> Result<Accept, Response>>;
/// Picks a subprotocol from the client's list.
pub(crate) type ProtocolPicker = Rc<dyn Fn(&Call, &[&str]) -> Option<String>>;

/// The upgrade hooks that have accepted a request, and with which headers.
#[derive(Debug, Default)]
pub(crate) struct HooksDone {
    pub(crate) accepted: Accept,
    pub(crate) count: usize,
}

/// A finished WebSocket route.
pub(crate) struct RouteConfig {
    /// The path as it was written, for logs.
    pub(crate) pattern: String,
    pub(crate) options: SessionOptions,
    pub(crate) purpose: Purpose,
    /// What the handlers of its sessions are handed.
    pub(crate) delivery: Delivery,
    #[cfg(feature = "json")]
    pub(crate) converter: Converter,
    /// The extensions that its sessions may agree on.
    pub(crate) extensions: Rc<Factories>,
    pub(crate) protocol: Option<String>,
    pub(crate) pick_protocol: Option<ProtocolPicker>,
    pub(crate) hooks: Vec<UpgradeHook>,
    pub(crate) origins: Rc<OriginRules>,
    /// What makes its sessions event streams.
    pub(crate) events: Option<Rc<dyn EventEncoder>>,
}

impl fmt::Debug for RouteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteConfig").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}

impl RouteConfig {
    /// Asks the protocol picker and the hooks, in this order; the Origin was asked before them
    /// (RFC 6455 section 4.2.2). A hook that defers has those behind it wait, which may want to know what it
    /// finds out.
    pub(crate) fn admit(&self, call: &Call, hooks: HooksDone) -> Result<Accept, Response> {
        let HooksDone { mut accepted, count } = hooks;
        if count == 0 {
            self.pick_protocol(call)?;
        }
        for (number, hook) in self.hooks.iter().enumerate().skip(count) {
            let verdict = hook(call);
            let is_refused = verdict.as_ref().is_err_and(|response| !response.is_deferred());
            if call.deferral().has_begun() && !is_refused {
                accepted.extend(verdict.unwrap_or_default())?;
                call.deferral().note_hooks(accepted.into_headers(), number.saturating_add(1));
                return Err(Response::deferred());
            }
            accepted.extend(verdict?)?;
        }
        Ok(accepted)
    }

    fn pick_protocol(&self, call: &Call) -> Result<(), Response> {
        let Some(pick) = &self.pick_protocol else { return Ok(()) };
        let offered = offered_protocols(call.head()).unwrap_or_default();
        match pick(call, &offered) {
            // RFC 6455 section 4.2.2: the value chosen MUST be one the client offered.
            Some(protocol) if offered.contains(&protocol.as_str()) => {
                call.agree_protocol(&protocol);
                Ok(())
            }
            Some(protocol) => {
                let fault = format!("select_protocol chose {protocol:?}, which is not on offer");
                Err(Response::faulty(fault))
            }
            None => Ok(()),
        }
    }

    /// The handler of a session; `None` if the connection is to leave the loop.
    pub(crate) fn handler(&self, call: &Call) -> Option<Box<dyn Endpoint>> {
        match &self.purpose {
            Purpose::Session(factory) => Some(factory(call)),
            Purpose::Detached(_) => None,
        }
    }

    /// What its sessions agree on of a client's extensions.
    pub(crate) fn agree(&self, offers: &[ExtensionOffer]) -> Agreed {
        Agreed::negotiate(&self.extensions, offers, self.delivery)
    }
}
