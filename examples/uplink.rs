//! A gateway: devices report readings, dashboards see the newest of each sensor and send commands back.
//! The cloud is one more dashboard, which the gateway dials again after every outage; it gets the newest
//! reading of each sensor then.
//!
//! ```sh
//! UPLINK_TOKEN=secret cargo run --release --example uplink --features client,json -- \
//!     127.0.0.1:8080 ws://cloud.example/gateways/7 /dev/ttyUSB0    # or - for no cloud
//! ```
//!
//! Devices connect to `/devices/NAME` and show the token, as the gateway does to the cloud:
//! `Authorization: Bearer secret`. The serial port, set up by `stty -F /dev/ttyUSB0 115200 raw -echo`, says
//! lines such as `soil 41.5`.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "uplink/gateway.rs"]
mod gateway;
#[cfg(test)]
#[path = "uplink/tests.rs"]
mod tests;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use gateway::{Config, module};
use rustix::fs::OFlags;
use wirewheel::{Application, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    // A port must not become the terminal of this process, which would end with it.
    let mut port = OpenOptions::new();
    port.read(true).custom_flags(OFlags::NOCTTY.bits().try_into()?);
    let config = Config {
        token: std::env::var("UPLINK_TOKEN").unwrap_or_else(|_| "secret".into()),
        cloud: words.next().filter(|word| word != "-"),
        serial: words.next().map(|path| port.open(path)).transpose()?,
    };
    let server = Server::bind(address.as_str(), move |app: &mut Application| {
        module(app, config);
    })?;
    println!("listening on http://{}", server.local_addr());
    server.run()?;
    Ok(())
}
