//! Topics that span boxes over an MQTT broker: each is a topic of its name there, below the prefix.

use std::cell::{Cell, RefCell};

use log::Level;
use wirewheel::{Application, ServerRef};
use wirewheel_mqtt::{Link, RunningLink, topic_fault};

use crate::broker_place::BrokerPlace;
use crate::config::{Config, Overflow};
use crate::sparing::Sparing;
use crate::topics::Topic;

/// Below it hubs say that they are there.
const PRESENCE: &str = "hubs";

/// What all topics need of the broker.
#[derive(Debug)]
pub(crate) struct Broker {
    link: Option<Link>,
    keeps_newest: bool,
    running: RefCell<Option<RunningLink>>,
    /// Names of topics that are gone here, and are to be shared no longer.
    gone: RefCell<Vec<String>>,
    mistakes: Sparing,
}

/// What one topic has of it.
#[derive(Debug, Default)]
pub(crate) struct OverBroker {
    is_shared: Cell<bool>,
}

/// Says what is wrong with the options, without reading or starting anything.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    let link = config.broker.as_ref().map(|place| link_to(place, config));
    let checked = link.map_or(Ok(()), |link| link.check());
    checked.map_err(|mistake| format!("--broker: {mistake}"))
}

fn link_to(place: &BrokerPlace, config: &Config) -> Link {
    Link::to(place.url.clone())
        .client_id("wirewheel-hub")
        .prefix(place.prefix.clone())
        .max_packet(config.max_message.saturating_add(1 << 10).clamp(1 << 10, 64 << 20))
        .presence(PRESENCE)
}

impl Broker {
    pub(crate) fn of(config: &Config) -> Result<Self, String> {
        let link = config.broker.as_ref().map(|place| {
            check(config)?;
            let link = link_to(place, config);
            let link = match place.login()? {
                Some((user, password)) => link.user(user).password(password),
                None => link,
            };
            #[cfg(feature = "tls")]
            let link = match place.ca.clone() {
                Some(path) => {
                    let options = wirewheel::client::ConnectOptions::new();
                    link.connect_options(options.roots(wirewheel::tls::Roots::pem(path)))
                }
                None => link,
            };
            Ok::<Link, String>(link)
        });
        let (running, gone) = (RefCell::default(), RefCell::default());
        let keeps_newest = config.overflow == Overflow::Latest;
        Ok(Self { link: link.transpose()?, keeps_newest, running, gone, mistakes: Sparing::new(1) })
    }

    /// Starts the link with the application.
    pub(crate) fn start(self, app: &mut Application) -> Result<Self, String> {
        let Some(link) = self.link else { return Ok(self) };
        let running = link.start(app).map_err(|mistake| format!("--broker: {mistake}"))?;
        Ok(Self { link: None, running: RefCell::new(Some(running)), ..self })
    }

    /// Why a topic of that name cannot be there.
    pub(crate) fn fault_of(&self, name: &str) -> Option<&'static str> {
        self.running.borrow().as_ref()?;
        if topic_fault(name).is_some() {
            return Some(
                "over a broker the name of a topic has no + # or control character, nor begins with $\n",
            );
        }
        if name.split('/').next() == Some(PRESENCE) {
            return Some("over a broker there is no topic hubs, and none below it\n");
        }
        // Below a topic of newest values are its keys: who is on `a` would hear what is said on `a/b`.
        (self.keeps_newest && name.contains('/'))
            .then_some("over a broker the name of a topic has no / under --overflow latest\n")
    }

    /// A client has joined a topic: it is shared from here on.
    pub(crate) fn join(&self, server: &mut ServerRef<'_>, topic: &Topic) {
        let Some(link) = self.running.borrow().clone() else { return };
        // No server is at hand where a topic makes room for another.
        for name in self.gone.take() {
            link.unshare(server, &name);
        }
        if topic.over_broker().is_shared.replace(true) {
            return;
        }
        let shared = match topic.keeps_newest() {
            true => link.share_latest(server, topic.flow(), topic.name()),
            false => link.share(server, topic.flow(), topic.name()),
        };
        if let Err(mistake) = shared {
            topic.over_broker().is_shared.set(false);
            self.mistakes.say(Level::Error, &format!("--broker: {mistake}"));
        }
    }

    /// A topic is gone here.
    pub(crate) fn leave(&self, topic: &Topic) {
        if topic.over_broker().is_shared.get() {
            self.gone.borrow_mut().push(topic.name().to_owned());
        }
    }
}

impl OverBroker {
    /// How many of those who collect the topic's flow are no clients.
    pub(crate) fn readers(&self) -> usize {
        usize::from(self.is_shared.get())
    }
}
