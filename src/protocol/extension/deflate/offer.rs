//! The negotiation of permessage-deflate (RFC 7692 section 7.1).

use std::ops::RangeInclusive;

use crate::protocol::extension::Agreement;
use crate::protocol::extension::header::ExtensionOffer;

/// The window sizes that can be agreed on, in bits. RFC 7692 also knows 8, which the deflate format's
/// usual implementations cannot keep to.
pub(super) const WINDOW_BITS: RangeInclusive<u8> = 9..=15;

/// The largest window, which is meant where nothing is said.
#[cfg(feature = "client")]
const WIDEST: u8 = 15;

/// What the options ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    pub(super) server_keeps_context: bool,
    pub(super) client_keeps_context: bool,
    pub(super) server_bits: u8,
    pub(super) client_bits: u8,
}

/// What a session agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// This side keeps its compressor from message to message.
    pub(super) own_context: bool,
    /// The peer does, so that its window has to be kept.
    pub(super) peer_context: bool,
    /// The window that this side compresses with. A client may be told 8, with which nothing can be
    /// compressed here.
    pub(super) own_bits: u8,
    /// What a server's answer says of the client's window.
    client_bits: Option<u8>,
}

/// The parameters of an offer, each at most once and with a legal value.
#[derive(Default)]
struct Wishes {
    server_no_context_takeover: Option<()>,
    client_no_context_takeover: Option<()>,
    server_max_window_bits: Option<u8>,
    /// Without a value it only says that the client can be told one.
    client_max_window_bits: Option<Option<u8>>,
}

impl Wishes {
    /// `None` for an offer that is to be declined: a parameter that is unknown, stands twice, or has
    /// a value that it must not have (RFC 7692 section 7.1).
    fn read(offer: &ExtensionOffer) -> Option<Self> {
        let mut wishes = Self::default();
        for (name, value) in offer.parameters() {
            let doubled = match (name, value) {
                ("server_no_context_takeover", None) => {
                    wishes.server_no_context_takeover.replace(()).is_some()
                }
                ("client_no_context_takeover", None) => {
                    wishes.client_no_context_takeover.replace(()).is_some()
                }
                ("server_max_window_bits", Some(value)) => {
                    wishes.server_max_window_bits.replace(window_bits(value)?).is_some()
                }
                ("client_max_window_bits", None) => {
                    wishes.client_max_window_bits.replace(None).is_some()
                }
                ("client_max_window_bits", Some(value)) => {
                    wishes.client_max_window_bits.replace(Some(window_bits(value)?)).is_some()
                }
                _ => return None,
            };
            if doubled {
                return None;
            }
        }
        Some(wishes)
    }
}

/// RFC 7692 section 7.1.2: "a decimal integer value without leading zeroes between 8 to 15".
fn window_bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

impl Terms {
    /// What is agreed on, or `None` if this offer cannot be met.
    pub(super) fn accept(demand: &Demand, offer: &ExtensionOffer) -> Option<Self> {
        let wishes = Wishes::read(offer)?;
        let server_bits = demand.server_bits.min(wishes.server_max_window_bits.unwrap_or(15));
        if !WINDOW_BITS.contains(&server_bits) {
            // Section 7.1.2.1: an offer whose window cannot be kept to is declined.
            return None;
        }
        // Section 7.1.2.2: no larger than what the client says of itself, and nothing at all to a
        // client that did not mention it. 8 is possible here: a larger window inflates it too.
        let client_bits = wishes.client_max_window_bits.map(|hint| {
            let hint = hint.unwrap_or(15);
            hint.min(demand.client_bits)
        });
        Some(Self {
            own_context: demand.server_keeps_context && wishes.server_no_context_takeover.is_none(),
            peer_context: demand.client_keeps_context
                && wishes.client_no_context_takeover.is_none(),
            own_bits: server_bits,
            client_bits: client_bits.filter(|&bits| bits < 15),
        })
    }

