//! The dialers of a simulation, each with what has to be true of it: when it may dial, and when it has to.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::context::dialers::Dialer;
use crate::core::dial_orders::Attempt;
use crate::flow::shared_flow::SharedFlow;
use crate::protocol::connect_error::ConnectError;
use crate::session::Session;
use crate::words::close::{CloseCode, CloseInfo, ClosedBy};
use crate::words::connect::{DialerState, Reconnect};
use crate::words::time::Time;

/// As late as a deadline may be: two ticks of the wheel, and a little.
const LATE: Duration = Duration::from_millis(20);
/// The first delay of all is drawn from up to this.
const SPREAD: Duration = Duration::from_secs(3);
/// A server may ask to be left alone for so long, and those whom it asks come back spread over `SPREAD`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// One dialer, as its hooks and its sessions have it.
#[derive(Clone)]
pub(crate) struct Uplink {
    book: Rc<RefCell<Book>>,
    news: SharedFlow,
}

/// What is drawn of a dialer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) timeout: Duration,
    pub(crate) first: Duration,
    pub(crate) largest: Duration,
}

/// What is known of a dialer.
struct Book {
    dialer: Option<Dialer>,
    clock: Rc<Cell<Time>>,
    terms: Terms,
    stands: Stands,
    /// No attempt was made yet.
    is_fresh: bool,
    /// Failures since all was well.
    failures: u32,
    /// The present session has heard something, and when it began.
    heard: bool,
    since: Time,
    /// It was told to stop while there was a session, and to dial again behind that.
    is_stopping: bool,
    restarts: bool,
    /// Sessions so far.
    opened: usize,
    failed: usize,
    /// When the last attempt failed.
    failed_at: Option<Time>,
    /// The name of the last one.
    session: usize,
    violations: Vec<String>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// The next attempt is to be made then, not before.
    Due(Time),
    /// An attempt was begun then.
    Trying(u32, Time),
    Open,
    /// A session is over, and what follows is about to be decided.
    Lost,
    Stopped,
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = self.book.borrow();
        let mut shown = f.debug_struct("Uplink");
        shown.field("stands", &book.stands).field("terms", &book.terms);
        shown.field("opened", &book.opened).field("session", &book.session).finish()
    }
}

impl Uplink {
    pub(crate) fn new(clock: &Rc<Cell<Time>>, terms: Terms, news: &SharedFlow) -> Self {
        let book = Book {
            dialer: None,
            clock: Rc::clone(clock),
            terms,
            stands: Stands::Due(clock.get()),
            is_fresh: true,
            failures: 0,
            heard: false,
            since: Time::ZERO,
            is_stopping: false,
            restarts: false,
            opened: 0,
            failed: 0,
            failed_at: None,
            session: 0,
            violations: Vec::new(),
        };
        Self { book: Rc::new(RefCell::new(book)), news: news.clone() }
    }

    pub(crate) fn set_dialer(&self, dialer: Dialer) {
        self.book.borrow_mut().dialer = Some(dialer);
    }

    /// Something is wanted of the loop for an attempt.
    pub(crate) fn note_order(&self, attempt: Attempt) {
        let book = &mut *self.book.borrow_mut();
        if book.dialer.as_ref().is_some_and(|dialer| dialer.cell.key.index == attempt.dial) {
            book.begin(attempt.round);
        }
    }

    /// An attempt has failed, and `next` would be the delay: what is decided has to be what happens.
    pub(crate) fn note_failure(&self, error: &ConnectError, next: Duration, decided: Reconnect) {
        self.book.borrow_mut().fail(error, next, decided);
    }

    /// The same of a session that is over.
    pub(crate) fn note_loss(&self, close: &CloseInfo, next: Duration, decided: Reconnect) {
        self.book.borrow_mut().lose(close, next, decided);
    }

    /// There is a session.
    pub(crate) fn note_open(&self, name: usize) {
        let book = &mut *self.book.borrow_mut();
        if !matches!(book.stands, Stands::Trying(..)) {
            book.violation("a session that was not dialled, or a second one");
        }
        (book.stands, book.since) = (Stands::Open, book.clock.get());
        (book.heard, book.is_stopping, book.restarts) = (false, false, false);
        book.opened += 1;
        book.session = name;
    }

