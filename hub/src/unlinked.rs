//! The links of a hub that was built without them: there are none.

use std::rc::Rc;

use wirewheel::message::MessageBuf;
use wirewheel::{Application, HandlerResult, Routing, ServerRef, Session};

use crate::config::Config;
use crate::topics::{Topic, Topics};

#[derive(Debug)]
pub(crate) struct Links;

#[derive(Debug, Default)]
pub(crate) struct TopicLinks(());

impl Links {
    pub(crate) fn of(_: &Config) -> Self {
        Self
    }

    pub(crate) fn check(&self, _: &mut Application) {}

    pub(crate) fn serve(&self, _: &mut Routing<'_>, _: &Rc<Topics>) {}
}

impl TopicLinks {
    pub(crate) fn have_members(&self) -> bool {
        false
    }

    pub(crate) fn join_upstream(&self, _: &mut ServerRef<'_>, _: &Rc<Topic>) {}

    pub(crate) fn leave_upstream(&self) -> bool {
        false
    }

    pub(crate) fn pass_on(&self, _: &mut Session<'_>, _: &Topic, _: &MessageBuf) -> HandlerResult {
        Ok(())
    }
}
