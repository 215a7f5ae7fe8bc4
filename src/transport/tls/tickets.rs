//! The tickets of servers that were dialled: a few, so that no server decides what they take.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// So many of each kind are kept, the latest ones. With a ticket goes the chain that its server has shown.
const KEPT_MAX: usize = 4;

/// The tickets of dialers with equal options. Only one thread uses it, whatever rustls wants of it.
#[derive(Default)]
pub(super) struct RecentTickets(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    groups: Latest<NamedGroup>,
    tls12: Latest<Tls12ClientSessionValue>,
    tls13: Latest<Tls13ClientSessionValue>,
}

impl fmt::Debug for RecentTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecentTickets").finish_non_exhaustive()
    }
}

/// What was told last, of whichever servers.
struct Latest<T>(VecDeque<(ServerName<'static>, T)>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Latest<T> {
    fn push(&mut self, name: ServerName<'static>, value: T) {
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((name, value));
    }

    fn get(&self, name: &ServerName<'_>) -> Option<&T> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn take(&mut self, name: &ServerName<'_>) -> Option<T> {
        let place = self.0.iter().rposition(|(known, _)| known == name)?;
        self.0.remove(place).map(|(_, value)| value)
    }
}

impl RecentTickets {
    fn with<R>(&self, act: impl FnOnce(&mut Recent) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientSessionStore for RecentTickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.with(|recent| {
            recent.groups.take(&server_name);
            recent.groups.push(server_name, group);
        });
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|recent| recent.groups.get(server_name).copied())
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.with(|recent| {
            recent.tls12.take(&server_name);
            recent.tls12.push(server_name, value);
        });
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(|recent| recent.tls12.get(server_name).cloned())
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.with(|recent| drop(recent.tls12.take(server_name)));
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        self.with(|recent| recent.tls13.push(server_name, value));
    }

    /// RFC 8446 appendix C.4: "Clients SHOULD NOT reuse a ticket for multiple connections."
    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.with(|recent| recent.tls13.take(server_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_few_are_kept() {
        let name = |number: usize| ServerName::try_from(format!("h{number}")).unwrap();
        let mut latest = Latest::default();
        for number in 0..10 {
            latest.push(name(number % 2), number);
        }
        assert_eq!(latest.0.len(), KEPT_MAX);
        assert_eq!(latest.get(&name(0)), Some(&8));
        assert_eq!([latest.take(&name(1)), latest.take(&name(1))], [Some(9), Some(7)]);
        assert_eq!(latest.take(&name(1)), None);
        assert_eq!(latest.0.len(), 2);
    }
}
