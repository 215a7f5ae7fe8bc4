//! A client's end of permessage-deflate (RFC 7692) in a simulation: flate2 as it is, kept to what the
//! server's answer says, so that nothing of the server's own streams is compared with itself.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::choices::Choices;

/// What clients ask for: most of it can be agreed on.
const OFFERS: &[&str] = &[
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; client_max_window_bits=10; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; unknown=1, x-webkit-deflate-frame",
];

/// The bytes that are left out behind a message (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Both streams of a client that has agreed.
pub(crate) struct Codec {
    compressor: Compress,
    inflater: Decompress,
    packs_with_context: bool,
    unpacks_with_context: bool,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

/// What was agreed on for what one side sends.
struct Stream {
    window_bits: u8,
    keeps_context: bool,
}

/// For both sides.
struct Agreed {
    client: Stream,
    server: Stream,
}

impl Agreed {
    fn read(answer: &str) -> Result<Self, String> {
        let mut parameters = answer.split(';').map(str::trim);
        if parameters.next() != Some("permessage-deflate") {
            return Err(format!("agreed on what was not offered: {answer}"));
        }
        let mut client = Stream { window_bits: 15, keeps_context: true };
        let mut server = Stream { window_bits: 15, keeps_context: true };
        for parameter in parameters {
            match parameter.split_once('=') {
                None if parameter == "client_no_context_takeover" => client.keeps_context = false,
                None if parameter == "server_no_context_takeover" => server.keeps_context = false,
                Some(("client_max_window_bits", bits)) => {
                    client.window_bits = bits.parse().unwrap_or(0);
                }
                Some(("server_max_window_bits", bits)) => {
                    server.window_bits = bits.parse().unwrap_or(0);
                }
                _ => return Err(format!("agreed on an unknown parameter: {answer}")),
            }
        }
        if ![&client, &server].iter().all(|side| (9..=15).contains(&side.window_bits)) {
            return Err(format!("agreed on a window that cannot be: {answer}"));
        }
        Ok(Self { client, server })
    }
}

/// An offer, as the value of a header.
pub(crate) fn draw_offer(choices: &mut Choices) -> &'static str {
    choices.pick(OFFERS)
}

impl Codec {
    /// What an answer with this value of `Sec-WebSocket-Extensions` agrees on, for the client.
    pub(crate) fn agreed(answer: &str, level: u32) -> Result<Self, String> {
        let Agreed { client, server } = Agreed::read(answer)?;
        Ok(Self::new(client, server, level))
    }

    /// The same for the server that has answered so.
    #[cfg(feature = "client")]
    pub(crate) fn of_server(answer: &str, level: u32) -> Result<Self, String> {
        let Agreed { client, server } = Agreed::read(answer)?;
        Ok(Self::new(server, client, level))
    }

    fn new(own: Stream, other: Stream, level: u32) -> Self {
        let level = Compression::new(level);
        Self {
            compressor: Compress::new_with_window_bits(level, false, own.window_bits),
            inflater: Decompress::new_with_window_bits(false, other.window_bits),
            packs_with_context: own.keeps_context,
            unpacks_with_context: other.keeps_context,
        }
    }

    /// The payload of a message; with `last`, a final block ends it (section 7.2.3.4).
    pub(crate) fn pack(&mut self, message: &[u8], last: bool) -> Vec<u8> {
        let mut packed = Vec::with_capacity(message.len() + message.len() / 100 + 1_000);
        let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
        let packs = self.compressor.compress_vec(message, &mut packed, flush);
        assert!(packs.is_ok() && packed.len() < packed.capacity(), "{packs:?}");
        if last {
            packed.push(0);
        } else {
            packed.truncate(packed.len() - TAIL.len());
        }
        if last || !self.packs_with_context {
            self.compressor.reset();
        }
        packed
    }

    /// The message that the server has sent with this payload.
    pub(crate) fn unpack(&mut self, payload: &[u8]) -> Result<Vec<u8>, String> {
        let packed = [payload, &TAIL].concat();
        let mut message = Vec::with_capacity(4 * packed.len());
        let before = self.inflater.total_in();
        loop {
            let taken = usize::try_from(self.inflater.total_in() - before).unwrap_or(packed.len());
            self.inflater
                .decompress_vec(&packed[taken..], &mut message, FlushDecompress::Sync)
                .map_err(|error| format!("{error} in a message of {} bytes", payload.len()))?;
            if message.len() < message.capacity() {
                break;
            }
            message.reserve(message.len());
        }
        if self.inflater.total_in() - before != packed.len() as u64 {
            return Err("a final block in what the server sent".into());
        }
        if !self.unpacks_with_context {
            self.inflater.reset(false);
        }
        Ok(message)
    }
}