    /// Puts them in the answer.
    pub(super) fn answer(self, mut agreement: Agreement) -> Agreement {
        if !self.own_context {
            agreement = agreement.flag("server_no_context_takeover");
        }
        if !self.peer_context {
            agreement = agreement.flag("client_no_context_takeover");
        }
        if self.own_bits < 15 {
            agreement = agreement.parameter("server_max_window_bits", self.own_bits.to_string());
        }
        match self.client_bits {
            Some(bits) => agreement.parameter("client_max_window_bits", bits.to_string()),
            None => agreement,
        }
    }
}

/// The client's half.
#[cfg(feature = "client")]
impl Demand {
    /// What a client offers (RFC 7692 section 7.1): what it wants of the server, what it does itself, and
    /// that it can be told a window.
    pub(super) fn offer(&self, mut offer: ExtensionOffer) -> ExtensionOffer {
        if !self.server_keeps_context {
            offer = offer.flag("server_no_context_takeover");
        }
        if !self.client_keeps_context {
            offer = offer.flag("client_no_context_takeover");
        }
        if self.server_bits < 15 {
            offer = offer.with("server_max_window_bits", self.server_bits.to_string());
        }
        if self.client_bits < 15 {
            return offer.with("client_max_window_bits", self.client_bits.to_string());
        }
        offer.flag("client_max_window_bits")
    }
}

