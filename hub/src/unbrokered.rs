//! The broker of a hub that was built without one: there is none.

use wirewheel::{Application, ServerRef};

use crate::config::Config;
use crate::topics::Topic;

#[derive(Debug)]
pub(crate) struct Broker;

#[derive(Debug, Default)]
pub(crate) struct OverBroker(());

#[allow(clippy::unnecessary_wraps, reason = "as in a hub that has one")]
pub(crate) fn check(_: &Config) -> Result<(), String> {
    Ok(())
}

impl Broker {
    #[allow(clippy::unnecessary_wraps, reason = "as in a hub that has one")]
    pub(crate) fn of(_: &Config) -> Result<Self, String> {
        Ok(Self)
    }

    #[allow(clippy::unnecessary_wraps, reason = "as in a hub that has one")]
    pub(crate) fn start(self, _: &mut Application) -> Result<Self, String> {
        Ok(self)
    }

    pub(crate) fn fault_of(&self, _: &str) -> Option<&'static str> {
        None
    }

    pub(crate) fn join(&self, _: &mut ServerRef<'_>, _: &Topic) {}

    pub(crate) fn leave(&self, _: &Topic) {}
}

impl OverBroker {
    pub(crate) fn readers(&self) -> usize {
        0
    }
}
