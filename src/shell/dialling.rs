//! What dialers order: lookups and connects, and what came of them.

use std::collections::VecDeque;
use std::ops::Range;

use mio::net::TcpStream;
use mio::{Registry, Token};

use crate::core::dial_orders::{DialOrder, Dialled, Remote};
use crate::session::state::NO_ADDR;

use super::connect::{Connected, Connecting};
use super::resolver::Resolver;

/// Lookups and connects that are under way.
#[derive(Debug)]
pub(super) struct Dialling {
    resolver: Resolver,
    /// What the resolver wakes the loop with.
    token: Token,
    connecting: Connecting,
    ended: VecDeque<Dialled<TcpStream>>,
}

impl Dialling {
    pub(super) fn new(resolver: Token, connects: Range<usize>) -> Self {
        Self {
            resolver: Resolver::new(),
            token: resolver,
            connecting: Connecting::new(connects),
            ended: VecDeque::new(),
        }
    }

    pub(super) fn order(&mut self, registry: &Registry, order: DialOrder) {
        match order {
            DialOrder::LookUp { attempt, host, port } => {
                let begun = self.resolver.look_up(registry, self.token, attempt, &host, port);
                if let Err(error) = begun {
                    self.ended.push_back(Dialled::NoThread(attempt, error));
                }
            }
            DialOrder::Connect { attempt, remote } => {
                if let Err(error) = self.connecting.start(registry, attempt, &remote) {
                    let address = match remote {
                        Remote::Tcp(address) => address,
                        Remote::Unix(_) => NO_ADDR,
                    };
                    self.ended.push_back(Dialled::NotConnected(attempt, address, error));
                }
            }
            DialOrder::Abandon(attempt) => {
                self.resolver.abandon(attempt);
                self.connecting.abandon(attempt);
            }
        }
    }

    /// Takes an event, if it is one of what is under way.
    pub(super) fn ready(&mut self, registry: &Registry, token: Token) -> bool {
        if token == self.token {
            let answers = self.resolver.take_answers().into_iter();
            self.ended.extend(answers.map(|(attempt, answer)| Dialled::Resolved(attempt, answer)));
            return true;
        }
        if !self.connecting.has(token) {
            return false;
        }
        let ended: Option<Connected> = self.connecting.ready(registry, token);
        self.ended.extend(ended.map(|(attempt, remote, outcome)| match outcome {
            Ok(stream) => Dialled::Connected(attempt, remote, stream),
            Err(error) => Dialled::NotConnected(attempt, remote, error),
        }));
        true
    }

    pub(super) fn next(&mut self) -> Option<Dialled<TcpStream>> {
        self.ended.pop_front()
    }
}
