//! The driver's part in TLS: reading records, sending those that wait, and the care for certificates.

use crate::core::driver::Driver;
use crate::core::sockets::{Readiness, Socket, Sockets};
use crate::core::tls::TlsEvents;
use crate::core::turn::Reading;
use crate::transport::secured::SecuredRead;
#[cfg(feature = "client")]
use crate::transport::secured::buffer_bytes;
use crate::transport::stream::ReadOutcome;
use crate::words::time::Time;

impl<S: Sockets> Driver<S> {
    /// As `serve_once`, of a socket with TLS. Cold for the sake of those without, whose registers it would
    /// take.
    #[cold]
    #[inline(never)]
    pub(super) fn serve_other(&mut self, now: Time, slot: u32, ready: Readiness) -> Option<usize> {
        let room = self.room_after(now, slot, ready)?;
        self.serve_secured(now, slot, ready, room)
    }

    /// The same of one that is readable, and to be read.
    #[inline(never)]
    fn serve_secured(
        &mut self,
        now: Time,
        slot: u32,
        ready: Readiness,
        room: usize,
    ) -> Option<usize> {
        let late = self.shares.is_late();
        // Where no listener speaks TLS, the first that is dialled brings the buffer.
        #[cfg(feature = "client")]
        if self.records.is_empty() {
            self.records = vec![0; buffer_bytes(self.rx.len())].into_boxed_slice();
        }
        let socket = self.sockets.socket(slot)?;
        let input = match socket.read_secured(&mut self.records, room, late) {
            SecuredRead::Input(input) => input,
            outcome => {
                self.secured_end(now, slot, outcome);
                return None;
            }
        };
        let mut reading = socket.notes().reading;
        if input.bytes > 0 {
            let bytes = self.records.get_mut(..input.bytes)?;
            reading = self.core.handle_input(now, slot, bytes, socket.wire());
            socket.notes().reading = reading;
        } else {
            TlsEvents { core: &mut self.core }.begin_work();
        }
        TlsEvents { core: &mut self.core }.follow(slot, socket);
        self.note_work(input.work);
        self.end_and_drop();
        if reading == Reading::Again {
            self.list_to_write(slot);
            return self.leave(now, slot, ready);
        }
        (input.more || ready.ended).then_some(input.work)
    }

    /// Acts on a read that gave nothing.
    fn secured_end(&mut self, now: Time, slot: u32, outcome: SecuredRead) {
        if matches!(outcome, SecuredRead::Later) {
            return self.list(slot);
        }
        self.with_wire(slot, |core, wire| match outcome {
            SecuredRead::Eof => core.handle_eof(now, slot, wire),
            SecuredRead::Truncated => TlsEvents { core }.truncated(now, slot, wire),
            SecuredRead::NotTls => TlsEvents { core }.plain_http(now, slot, wire),
            SecuredRead::TlsFailed(reason) => TlsEvents { core }.failed(now, slot, &reason, wire),
            SecuredRead::Failed(kind) => core.handle_error(now, slot, kind, wire),
            SecuredRead::Drained | SecuredRead::Input(_) | SecuredRead::Later => {}
        });
    }

    /// Sends the records that wait, before anything else may be written: whether all are out.
    pub(super) fn flush_backlog(&mut self, now: Time, slot: u32) -> bool {
        let Some(socket) = self.sockets.socket(slot) else { return false };
        match socket.flush_backlog() {
            Ok(true) => true,
            Ok(false) => {
                TlsEvents { core: &mut self.core }.follow(slot, socket);
                false
            }
            Err(error) => {
                self.read_end(now, slot, ReadOutcome::Failed(error.kind()));
                false
            }
        }
    }

    /// Reads certificates again if that was asked for, and looks at them when it is time to.
    pub(super) fn keep_certificates(&mut self, now: Time) {
        let requested = TlsEvents { core: &mut self.core }.poll_reload();
        if requested && !self.core.is_first_loop() {
            #[cfg(feature = "tls-client-auth")]
            self.sockets.certificates_changed();
        } else if requested {
            self.sockets.reload_certificates(&mut self.core, now);
            self.core.tell_certificates();
        }
        #[cfg(feature = "client")]
        if requested {
            TlsEvents { core: &mut self.core }.reload_dialers();
        }
        if self.sockets.next_certificate_check().is_some_and(|at| at <= now) {
            self.sockets.check_certificates(&mut self.core, now);
        }
        #[cfg(feature = "tls-client-auth")]
        for slot in self.sockets.take_refused() {
            self.with_wire(slot, |core, wire| TlsEvents { core }.refused(now, slot, wire));
        }
    }
}
