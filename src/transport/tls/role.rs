//! The two roles of a connection as rustls has them: one interface over both.

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{CommonState, Error};

use crate::protocol::tls_fault::TlsFault;

#[cfg(feature = "client")]
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};

#[cfg(feature = "client")]
use super::server_verifier::fault_of;

/// What the engine asks of a connection. rustls has it for both, without a name for what they share.
pub(super) trait Role {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn common(&self) -> &CommonState;

    /// What an error is to whoever set this end up.
    fn fault(&self, error: &Error) -> TlsFault;
}

impl Role for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn fault(&self, error: &Error) -> TlsFault {
        TlsFault::Other(error.to_string())
    }
}

#[cfg(feature = "client")]
impl Role for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn fault(&self, error: &Error) -> TlsFault {
        fault_of(error)
    }
}
