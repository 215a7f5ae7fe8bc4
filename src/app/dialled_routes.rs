//! What the sessions of dialers have in place of a route: their options, and a name for the log.

use std::rc::Rc;

use crate::app::connect_options::Settings;
use crate::app::connector::Connector;
use crate::protocol::client_url::ClientUrl;
use crate::protocol::http_proxy::HttpProxy;
use crate::session::agreement::Delivery;
use crate::structures::ids::NO_ROUTE;
use crate::words::options::SessionOptions;

/// The last number that a route could have.
const LAST: u16 = NO_ROUTE - 1;

/// Entries, shared by dialers with equal options and one URL. Their numbers count down from the last that
/// a route could have.
#[derive(Debug, Default)]
pub(crate) struct DialledRoutes(Vec<Option<DialledRoute>>);

/// One of them.
#[derive(Debug)]
pub(crate) struct DialledRoute {
    pub(crate) options: SessionOptions,
    /// The URL, without what is secret.
    pub(crate) name: Box<str>,
    url: Rc<ClientUrl>,
    proxy: Option<Rc<HttpProxy>>,
    /// Whose it is: compared by identity, and kept so that nobody else gets that.
    settings: Rc<Settings>,
    delivery: Delivery,
    dialers: usize,
}

impl DialledRoutes {
    /// The number of the route that a connector's sessions have; `None` if there is none left. From here
    /// the connector shares what is equal.
    pub(crate) fn enter(&mut self, connector: &mut Connector, process_bytes: usize) -> Option<u16> {
        let is_same = |route: &DialledRoute| {
            Rc::ptr_eq(&route.settings, &connector.settings)
                && route.delivery == connector.delivery
                && route.url == connector.url
        };
        let known = self.0.iter().position(|entry| entry.as_ref().is_some_and(is_same));
        let free = || self.0.iter().position(Option::is_none);
        let index = known.or_else(free).unwrap_or(self.0.len());
        let number = LAST.checked_sub(u16::try_from(index).ok()?)?;
        if index == self.0.len() {
            self.0.push(None);
        }
        let entry = self.0.get_mut(index)?;
        let route = entry.get_or_insert_with(|| {
            let mut options = connector.settings.session.clone();
            options.resolve(process_bytes);
            options.masking = true; // whatever is said for parity with other servers
            if connector.delivery == Delivery::Frames {
                // Nothing is asked behind a raw handler's back.
                options.ping_period = None;
            }
            DialledRoute {
                options,
                name: connector.url.to_string().into(),
                url: Rc::clone(&connector.url),
                proxy: connector.proxy.clone(),
                settings: Rc::clone(&connector.settings),
                delivery: connector.delivery,
                dialers: 0,
            }
        });
        route.dialers += 1;
        connector.url = Rc::clone(&route.url);
        connector.proxy = route.proxy.clone();
        Some(number)
    }

    pub(crate) fn get(&self, number: u16) -> Option<&DialledRoute> {
        self.0.get(usize::from(LAST.checked_sub(number)?))?.as_ref()
    }

    /// A dialer has gone, and its sessions before it: the route, if it was the last of it.
    pub(crate) fn leave(&mut self, number: u16) -> Option<DialledRoute> {
        let entry = self.0.get_mut(usize::from(LAST.checked_sub(number)?))?;
        let route = entry.as_mut()?;
        route.dialers = route.dialers.saturating_sub(1);
        if route.dialers == 0 { entry.take() } else { None }
    }
}
