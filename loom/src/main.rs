//! The interleavings of what crosses threads, with up to three preemptions: of a loop that sleeps until it is
//! woken, and of those who send to it. A wake-up that is lost shows as a loop that sleeps for ever, which loom calls a deadlock.

mod structures {
    /// In place of the standard library's.
    pub(crate) mod sync {
        pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
        pub(crate) use loom::sync::{Mutex, MutexGuard};
    }
}

/// What the mailbox carries, as far as it looks at it.
mod words {
    pub(crate) mod network {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct ClientKey;
    }
}

mod context;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::Notify;
use loom::thread;

use context::adoptions::Adopted;
use context::commands::StopRequest;
use context::mailbox::{Inbox, Mailbox};
use context::parcels::Parcel;
use words::network::ClientKey;

/// So often a thread is interrupted where it need not wait: faults that need more of it are not known.
const PREEMPTIONS_MAX: usize = 3;

/// What has come to a loop.
#[derive(Debug, Default, PartialEq, Eq)]
struct Came {
    orders: Vec<u32>,
    parcels: usize,
    returned: usize,
    adopted: usize,
    stops: usize,
}

/// The loop: it sleeps until it is woken, and then looks into its mailbox as the driver does.
struct Loop {
    mailbox: Mailbox<u32>,
    inbox: Inbox<u32>,
    /// What ends its sleep, as a descriptor does for epoll: a wake-up before it sleeps is not lost.
    alarm: Arc<Notify>,
}

impl Loop {
    fn new() -> Self {
        let mailbox = Mailbox::default();
        let inbox = mailbox.inbox();
        Self { mailbox, inbox, alarm: Arc::new(Notify::new()) }
    }

    fn register(&self) {
        let alarm = Arc::clone(&self.alarm);
        self.inbox.register(Box::new(move || alarm.notify()));
    }

    /// Sleeps and looks, until all that is expected has come.
    fn run_until(&self, expected: impl Fn(&Came) -> bool) -> Came {
        let mut came = Came::default();
        while !expected(&came) {
            self.alarm.wait();
            self.turn(&mut came);
        }
        came
    }

    fn turn(&self, came: &mut Came) {
        let orders = self.inbox.turn();
        came.stops += usize::from(self.inbox.take_stop().is_some());
        came.parcels += self.inbox.take_parcels().len();
        came.returned += self.inbox.take_returned().len();
        came.orders.extend(orders);
        while self.mailbox.adoptions().pop().is_some() {
            came.adopted += 1;
        }
    }
}

/// Runs a model in all those interleavings, and says how many they were.
fn check(what: &str, model: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(move || {
        counting.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{:>8} interleavings: {what}", count.load(Ordering::Relaxed));
}

fn adopted() -> Adopted {
    let fd = File::open("/dev/null").unwrap().into();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    Adopted { fd, received: Vec::new(), peer, handed: None }
}

fn main() {
    check("orders of two threads, each in its order", || {
        let it = Loop::new();
        it.register();
        let senders: Vec<_> = [10, 20]
            .into_iter()
            .map(|first| {
                let mailbox = it.mailbox.clone();
                thread::spawn(move || {
                    (first..first + 2).for_each(|number| mailbox.send(0, number).unwrap());
                })
            })
            .collect();
        let came = it.run_until(|came| came.orders.len() == 4);
        for first in [10, 20] {
            let own = came.orders.iter().filter(|number| (first..first + 10).contains(*number));
            assert!(own.is_sorted(), "{came:?}");
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
    check("an order and a part of a flow, of two loops", || {
        let it = Loop::new();
        it.register();
        let (one, other) = (it.mailbox.clone(), it.mailbox.clone());
        let one = thread::spawn(move || one.send(0, 1).unwrap());
        let other = thread::spawn(move || assert!(other.send_parcel(Parcel(None))));
        it.run_until(|came| came.orders.len() + came.parcels == 2);
        one.join().unwrap();
        other.join().unwrap();
    });
    check("a part of a flow and a connection, of one loop", || {
        let it = Loop::new();
        it.register();
        let mailbox = it.mailbox.clone();
        let sender = thread::spawn(move || {
            assert!(mailbox.send_parcel(Parcel(None)));
            mailbox.hand_over(adopted()).unwrap();
        });
        it.run_until(|came| came.parcels + came.adopted == 2);
        sender.join().unwrap();
    });
    check("a stop, and a connection that is given back", || {
        let it = Loop::new();
        it.register();
        let (mailbox, returns) = (it.mailbox.clone(), it.mailbox.returns());
        let stops = thread::spawn(move || mailbox.stop(StopRequest));
        let gives_back = thread::spawn(move || returns.send(Some(ClientKey)));
        it.run_until(|came| came.stops + came.returned == 2);
        stops.join().unwrap();
        gives_back.join().unwrap();
    });
    check("what is sent while the loop begins", || {
        let it = Loop::new();
        let mailbox = it.mailbox.clone();
        let sender = thread::spawn(move || mailbox.send(0, 1).unwrap());
        it.register();
        it.run_until(|came| came.orders.len() == 1);
        sender.join().unwrap();
    });
    check("what is sent to a loop that ends: taken, or refused", || {
        let Loop { mailbox, inbox, .. } = Loop::new();
        let (one, other) = (mailbox.clone(), mailbox.clone());
        let one = thread::spawn(move || one.send(0, 1).is_ok());
        let other = thread::spawn(move || other.send_parcel(Parcel(None)));
        drop(inbox);
        one.join().unwrap();
        other.join().unwrap();
        assert!(mailbox.send(0, 1).is_err() && !mailbox.send_parcel(Parcel(None)));
    });
}
