//! The closing of the books: all is quiet, everybody takes everything, and each message that was published is
//! with whoever collects it, or counted as missed there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::flow::options::BufferOverflow;
use crate::structures::ids::SessionId;
use crate::testing::network::{Link, PeerEnd};
use crate::words::message_buf::MessageBuf;

use super::Life;
use super::ledger::{Ledger, MemberBook, Port};
use super::member::{NAMES, accounted, dropped_for_all};
use super::visitor::{Stage, Visitor};

/// Questions are over after that.
const ALL_ANSWERED: Duration = Duration::from_secs(10);

impl Life {
    /// Nobody stalls any more, and all that can come comes: then every book has to agree.
    pub(super) fn close_books(&mut self) -> Result<(), String> {
        self.note("the books are closed");
        for visitor in &mut self.visitors {
            visitor.take_at_most(&mut self.group, usize::MAX);
        }
        self.group.advance(ALL_ANSWERED)?;
        self.settle()?;
        // What is read again may pause others.
        while !self.ledger.borrow().paused.is_empty() {
            self.read_all_again();
            self.settle()?;
        }
        self.group.advance(ALL_ANSWERED)?;
        self.settle()?;
        if self.ledger.borrow().stops {
            return Ok(());
        }
        self.ledger.borrow_mut().members.values_mut().for_each(|member| member.missed = None);
        for visitor in self.visitors.iter().filter(|visitor| visitor.stage == Stage::Open) {
            visitor.ask_missed(&mut self.group);
        }
        self.settle()?;
        self.check()?;
        self.ledger.borrow_mut().tally.audits += 1;
        self.group.check_quiet()?;
        self.check_flows()?;
        self.check_sessions()?;
        self.check_names()?;
        self.check_admission()?;
        self.check_answers()
    }

    /// Sessions that others have paused are read again; asked for on any loop.
    fn read_all_again(&mut self) {
        let paused: Vec<SessionId> = std::mem::take(&mut self.ledger.borrow_mut().paused);
        for id in paused {
            let number = self.choose(|choices| choices.size_below(self.group.count()));
            self.group.run(number, |server| _ = server.resume(id));
        }
    }

