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
//! `Authorization: Bearer secret`. The serial port says lines such as `soil 41.5`.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

#[path = "uplink/gateway.rs"]
mod gateway;
#[cfg(test)]
#[path = "uplink/tests.rs"]
mod tests;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::thread;

use gateway::{Config, Inlet, module};
use wirewheel::error::HandleError;
use wirewheel::{Application, Handle, Server};

/// Publishes lines as they come, until the port or the server is gone.
fn read_serial(port: File, server: &Handle, inlet: &Inlet) {
    for line in BufReader::new(port).lines().map_while(Result::ok) {
        let Some((sensor, value)) = line.split_once(' ') else { continue };
        let Ok(value) = value.trim().parse() else { continue };
        match inlet.publish(server, sensor, value) {
            Ok(()) | Err(HandleError::Full) => {} // the loop is behind: this reading is left out
            Err(_) => return,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let config = Config {
        token: std::env::var("UPLINK_TOKEN").unwrap_or_else(|_| "secret".into()),
        cloud: words.next().filter(|word| word != "-"),
        inlet: Inlet::default(),
    };
    let (inlet, port) = (config.inlet.clone(), words.next().map(File::open).transpose()?);
    let set_up = move |app: &mut Application| module(app, &config);
    let server = Server::bind(address.as_str(), set_up)?;
    if let Some(port) = port {
        let handle = server.handle();
        let serial = thread::Builder::new().name("serial".into());
        serial.spawn(move || read_serial(port, &handle, &inlet))?;
    }
    println!("listening on http://{}", server.local_addr());
    server.run()?;
    Ok(())
}
