//! What a broker sends to a link: any bytes, at any moment, in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../mqtt/tests/support/broker_bytes.rs"]
mod broker_bytes;

fuzz_target!(|data: &[u8]| broker_bytes::hear(data));
