//! What a handshake agrees on of the extensions that are installed (RFC 6455 section 9).

use std::rc::Rc;

use crate::protocol::extension::header::{ExtensionOffer, append_agreed};
use crate::protocol::extension::{Extension, ExtensionFactory};
use crate::protocol::token::is_token;
#[cfg(feature = "client")]
use crate::words::quoted::Quoted;

/// What a handshake agreed on.
#[derive(Default)]
pub(crate) struct Agreed {
    /// The value of the answer's `Sec-WebSocket-Extensions`; empty if nothing was agreed on.
    pub(crate) header: String,
    /// What an extension answered that cannot be sent.
    pub(crate) fault: Option<String>,
    pub(crate) stages: Vec<PipelineStage>,
}

/// The extensions that are installed.
pub(crate) type Factories = Vec<Rc<dyn ExtensionFactory>>;

/// What the handlers of a route are handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Messages,
    Frames,
    Pieces,
}

/// An agreed extension.
pub(crate) struct PipelineStage {
    pub(crate) factory: Rc<dyn ExtensionFactory>,
    pub(crate) extension: Box<dyn Extension>,
}

impl Agreed {
    /// Tries a client's offers in its order (RFC 6455 section 9.1): of each extension the first that
    /// is accepted counts.
    pub(crate) fn negotiate(
        installed: &Factories,
        offers: &[ExtensionOffer],
        delivery: Delivery,
    ) -> Self {
        let mut agreed = Self::default();
        for offer in offers {
            let is_meant = |known: &&Rc<dyn ExtensionFactory>| known.name() == offer.name();
            let mut possible = installed.iter().filter(|known| delivery.takes(known));
            let Some(factory) = possible.find(is_meant) else { continue };
            // Of a message in pieces one extension makes what the handler is handed.
            if delivery == Delivery::Pieces && !agreed.stages.is_empty() {
                break;
            }
            // A client offers alternatives of one extension in the order in which it prefers them.
            if agreed.stages.iter().any(|stage| Rc::ptr_eq(&stage.factory, factory)) {
                continue;
            }
            let Some(agreement) = factory.negotiate(offer) else { continue };
            let (parameters, extension) = agreement.into_parts();
            // Only what is in the answer is agreed on.
            if append_agreed(&mut agreed.header, factory.name(), &parameters) {
                agreed.add(factory, extension);
            } else {
                let name = factory.name();
                agreed.fault =
                    Some(format!("extension {name}: a parameter of its answer is no token"));
            }
        }
        agreed
    }

    fn add(&mut self, factory: &Rc<dyn ExtensionFactory>, extension: Box<dyn Extension>) {
        // Room for one, as most agree on: what a vector would take more and give back leaves holes.
        self.stages.reserve_exact(1);
        self.stages.push(PipelineStage { factory: Rc::clone(factory), extension });
    }
}

/// The client's half.
#[cfg(feature = "client")]
impl Agreed {
    /// What a client offers, as in `Sec-WebSocket-Extensions`; the error names what cannot be sent.
    pub(crate) fn offer(installed: &Factories, delivery: Delivery) -> Result<String, String> {
        let mut header = String::new();
        for (_, offer) in delivery.offered(installed) {
            if !offer.append(&mut header) {
                return Err(format!(
                    "extension {}: a parameter of its offer is no token",
                    offer.name()
                ));
            }
        }
        Ok(header)
    }

    /// What a server chose of what was offered (RFC 6455 section 4.1: the client MUST fail the connection
    /// over any that was not).
    pub(crate) fn answered(
        installed: &Factories,
        chosen: &[ExtensionOffer],
        delivery: Delivery,
    ) -> Result<Self, String> {
        let mut agreed = Self::default();
        for answer in chosen {
            let name = answer.name();
            let mut offered = delivery.offered(installed).map(|(factory, _)| factory);
            let Some(factory) = offered.find(|factory| factory.name() == name) else {
                return Err(format!("it chose extension {}, which was not offered", Quoted(name)));
            };
            if agreed.stages.iter().any(|stage| Rc::ptr_eq(&stage.factory, factory)) {
                return Err(format!("it chose extension {name} twice"));
            }
            let accepted = factory.accept(answer);
            let agreement = accepted.map_err(|fault| format!("extension {name}: {fault}"))?;
            let (_, extension) = agreement.into_parts();
            agreed.add(factory, extension);
        }
        Ok(agreed)
    }
}

impl Delivery {
    /// Whether its sessions may agree on an extension.
    fn takes(self, factory: &Rc<dyn ExtensionFactory>) -> bool {
        self != Self::Pieces || factory.takes_pieces()
    }

    /// Those that a client offers for such a session.
    #[cfg(feature = "client")]
    fn offered(
        self,
        installed: &Factories,
    ) -> impl Iterator<Item = (&Rc<dyn ExtensionFactory>, ExtensionOffer)> {
        let most = if self == Self::Pieces { 1 } else { usize::MAX };
        let possible = installed.iter().filter(move |factory| self.takes(factory));
        possible.filter_map(|factory| Some((factory, factory.offer()?))).take(most)
    }
}

/// Refuses extensions that cannot stand side by side.
pub(crate) fn check_factories(installed: &Factories) -> Result<(), String> {
    for (number, factory) in installed.iter().enumerate() {
        let name = factory.name();
        if !is_token(name) {
            return Err(format!("extension {name:?}: the name is no token (RFC 9110)"));
        }
        factory.check().map_err(|mistake| format!("extension {name}: {mistake}"))?;
        for other in installed.iter().take(number) {
            if other.name() == name {
                return Err(format!("extension {name} is installed twice"));
            }
            // A reserved bit with two meanings could be read as neither.
            if other.rsv().bits() & factory.rsv().bits() != 0 {
                let both = (other.name(), name);
                return Err(format!(
                    "extensions {} and {} claim the same reserved bit",
                    both.0, both.1
                ));
            }
        }
    }
    Ok(())
}
