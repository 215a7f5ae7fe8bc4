//! The care for the certificates of all listeners: reloading them, and a warning before they end.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use log::{info, warn};

use crate::core::Core;
use crate::core::tls::TlsEvents;
#[cfg(feature = "tls-client-auth")]
use crate::transport::channel::Channel;
use crate::transport::tls::acceptor::Acceptor;
use crate::transport::tls::certificate::Fault;
use crate::words::time::Time;

#[cfg(feature = "tls-client-auth")]
use super::socket::Socket;

/// How often it is said that a certificate is not valid, or soon will not be.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(86_400);

/// How soon a reload that failed is tried again, and how seldom at last: a file that is being written is
/// whole in a moment, a mistake takes somebody to notice it.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LAST: Duration = Duration::from_secs(600);

/// Certificates of peers that are judged in a turn: each costs a check of signatures.
#[cfg(feature = "tls-client-auth")]
const JUDGED_AT_ONCE: usize = 16;

/// When the certificates have to be looked at next.
#[derive(Debug)]
pub(super) struct CertificateCare {
    /// `None` where another loop sees to it.
    next_warning: Option<Time>,
    retry: Option<Retry>,
    /// The first slot whose peer's certificate is still to be judged anew.
    #[cfg(feature = "tls-client-auth")]
    rejudged: Option<usize>,
    /// Those whose handshake was under way then, which the authorities and lists of before judge.
    #[cfg(feature = "tls-client-auth")]
    unjudged: Vec<usize>,
}

/// A reload that failed, or nobody has asked for yet.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Time,
    wait: Duration,
}

impl CertificateCare {
    /// For listeners with TLS; the first check is due at once, on the first loop, and so is the reload of
    /// certificates that are old.
    pub(super) fn new(is_first: bool, are_old: bool) -> Self {
        let reload = Retry { at: Time::ZERO, wait: RETRY_FIRST / 2 };
        Self {
            next_warning: is_first.then_some(Time::ZERO),
            retry: are_old.then_some(reload),
            #[cfg(feature = "tls-client-auth")]
            rejudged: None,
            #[cfg(feature = "tls-client-auth")]
            unjudged: Vec::new(),
        }
    }

    /// When [`check`](Self::check) is due.
    pub(super) fn next_check(&self) -> Option<Time> {
        #[cfg(feature = "tls-client-auth")]
        if self.rejudged.is_some() {
            return Some(Time::ZERO);
        }
        self.retry.map(|retry| retry.at).into_iter().chain(self.next_warning).min()
    }

    /// Does what is due.
    pub(super) fn check(&mut self, core: &mut Core, now: Time, acceptors: &[Rc<Acceptor>]) {
        if self.retry.is_some_and(|retry| retry.at <= now) {
            self.reload(core, now, acceptors);
            core.tell_certificates(); // who asked for the first try told them of that
        }
        if self.next_warning.is_some_and(|at| at <= now) {
            self.next_warning = Some(now.after(BETWEEN_WARNINGS));
            warn_of_faults(acceptors);
            TlsEvents { core }.note_certificates(expiry(acceptors));
        }
    }

    /// Reads all certificates again. A listener where that fails keeps what it has.
    pub(super) fn reload(&mut self, core: &mut Core, now: Time, acceptors: &[Rc<Acceptor>]) {
        let mut failed = false;
        for acceptor in acceptors {
            if let Err(mistake) = acceptor.reload() {
                warn!(target: "wirewheel::server",
                    "certificates were not reloaded, the old ones stay: {mistake}");
                failed = true;
            }
        }
        self.retry = failed.then(|| {
            let wait = self.retry.map_or(RETRY_FIRST, |last| (last.wait * 2).min(RETRY_LAST));
            Retry { at: now.after(wait), wait }
        });
        if !failed {
            info!(target: "wirewheel::server", "certificates reloaded");
        }
        #[cfg(feature = "tls-client-auth")]
        self.changed(acceptors);
        TlsEvents { core }.note_reload(!failed);
        self.next_warning = Some(now); // new ones have their own times
    }
}

#[cfg(feature = "tls-client-auth")]
impl CertificateCare {
    /// Others may be let in than before: the peers that are here are judged anew where that is wanted.
    pub(super) fn changed(&mut self, acceptors: &[Rc<Acceptor>]) {
        if acceptors.iter().any(|acceptor| acceptor.ends_refused()) {
            self.rejudged = Some(0);
            self.unjudged.clear(); // all are looked at anew
        }
    }