    pub(crate) fn note_heard(&self) {
        self.book.borrow_mut().heard = true;
    }

    /// The session collects the news.
    pub(crate) fn collect(&self, session: &mut Session<'_>) {
        if session.collect(&self.news).is_err() {
            self.book.borrow_mut().violation("the news could not be collected");
        }
    }

    /// Its session is over.
    pub(crate) fn note_end(&self, close: &CloseInfo) {
        let book = &mut *self.book.borrow_mut();
        if book.stands != Stands::Open {
            book.violation("the end of a session that it does not have");
        }
        let now = book.clock.get();
        if book.heard || now.since(book.since) >= book.terms.largest {
            book.failures = 0;
        }
        let is_fulfilled =
            close.closed_by() == ClosedBy::Local && close.code() == CloseCode::NORMAL;
        book.stands = if std::mem::take(&mut book.restarts) {
            Stands::Due(now)
        } else if is_fulfilled || book.is_stopping {
            Stands::Stopped
        } else {
            Stands::Lost
        };
        book.is_stopping = false;
    }

    /// An attempt has failed, and its hook may act: some ask for the next one at once, now and then.
    pub(crate) fn act_on_failure(&self) {
        let is_impatient = {
            let book = self.book.borrow();
            book.terms.first == Duration::from_millis(1) && book.failed % 4 == 1
        };
        if is_impatient {
            self.reconnect_now();
        }
    }

    pub(crate) fn reconnect_now(&self) {
        let dialer = {
            let book = &mut *self.book.borrow_mut();
            match book.stands {
                Stands::Due(_) | Stands::Stopped => book.stands = Stands::Due(book.clock.get()),
                Stands::Open => book.restarts = book.is_stopping,
                Stands::Trying(..) | Stands::Lost => {}
            }
            book.dialer.clone()
        };
        dialer.iter().for_each(Dialer::reconnect_now);
    }

    pub(crate) fn stop(&self) {
        let dialer = {
            let book = &mut *self.book.borrow_mut();
            if book.stands == Stands::Open {
                (book.is_stopping, book.restarts) = (true, false);
            } else {
                book.stands = Stands::Stopped;
            }
            book.dialer.clone()
        };
        dialer.iter().for_each(Dialer::stop);
    }

    /// What must hold after every step; `drains`: the program has begun to stop.
    pub(crate) fn check(&self, drains: bool) -> Result<(), String> {
        let book = &mut *self.book.borrow_mut();
        if drains && book.stands != Stands::Open {
            book.stands = Stands::Stopped;
        }
        if let Some(violation) = book.violations.first() {
            return Err(violation.clone());
        }
        book.check_times()?;
        let Some(dialer) = &book.dialer else { return Ok(()) };
        let state = dialer.state();
        let is_right = match book.stands {
            Stands::Due(_) if book.is_fresh => true, // the loop has not had a turn since
            Stands::Due(_) => state == DialerState::Waiting,
            Stands::Trying(..) => matches!(state, DialerState::Connecting(_)),
            Stands::Open if book.is_stopping => state == DialerState::Stopped,
            Stands::Open => state == DialerState::Open,
            Stands::Lost => false,
            // One that the loop never came to is not told.
            Stands::Stopped => book.is_fresh || state == DialerState::Stopped,
        };
        let has_session = dialer.session().is_some();
        if is_right && has_session == (book.stands == Stands::Open) {
            return Ok(());
        }
        Err(format!(
            "a dialer is {state:?} (session: {has_session}) and has to be {:?}",
            book.stands
        ))
    }

    /// When something has to happen next of its own.
    pub(crate) fn next(&self) -> Option<Time> {
        let book = self.book.borrow();
        match book.stands {
            Stands::Due(at) => Some(at),
            Stands::Trying(_, since) => Some(since.after(book.terms.timeout)),
            Stands::Open | Stands::Lost | Stands::Stopped => None,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.book.borrow().stands == Stands::Stopped
    }

    /// The name of the session that it has.
    pub(crate) fn session(&self) -> Option<usize> {
        let book = self.book.borrow();
        (book.stands == Stands::Open).then_some(book.session)
    }

    /// Sessions so far, and failures.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let book = self.book.borrow();
        (book.opened, book.failed)
    }
}