#[cfg(feature = "client")]
impl Terms {
    /// What a server's answer agrees on; the error says which of its parameters cannot be.
    pub(super) fn answered(demand: &Demand, answer: &ExtensionOffer) -> Result<Self, String> {
        let Some(wishes) = Wishes::read(answer) else {
            return Err("a parameter is unknown, stands twice or has a wrong value".into());
        };
        if wishes.client_max_window_bits == Some(None) {
            return Err("client_max_window_bits has no value".into());
        }
        // Sections 7.1.2.1 and 7.1.2.2: no larger than what was offered.
        let server_bits = wishes.server_max_window_bits.unwrap_or(WIDEST);
        let client_bits = wishes.client_max_window_bits.flatten().unwrap_or(WIDEST);
        if wishes.server_max_window_bits.is_some() && server_bits > demand.server_bits
            || wishes.server_max_window_bits.is_none() && demand.server_bits < WIDEST
        {
            return Err(format!("the server's window is not within {} bits", demand.server_bits));
        }
        Ok(Self {
            own_context: demand.client_keeps_context && wishes.client_no_context_takeover.is_none(),
            peer_context: wishes.server_no_context_takeover.is_none(),
            own_bits: client_bits.min(demand.client_bits),
            client_bits: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Deflate;
    use crate::protocol::extension::ExtensionFactory;
    use crate::protocol::extension::header::{append_agreed, offered_extensions};
    use crate::protocol::head::tests::head;

    /// The answer to an offer's parameters; `None` if it is declined.
    fn answer(deflate: &Deflate, parameters: &str) -> Option<String> {
        let name = "permessage-deflate";
        let lines = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Extensions: {name}{parameters}\r\n\r\n"
        );
        let offers = offered_extensions(&head(&lines)).unwrap();
        let (agreed, _) = deflate.negotiate(&offers[0])?.into_parts();
        let mut out = String::new();
        assert!(append_agreed(&mut out, name, &agreed));
        Some(out.strip_prefix(name).unwrap().trim_start_matches("; ").to_owned())
    }

    fn keeping() -> Deflate {
        Deflate::new().server_context_takeover(true).client_context_takeover(true)
    }

    #[test]
    fn offers_are_met() {
        for (offer, expected) in [
            ("", ""),
            ("; server_no_context_takeover", "server_no_context_takeover"),
            ("; client_no_context_takeover", "client_no_context_takeover"),
            ("; server_max_window_bits=10", "server_max_window_bits=10"),
            ("; server_max_window_bits=\"9\"", "server_max_window_bits=9"),
            ("; server_max_window_bits=15", ""),
            ("; client_max_window_bits", ""),
            ("; client_max_window_bits=11", "client_max_window_bits=11"),
            // A window of 8 bits is the client's own affair: ours inflates it.
            ("; client_max_window_bits=8", "client_max_window_bits=8"),
        ] {
            assert_eq!(answer(&keeping(), offer).as_deref(), Some(expected), "{offer:?}");
        }
    }

    /// RFC 7692 section 7.1: these are declined, so that the client's next offer has its turn.
    #[test]
    fn offers_are_declined() {
        for offer in [
            "; unknown",
            "; server_no_context_takeover=1",
            "; client_no_context_takeover=true",
            "; server_no_context_takeover; server_no_context_takeover",
            "; server_max_window_bits",
            "; server_max_window_bits=7",
            "; server_max_window_bits=8", // the format's implementations cannot keep to it
            "; server_max_window_bits=16",
            "; server_max_window_bits=010",
            "; server_max_window_bits=+9",
            "; client_max_window_bits=7",
            "; client_max_window_bits=x",
            "; client_max_window_bits=10; client_max_window_bits",
        ] {
            assert_eq!(answer(&keeping(), offer), None, "{offer:?}");
        }
    }

    #[test]
    fn the_servers_options_hold_whatever_is_offered() {
        let neither = "server_no_context_takeover; client_no_context_takeover";
        assert_eq!(answer(&Deflate::new(), "").as_deref(), Some(neither));
        let small = keeping().server_max_window_bits(11).client_max_window_bits(10);
        for (offer, expected) in [
            ("", "server_max_window_bits=11"),
            ("; server_max_window_bits=14", "server_max_window_bits=11"),
            ("; server_max_window_bits=9", "server_max_window_bits=9"),
            ("; client_max_window_bits", "server_max_window_bits=11; client_max_window_bits=10"),
            ("; client_max_window_bits=9", "server_max_window_bits=11; client_max_window_bits=9"),
        ] {
            assert_eq!(answer(&small, offer).as_deref(), Some(expected), "{offer:?}");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_client_offers_what_its_options_say() {
        let neither = "server_no_context_takeover; client_no_context_takeover";
        for (deflate, expected) in [
            (Deflate::new(), format!("{neither}; client_max_window_bits")),
            (keeping(), "client_max_window_bits".into()),
            (
                keeping().server_max_window_bits(11).client_max_window_bits(10),
                "server_max_window_bits=11; client_max_window_bits=10".into(),
            ),
        ] {
            let mut offer = String::new();
            assert!(deflate.offer().unwrap().append(&mut offer));
            assert_eq!(offer, format!("permessage-deflate; {expected}"));
            // Our own server takes it.
            assert!(answer(&keeping(), &format!("; {expected}")).is_some());
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_client_takes_only_an_answer_to_its_offer() {
        let read = |text: &str| {
            let lines = format!(
                "GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Extensions: permessage-deflate{text}\r\n\r\n"
            );
            offered_extensions(&head(&lines)).unwrap().remove(0)
        };
        let small = || keeping().server_max_window_bits(11).client_max_window_bits(10);
        for (deflate, text) in [
            (keeping(), ""),
            (keeping(), "; server_no_context_takeover; client_no_context_takeover"),
            (keeping(), "; server_max_window_bits=9; client_max_window_bits=8"),
            (small(), "; server_max_window_bits=11; client_max_window_bits=15"),
        ] {
            assert!(deflate.accept(&read(text)).is_ok(), "{text:?}");
        }
        for (deflate, text) in [
            (keeping(), "; client_max_window_bits"),
            (keeping(), "; server_max_window_bits=16"),
            (keeping(), "; unknown"),
            (keeping(), "; client_no_context_takeover; client_no_context_takeover"),
            (small(), ""),
            (small(), "; server_max_window_bits=12"),
        ] {
            assert!(deflate.accept(&read(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn settings_are_refused_by_name() {
        let mistake = |deflate: Deflate| deflate.check().unwrap_err();
        assert!(mistake(Deflate::new().server_max_window_bits(8)).starts_with("server_max_window"));
        assert!(
            mistake(Deflate::new().client_max_window_bits(16)).starts_with("client_max_window")
        );
        assert!(mistake(Deflate::new().compression_level(10)).starts_with("compression_level"));
        assert_eq!(Deflate::new().check(), Ok(()));
    }
}
