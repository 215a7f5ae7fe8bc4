//! TLS of connections that were dialled: how it begins, and what follows from its end.

use std::rc::Rc;

use crate::protocol::connect_error::ConnectError;
use crate::protocol::tls_fault::TlsFault;
use crate::structures::wire::Wire;
use crate::transport::tls::connector::TlsStart;
use crate::words::connect::ConnectStep;
use crate::words::time::Time;

use crate::core::dials::Dials;
use crate::core::turns::Core;

/// The core with what concerns the TLS of its dialers.
pub(super) struct DialTls<'c> {
    pub(super) core: &'c mut Core,
}

impl DialTls<'_> {
    /// The connection leads to the server, which is spoken to over TLS.
    pub(super) fn begin(&mut self, now: Time, index: u32, slot: u32) {
        let mut dials = Dials { core: self.core };
        // What came before TLS could be from anybody, and no server of TLS speaks first.
        if dials.http(slot).is_some_and(|http| !http.unread.is_empty()) {
            let fault = "the proxy sent something behind its answer, before TLS has begun";
            return dials.fail(now, index, ConnectError::BadAnswer(fault.into()), None);
        }
        // The next answer to be read is the one that TLS brings.
        if let Some(dialling) = dials.dialling(slot) {
            dialling.has_input = false;
        }
        self.core.dial_table.set_step(index, ConnectStep::Tls);
        self.core.dial_table.to_secure.push(slot);
    }

    /// The next connection that is to speak TLS from here on.
    pub(super) fn poll(&mut self, now: Time) -> Option<(u32, TlsStart)> {
        loop {
            let slot = self.core.dial_table.to_secure.pop()?;
            let Core { dial_table, shared, .. } = &mut *self.core;
            let Some(&index) = dial_table.by_slot.get(&slot) else { continue };
            let Some(dial) = dial_table.dial(index) else { continue };
            // The slot may be another's by now.
            let progress = dial.progress.as_deref().filter(|it| it.step == ConnectStep::Tls);
            let Some(url) = progress.map(|it| Rc::clone(&it.url)) else { continue };
            match dial.connector.tls_start(&shared.dialers, &url) {
                Ok(start) => return Some((slot, start)),
                // Only where a redirect has led there: else it was a mistake in the set-up.
                Err(mistake) => {
                    let error = ConnectError::Tls(TlsFault::Other(mistake));
                    Dials { core: self.core }.fail(now, index, error, None);
                }
            }
        }
    }

    /// TLS is agreed on: the request may go out.
    pub(super) fn note_secured(&mut self, slot: u32) {
        // Most handshakes are those of a listener's clients.
        if !self.core.dial_table.by_slot.contains_key(&slot) {
            return;
        }
        if let Some(dialling) = (Dials { core: self.core }).dialling(slot) {
            dialling.is_secured = true;
            self.core.shared.dial_input.push(slot);
        }
    }

    pub(super) fn send_request(&mut self, now: Time, slot: u32, wire: &mut dyn Wire) {
        if let Some(&index) = self.core.dial_table.by_slot.get(&slot) {
            Dials { core: self.core }.send_handshake(now, index, slot, wire);
            self.core.after_turn(now);
        }
    }

    /// TLS has failed, or there is none; false if the connection is in no attempt.
    pub(super) fn failed(
        &mut self,
        now: Time,
        slot: u32,
        fault: &TlsFault,
        wire: &mut dyn Wire,
    ) -> bool {
        let index = match (Dials { core: self.core }).still_dialled(now, slot, wire) {
            Ok(index) => index,
            Err(is_over) => return is_over,
        };
        let step = self.core.dial_table.progress(index).map(|progress| progress.step);
        // RFC 8446 section 4.4.2.4: that a certificate of ours is not taken is said behind the handshake.
        if step == Some(ConnectStep::Tls) {
            self.core.shared.stats.tls_handshakes_failed += 1;
        }
        let error = ConnectError::Tls(fault.clone());
        Dials { core: self.core }.fail(now, index, error, wire.since_1970());
        self.core.after_turn(now);
        true
    }
}