impl Book {
    fn violation(&mut self, what: &str) {
        let text = format!("{:?}, {:?}: {what}", self.clock.get(), self.stands);
        self.violations.push(text);
    }

    fn begin(&mut self, round: u32) {
        let now = self.clock.get();
        match self.stands {
            Stands::Due(_) if self.failed_at == Some(now) => {
                self.violation("it dials in the moment in which it failed");
            }
            Stands::Due(at) if at <= now => {}
            Stands::Due(_) => self.violation("it dials before its delay is over"),
            Stands::Trying(known, _) if known == round => return, // a further step of it
            _ => self.violation("it dials where nothing is to be dialled"),
        }
        self.is_fresh = false;
        self.stands = Stands::Trying(round, now);
    }

    fn fail(&mut self, error: &ConnectError, next: Duration, decided: Reconnect) {
        self.failed += 1;
        let Stands::Trying(_, since) = self.stands else {
            return self.violation("an attempt has failed that was not made");
        };
        let now = self.clock.get();
        self.failed_at = Some(now);
        if matches!(error, ConnectError::Timeout(_)) && now < since.after(self.terms.timeout) {
            self.violation("an attempt has ended before its time");
        }
        let (status, wait) = match error {
            ConnectError::Refused { head, .. } | ConnectError::Proxy { head, .. } => {
                let wait = head.header("retry-after").and_then(|wait| wait.parse().ok());
                (Some(head.status()), wait.map(Duration::from_secs))
            }
            _ => (None, None),
        };
        let is_ours = matches!(status, Some(401 | 403 | 404 | 407 | 410))
            || matches!(error, ConnectError::Panic(_));
        self.go_on(next, is_ours, wait, decided);
    }

    fn lose(&mut self, close: &CloseInfo, next: Duration, decided: Reconnect) {
        if self.stands != Stands::Lost {
            self.violation("a session is lost that is not over");
        }
        let refuses_us = close.closed_by() == ClosedBy::Remote
            && matches!(u16::from(close.code()), 1008 | 4000..=4999);
        self.go_on(next, refuses_us, None, decided);
    }

    fn go_on(
        &mut self,
        next: Duration,
        at_the_cap: bool,
        wait: Option<Duration>,
        decided: Reconnect,
    ) {
        let (least, most) = self.bounds(at_the_cap, wait);
        if next < least || next > most {
            self.violation(&format!("a delay of {next:?}, not from {least:?} to {most:?}"));
        }
        let now = self.clock.get();
        self.stands = match decided {
            Reconnect::Retry => Stands::Due(now.after(next)),
            Reconnect::After(delay) => Stands::Due(now.after(delay.max(Duration::from_millis(1)))),
            Reconnect::Stop => Stands::Stopped,
        };
    }

    /// From where to where the next delay is drawn.
    fn bounds(&mut self, at_the_cap: bool, wait: Option<Duration>) -> (Duration, Duration) {
        let Terms { first, largest, .. } = self.terms;
        let failures = self.failures;
        self.failures = if at_the_cap { 30 } else { (failures + 1).min(30) };
        let (least, most) = if at_the_cap {
            (largest / 2, largest)
        } else if failures == 0 {
            (Duration::ZERO, SPREAD.min(largest))
        } else {
            let full = first.saturating_mul(1 << failures.min(30)).min(largest);
            (full / 2, full)
        };
        let least = least.saturating_sub(Duration::from_micros(1)); // it is drawn in microseconds
        let Some(wait) = wait else { return (least, most) };
        let wait = wait.min(RETRY_AFTER_MAX);
        (least.max(wait), most.max(wait + SPREAD))
    }

    fn check_times(&self) -> Result<(), String> {
        let now = self.clock.get();
        match self.stands {
            Stands::Due(at) if now > at.after(LATE) => {
                Err(format!("a dialer was to dial at {at:?} and has not, at {now:?}"))
            }
            Stands::Trying(_, since) if now > since.after(self.terms.timeout).after(LATE) => {
                Err(format!("an attempt of {since:?} is not over at {now:?}"))
            }
            _ => Ok(()),
        }
    }
}