    /// Whether certificates of peers are to be judged, now or once a handshake is over.
    pub(super) fn judges(&self) -> bool {
        self.rejudged.is_some() || !self.unjudged.is_empty()
    }

    /// Judges the certificates of some peers anew, after a reload: the slots of those that are refused.
    pub(super) fn rejudge(
        &mut self,
        sockets: &[Option<Channel<Socket>>],
        acceptors: &[Rc<Acceptor>],
    ) -> Vec<u32> {
        let acceptors: Vec<_> = acceptors.iter().filter(|it| it.ends_refused()).collect();
        acceptors.iter().for_each(|acceptor| acceptor.shared().set_time(since_1970()));
        let first = self.rejudged.take().unwrap_or(sockets.len());
        let earlier = std::mem::take(&mut self.unjudged).into_iter();
        let (mut refused, mut judged) = (Vec::new(), 0);
        for slot in earlier.chain(first..sockets.len()) {
            if judged == JUDGED_AT_ONCE && slot >= first {
                self.rejudged = Some(slot);
                break;
            }
            let Some(Some(Channel::Secured(secured))) = sockets.get(slot) else { continue };
            if secured.is_shaking_hands() {
                self.unjudged.push(slot);
                continue;
            }
            let Some(is_refused) = acceptors.iter().find_map(|it| secured.is_refused_by(it)) else {
                continue;
            };
            judged += 1;
            refused.extend(u32::try_from(slot).ok().filter(|_| is_refused));
        }
        refused
    }
}

/// When the first certificate ends, in seconds since 1970.
fn expiry(acceptors: &[Rc<Acceptor>]) -> u64 {
    let all = acceptors.iter().flat_map(|acceptor| acceptor.validities());
    all.map(|validity| validity.not_after).min().unwrap_or(0)
}

fn warn_of_faults(acceptors: &[Rc<Acceptor>]) {
    let Some(now) = since_1970() else { return };
    for (certificate, fault) in acceptors.iter().flat_map(|acceptor| acceptor.faults(now)) {
        match fault {
            Fault::NotYetValid => warn!(target: "wirewheel::server",
                "{certificate} is not valid yet, by this machine's clock: clients will refuse it"),
            Fault::Expired => warn!(target: "wirewheel::server",
                "{certificate} is not valid any more, by this machine's clock: clients will refuse it"),
            Fault::Expires { days } => warn!(target: "wirewheel::server",
                "{certificate} will not be valid any more in {days} days"),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the shell reads the clock")]
fn since_1970() -> Option<Duration> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process};

    use super::*;
    use crate::app::application::Application;
    use crate::context::loops::Place;
    use crate::context::mailbox::Mailbox;
    use crate::transport::tls::acceptor::Certificates;
    use crate::words::tls::{Pem, TlsOptions};

    const CHAIN: &str = include_str!("../testing/network/certificates/small.pem");
    const KEY: &str = include_str!("../testing/network/certificates/small.key");

    /// They heard of the first try, when there was nothing new: who is to go on them went unseen.
    #[test]
    fn other_loops_hear_of_a_reload_that_works_when_it_is_tried_again() {
        let mailboxes = vec![Mailbox::default(), Mailbox::default()];
        let other = mailboxes[1].inbox();
        let first = Place::all(mailboxes).remove(0);
        let application = Application::new().reached_by(first.mailbox().clone(), Vec::new());
        let mut core = Core::new(application.at(first).build().unwrap());
        let chain = env::temp_dir().join(format!("wirewheel-retry-{}.pem", process::id()));
        fs::write(&chain, CHAIN).unwrap();
        let options = TlsOptions::new(chain.clone(), Pem::bytes(KEY));
        let certificates = Certificates::load(options).unwrap();
        let acceptors = [Rc::new(Acceptor::new(certificates.into(), 100))];
        let mut care = CertificateCare::new(true, false);
        fs::write(&chain, "half a file").unwrap();
        care.reload(&mut core, Time::ZERO, &acceptors);
        let retry = Time::ZERO.after(RETRY_FIRST);
        fs::write(&chain, CHAIN).unwrap();
        assert!(!other.take_certificates(), "whoever asks for a reload tells them");
        care.check(&mut core, retry, &acceptors);
        fs::remove_file(&chain).unwrap();
        assert!(care.retry.is_none() && other.take_certificates());
    }
}
