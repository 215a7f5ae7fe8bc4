//! What TLS below a connection means for it: how it may fail, and what it holds.

use log::Level;
#[cfg(feature = "client")]
use log::warn;

use crate::app::response::Response;
use crate::protocol::tls_fault::TlsFault;
use crate::session::read_pause::ReadEnd;
use crate::structures::wire::Wire;
use crate::transport::secured::{Changes, Handshake};
use crate::words::error::SessionError;
use crate::words::time::Time;

use crate::core::connection::Stage;
use crate::core::responder::Responder;
use crate::core::sockets::Socket;
use crate::core::turn::Turn;
use crate::core::turns::Core;
#[cfg(feature = "client")]
use crate::core::{dial_tls::DialTls, dials::Dials};

const NOT_TLS: &str = "it speaks plain HTTP where TLS is spoken: https:// or wss:// is meant";

/// What happens below the core.
pub(crate) struct TlsEvents<'c> {
    pub(crate) core: &'c mut Core,
}

impl TlsEvents<'_> {
    /// The connection has ended, and TLS did not say that it was to.
    pub(crate) fn truncated(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        #[cfg(feature = "client")]
        if (Dials { core: self.core }).ended(now, index, None, wire) {
            return;
        }
        self.core.turn(now, index, wire, |turn| turn.peer_ended(ReadEnd::Truncated));
        self.core.after_turn(now);
    }

    /// What came first is no TLS.
    pub(crate) fn plain_http(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        #[cfg(feature = "client")]
        if (DialTls { core: self.core }).failed(now, index, &TlsFault::NotTls, wire) {
            return;
        }
        self.core.shared.stats.tls_handshakes_failed += 1;
        self.core.turn(now, index, wire, |turn| TlsTurn { turn }.refuse_plain_http());
        self.core.after_turn(now);
    }

    /// The peer broke TLS, or agreed to nothing that is spoken here.
    pub(crate) fn failed(&mut self, now: Time, index: u32, reason: &TlsFault, wire: &mut dyn Wire) {
        #[cfg(feature = "client")]
        if (DialTls { core: self.core }).failed(now, index, reason, wire) {
            return;
        }
        if self.core.connections.slab.at(index).is_some_and(|found| found.is_pending()) {
            self.core.shared.stats.tls_handshakes_failed += 1;
        }
        self.core.turn(now, index, wire, |turn| TlsTurn { turn }.failed(reason));
        self.core.after_turn(now);
    }

    /// The certificate that the peer has shown would not be accepted any more.
    #[cfg(feature = "tls-client-auth")]
    pub(crate) fn refused(&mut self, now: Time, index: u32, wire: &mut dyn Wire) {
        self.core.turn(now, index, wire, |turn| TlsTurn { turn }.refused());
        self.core.after_turn(now);
    }

    /// What TLS holds for a connection, and what it has done.
    #[inline]
    pub(super) fn follow(&mut self, index: u32, socket: &mut impl Socket) {
        if let Some(changes) = socket.take_changes() {
            self.changed(index, changes);
        }
    }

    #[cold]
    fn changed(&mut self, index: u32, changes: Changes) {
        match changes.handshake {
            Some(Handshake::Full) => self.core.shared.stats.tls_handshakes_full += 1,
            Some(Handshake::Resumed) => self.core.shared.stats.tls_handshakes_resumed += 1,
            None => {}
        }
        #[cfg(feature = "client")]
        if changes.handshake.is_some() {
            DialTls { core: self.core }.note_secured(index);
        }
        let Some(connection) = self.core.connections.slab.at_mut(index) else { return };
        let state = &mut connection.state;
        if changes.held > 0 || state.extra.is_some() {
            state.extra().transport_bytes = u32::try_from(changes.held).unwrap_or(u32::MAX);
            state.release_idle();
        }
        let (before, held) = (connection.charged as usize, connection.memory());
        connection.charged = u32::try_from(held).unwrap_or(u32::MAX);
        self.core.shared.account(before, connection.charged as usize);
    }

    /// Whether certificates are to be reloaded; asked once.
    pub(crate) fn poll_reload(&mut self) -> bool {
        std::mem::take(&mut self.core.shared.reload_requested)
    }

    /// What dialers name is read again too.
    #[cfg(feature = "client")]
    pub(crate) fn reload_dialers(&self) {
        for mistake in self.core.shared.dialers.tls.reload() {
            warn!(target: "wirewheel::server",
                "certificates of dialers were not reloaded, the old ones stay: {mistake}");
        }
    }

    /// They were, or not.
    pub(crate) fn note_reload(&mut self, done: bool) {
        let stats = &mut self.core.shared.stats;
        *(if done { &mut stats.tls_reloads_done } else { &mut stats.tls_reloads_failed }) += 1;
    }

    /// When the first certificate ends, in seconds since 1970.
    pub(crate) fn note_certificates(&mut self, not_after: u64) {
        let known = &mut self.core.shared.stats.tls_certificate_expiry;
        *known -= known.get();
        *known += not_after;
    }

    /// Work is done from here that no turn of a connection begins.
    pub(crate) fn begin_work(&mut self) {
        self.core.shared.work.begin();
    }
}

/// The turn of a connection to which that happens.
struct TlsTurn<'t, 'a> {
    turn: &'t mut Turn<'a>,
}

impl TlsTurn<'_, '_> {
    fn refuse_plain_http(&mut self) {
        self.turn.log().refused_because(Level::Warn, 400, None, NOT_TLS, NOT_TLS);
        let text = "400 Bad Request: this port speaks TLS, use https:// or wss://\n";
        Responder { turn: self.turn }.refuse_with(&Response::refusal(400).body(text));
    }

    #[cfg(feature = "tls-client-auth")]
    fn refused(&mut self) {
        match self.turn.connection.stage {
            Stage::Session(_) => self.turn.fail(SessionError::CertificateRefused),
            Stage::Http(_) => {
                self.turn.finish();
                // It may not have been read: what comes now is, and dropped, and its end is seen.
                self.turn.shared.to_resume.push(self.turn.connection.state.id.0.index);
            }
            Stage::Finishing | Stage::Closed(_) => {}
        }
    }

    fn failed(&mut self, reason: &TlsFault) {
        match self.turn.connection.stage {
            Stage::Session(_) => {
                self.turn.fail(SessionError::Network(std::io::ErrorKind::InvalidData));
            }
            Stage::Http(_) | Stage::Finishing | Stage::Closed(_) => {
                self.turn.shared.warnings.note("tls", self.turn.shared.now, || {
                    format!("TLS with {} failed: {reason}", self.turn.log().who())
                });
                self.turn.finish(); // the alert is to arrive
            }
        }
    }
}