    /// The log of each loop has or had all messages, or knows how many it never will.
    fn check_flows(&self) -> Result<(), String> {
        let ledger = &*self.ledger.borrow();
        let alive: Vec<_> = ledger.members.values().filter(|member| !member.is_over).collect();
        for (which, book) in ledger.flows.iter().enumerate() {
            let collecting =
                alive.iter().filter(|member| member.collected.contains_key(&which)).count();
            for (number, flows) in self.group.flows.iter().enumerate() {
                let flow = &flows[which];
                let has = accounted(flow, dropped_for_all(flow, ledger, which, number));
                if has != book.total {
                    return Err(format!("loop {number}, flow {which}: {has} of {}", book.total));
                }
                if flow.subscription_count() != collecting {
                    let count = flow.subscription_count();
                    return Err(format!("{count} collect flow {which}, and {collecting} do"));
                }
                let keys = book.newest.iter().filter(|_| book.keeps_all_keys);
                for (key, value) in keys {
                    let found = flow.get(key);
                    if found != value.as_deref().map(MessageBuf::from) {
                        return Err(format!("loop {number}: {key} is not {value:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_sessions(&mut self) -> Result<(), String> {
        for visitor in self.visitors.iter().filter(|visitor| visitor.stage == Stage::Open) {
            let port = visitor.port;
            let unread = self.group.link(port, |link| link.unread()).unwrap_or(0);
            if unread > 0 {
                return Err(format!("client {port} is not read: {unread} bytes wait"));
            }
            let ledger = &mut *self.ledger.borrow_mut();
            let Some(member) = ledger.members.get(&port) else {
                return Err(format!("client {port} has no session"));
            };
            if !self.group.has(member.number, port) {
                return Err(format!("client {port} is not on loop {}", member.number));
            }
            self.check_collected(ledger, port, member)?;
            ledger.tally.missed += member.missed.unwrap_or(0);
        }
        self.check_between()
    }

    /// What a session has got and what it has missed are all that there was.
    fn check_collected(
        &self,
        ledger: &Ledger,
        port: Port,
        member: &MemberBook,
    ) -> Result<(), String> {
        let Some(missed) = member.missed else {
            return Err(format!("client {port} was not told what its session has missed"));
        };
        if member.has_left {
            return Ok(());
        }
        let (mut owed, mut heard, mut dropped, mut is_lossless) = (0, 0, 0, true);
        for (&which, collected) in &member.collected {
            let flow = &self.group.flows[member.number][which];
            owed += collected.owed(&ledger.flows[which]);
            heard += collected.heard;
            dropped += dropped_for_all(flow, ledger, which, member.number)
                .saturating_sub(collected.dropped_before);
            is_lossless &= ledger.flows[which].policy == BufferOverflow::Suspend;
        }
        if heard + missed + dropped != owed || (is_lossless && missed > 0) {
            return Err(format!(
                "client {port} on loop {}: of {owed} messages {heard} were heard, {missed} missed, \
                 {dropped} dropped for all",
                member.number
            ));
        }
        Ok(())
    }

    /// Messages from one session to another, and questions.
    fn check_between(&self) -> Result<(), String> {
        let ledger = &*self.ledger.borrow();
        let is_open = |port: &Port| {
            let visitor = self.visitors.iter().find(|visitor| visitor.port == *port);
            visitor.is_some_and(|visitor| visitor.stage == Stage::Open)
        };
        for ((from, to), (taken, arrived)) in ledger.directs.iter().filter(|_| ledger.is_ample) {
            if taken != arrived && is_open(to) {
                return Err(format!("{arrived} of {taken} messages from {from} came to {to}"));
            }
        }
        match ledger.questions.iter().find(|(_, settled)| **settled != 1) {
            Some((question, settled)) => {
                Err(format!("question {question} was settled {settled} times"))
            }
            None => Ok(()),
        }
    }

    fn check_names(&self) -> Result<(), String> {
        let ledger = &*self.ledger.borrow();
        for name in NAMES {
            let holder = ledger.names.get(name).and_then(|port| ledger.members.get(port));
            let expected = holder.map(|member| member.id.0);
            let found = self.group.places[0].find_name(name);
            if found != expected {
                return Err(format!("{name} is {found:?}, not {expected:?}"));
            }
        }
        let open = ledger.members.values().filter(|member| !member.is_over).count() as u64;
        for number in 0..self.group.count() {
            let counted = self.group.sessions_open(number);
            if counted != open {
                return Err(format!("{open} sessions are open, loop {number} counts {counted}"));
            }
        }
        Ok(())
    }

    /// A further client is let in exactly if there is room, by the loop that has the fewest.
    fn check_admission(&mut self) -> Result<(), String> {
        let before = self.group.connections();
        let host = self.choose(|choices| choices.pick(&[0, 1, 2, 3, 100]));
        let of_host = self.connections_of(host);
        let has_room = before.iter().sum::<usize>() < self.setup.max_connections
            && self.setup.per_address.is_none_or(|most| of_host < most);
        let port = self.next_port;
        self.next_port += 1;
        let mut visitor = Visitor::connect(&mut self.group, port, host);
        visitor.ask(&mut self.group);
        self.visitors.push(visitor);
        self.settle()?;
        let Some(visitor) = self.visitors.last() else { return Ok(()) };
        let is_in = visitor.stage == Stage::Open;
        if is_in != has_room {
            return Err(format!("{before:?} connections, {of_host} of it, and {visitor:?}"));
        }
        let ledger = self.ledger.borrow();
        match ledger.members.get(&port) {
            Some(member) if before.get(member.number) != before.iter().min() => {
                Err(format!("loop {} of {before:?} has got one more", member.number))
            }
            _ => Ok(()),
        }
    }

    /// An answer that some loop has deferred comes, whichever loop gives it, and gives its place back.
    fn check_answers(&mut self) -> Result<(), String> {
        for number in 0..self.group.count() {
            let port = self.next_port;
            self.next_port += 1;
            self.group.knock(SocketAddr::from(([10, 0, 0, 101], port)));
            self.group.link(port, |link| link.send(b"GET /later HTTP/1.1\r\nHost: h\r\n\r\n"));
            self.settle()?;
            let pending = self.ledger.borrow_mut().deferred.pop();
            if let Some(pending) = pending {
                self.group.run(number, |server| pending.answer_on(server, "given"));
                self.settle()?;
                let is_given = |link: &mut Link| link.socket.got.ends_with(b"given");
                let is_given = self.group.link(port, is_given) == Some(true);
                let open = self.group.answers_open();
                if open > 0 || !is_given && self.setup.is_ample {
                    return Err(format!(
                        "an answer that loop {number} gave came: {is_given}; {open} are open"
                    ));
                }
            }
            self.group.link(port, |link| link.end_by_peer(PeerEnd::Shut));
            self.settle()?;
        }
        Ok(())
    }

    fn connections_of(&mut self, host: u8) -> usize {
        let of_host = self.visitors.iter().filter(|visitor| visitor.host == host);
        let ports: Vec<Port> = of_host.map(|visitor| visitor.port).collect();
        let is_there =
            |port: &&Port| self.group.link(**port, |link| link.socket.gone.is_none()) == Some(true);
        ports.iter().filter(is_there).count()
    }

    /// No more sessions are open than may be, of all and of each client.
    pub(super) fn check_limits(&self) -> Result<(), String> {
        let ledger = self.ledger.borrow();
        let open = |port: &Port| ledger.members.get(port).is_some_and(|member| !member.is_over);
        let mut of_hosts: BTreeMap<u8, usize> = BTreeMap::new();
        for visitor in self.visitors.iter().filter(|visitor| open(&visitor.port)) {
            *of_hosts.entry(visitor.host).or_default() += 1;
        }
        let all: usize = of_hosts.values().sum();
        let most = of_hosts.values().max().copied().unwrap_or(0);
        if all > self.setup.max_connections || self.setup.per_address.is_some_and(|it| most > it) {
            return Err(format!("{all} sessions are open, {most} of one client"));
        }
        Ok(())
    }
}
