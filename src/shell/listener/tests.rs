use mio::Poll;

use super::*;
use crate::words::listen::ListenOptions;

struct Refused {
    listener: Listener,
    reserve: Reserve,
    now: Time,
    _poll: Poll,
}

impl Refused {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let opened = Opened::open("127.0.0.1:0".into(), &ListenOptions::new()).unwrap().remove(0);
        let listener = Listener::new(opened, poll.registry(), Token(0)).unwrap();
        Self { listener, reserve: Reserve::new(), now: Time::ZERO, _poll: poll }
    }

    /// One turn of the loop, in which every accept fails: how many there were.
    fn turn(&mut self, code: i32) -> usize {
        let mut asked = 0;
        while self.listener.is_due(self.now) && asked < 64 {
            asked += 1;
            let error = io::Error::from_raw_os_error(code);
            match self.listener.judge(Err(error), self.now, &mut self.reserve) {
                AcceptOutcome::Again => {}
                AcceptOutcome::Exhausted(told) => {
                    assert_eq!(told.raw_os_error(), Some(code));
                    break;
                }
                AcceptOutcome::Connection(..) | AcceptOutcome::Drained => panic!("of {code}"),
            }
        }
        asked
    }
}

/// A filter of system calls answers like this, and whoever waits goes on waiting.
#[test]
fn an_accept_that_always_fails_is_asked_ever_less_often() {
    let codes = [
        libc::EPERM,
        libc::EACCES,
        libc::ENOSYS,
        libc::EOPNOTSUPP,
        libc::ENETDOWN,
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::EINVAL,
    ];
    for code in codes {
        let mut refused = Refused::new();
        let mut asked = 0;
        for _ in 0..1_000 {
            asked += refused.turn(code); // a turn every 10 ms
            refused.now = refused.now.after(Duration::from_millis(10));
        }
        assert!((10..50).contains(&asked), "error {code}: asked {asked} times in 10 s");
    }
}

#[test]
fn a_few_that_came_to_nothing_hold_nobody_up() {
    let mut refused = Refused::new();
    for code in [libc::ECONNABORTED, libc::EPERM].repeat(5) {
        let error = io::Error::from_raw_os_error(code);
        let outcome = refused.listener.judge(Err(error), refused.now, &mut refused.reserve);
        assert!(matches!(outcome, AcceptOutcome::Again) && refused.listener.is_due(refused.now));
    }
    let nobody = refused.listener.accept(refused.now, &mut refused.reserve);
    assert!(matches!(nobody, AcceptOutcome::Drained));
    assert_eq!(refused.listener.failures, 0);
}
