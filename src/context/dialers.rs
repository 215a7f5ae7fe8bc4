//! The dialers of a loop as the application sees them, and what it wants of them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};

use crate::context::stats::Stats;
use crate::structures::ids::SessionId;
use crate::structures::slab::{GenerationBits, Key, Slab};
#[cfg(feature = "tls")]
use crate::transport::tls::connector::TlsConnectors;
use crate::words::close::CloseInfo;
use crate::words::connect::{ConnectStep, DialerState};

/// A session that is dialled, and dialled again whenever it ends: by
/// [`Application::connect`](crate::Application::connect) or
/// [`ServerRef::connect`](crate::ServerRef::connect). Clones name the same one; dropping them changes
/// nothing.
///
/// ```
/// use wirewheel::client::{ConnectOptions, Dialer, DialerState};
/// use wirewheel::{Application, Call, on_message};
/// use std::time::Duration;
/// fn module(app: &mut Application) {
///     let cloud: Dialer = app.connect("ws://cloud.example/dev/42", ConnectOptions::new(), |_call: &Call| {
///         on_message(|session, message| session.send(message))
///     });
///     let key = cloud.key(); // for other threads: Handle::defer and ServerRef::find_dialer
///     app.every(Duration::from_secs(60), move |server| match (cloud.state(), cloud.session()) {
///         (DialerState::Open, Some(session)) => drop(server.send_to(session, "still here")),
///         (DialerState::Waiting, _) => cloud.reconnect_now(),
///         _ if server.stats().sessions_open > 100 => cloud.stop(),
///         _ => {}
///     });
///     # let _ = key;
/// }
/// ```
#[derive(Clone)]
pub struct Dialer {
    pub(crate) cell: Rc<DialerCell>,
}

/// Names a dialer for other threads; see [`Dialer::key`].
///
/// ```
/// use wirewheel::Handle;
/// use wirewheel::client::DialerKey;
/// fn stop_dialling(server: &Handle, cloud: DialerKey) {
///     let _ = server.defer(move |server| {
///         if let Some(cloud) = server.find_dialer(cloud) {
///             cloud.stop();
///         }
///     });
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DialerKey(pub(crate) Key);

/// All dialers of a loop.
#[derive(Default)]
pub(crate) struct Dialers {
    known: RefCell<Option<Slab<Rc<DialerCell>>>>,
    bits: GenerationBits,
    /// Those that are to be begun.
    fresh: RefCell<Vec<NewDialer>>,
    /// Those of which something is wanted, or of which a session has ended.
    touched: RefCell<Vec<Rc<DialerCell>>>,
    /// How many stand where: where several loops publish their statistics, to walk all of them would cost
    /// each turn their number.
    connecting: Cell<u64>,
    open: Cell<u64>,
    waiting: Cell<u64>,
    /// What dialers with equal options have of TLS.
    #[cfg(feature = "tls")]
    pub(crate) tls: TlsConnectors,
}

/// A dialer that is to be begun.
pub(crate) struct NewDialer {
    pub(crate) cell: Rc<DialerCell>,
    /// How it connects, which is a matter of the application: a layer above knows.
    pub(crate) connector: Box<dyn Any>,
}

/// What is known of one.
pub(crate) struct DialerCell {
    dialers: Weak<Dialers>,
    pub(crate) key: Key,
    /// Changed by [`set_state`](Self::set_state), which counts.
    state: Cell<DialerState>,
    pub(crate) session: Cell<Option<SessionId>>,
    wish: Cell<Option<Wish>>,
    listed: Cell<bool>,
    /// The present session has heard something from the other side.
    pub(crate) heard: Cell<bool>,
    /// How the session ended, until that is acted on.
    ended: Cell<Option<Box<CloseInfo>>>,
}

/// What the application wants of a dialer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    ReconnectNow,
    Stop,
    /// One after the other, both within a turn.
    StopAndReconnect,
}

/// More dialers than a program has.
pub(crate) const DIALERS_MAX: usize = 1 << 16;

impl Dialers {
    /// Those of a loop whose generations have these bits.
    pub(crate) fn of_loop(bits: GenerationBits) -> Self {
        Self { bits, ..Self::default() }
    }

    /// Enters a dialer; `None` if there are too many.
    pub(crate) fn add(self: &Rc<Self>, connector: Box<dyn Any>) -> Option<Dialer> {
        let mut known = self.known.borrow_mut();
        let empty = || Slab::unreserved(DIALERS_MAX).of_loop(self.bits);
        let known = known.get_or_insert_with(empty);
        // The key is known only once the slot is taken.
        let nobody = Key { index: u32::MAX, generation: 0 };
        let key = known.insert(Rc::new(self.cell(nobody))).ok()?;
        let cell = Rc::new(self.cell(key));
        *known.get_mut(key)? = Rc::clone(&cell);
        self.connecting.set(self.connecting.get() + 1);
        self.fresh.borrow_mut().push(NewDialer { cell: Rc::clone(&cell), connector });
        Some(Dialer { cell })
    }

    /// The same while the application is set up, when nothing can be reported: one too many has no effect.
    pub(crate) fn add_for_setup(self: &Rc<Self>, connector: Box<dyn Any>) -> Dialer {
        let nobody = Key { index: u32::MAX, generation: 0 };
        self.add(connector).unwrap_or_else(|| Dialer { cell: Rc::new(self.cell(nobody)) })
    }

    fn cell(self: &Rc<Self>, key: Key) -> DialerCell {
        DialerCell {
            dialers: Rc::downgrade(self),
            key,
            state: Cell::new(DialerState::Connecting(ConnectStep::Lookup)),
            session: Cell::new(None),
            wish: Cell::new(None),
            listed: Cell::new(false),
            heard: Cell::new(false),
            ended: Cell::new(None),
        }
    }

    pub(crate) fn find(&self, key: DialerKey) -> Option<Dialer> {
        let known = self.known.borrow();
        known.as_ref()?.get(key.0).map(|cell| Dialer { cell: Rc::clone(cell) })
    }

    /// Forgets one that has stopped, if nobody has it but this table and the loop: true if so.
    pub(crate) fn forget(&self, index: u32) -> bool {
        let mut known = self.known.borrow_mut();
        let Some(known) = known.as_mut() else { return false };
        let is_unused = known.at(index).is_some_and(|cell| Rc::strong_count(cell) <= 2);
        is_unused && known.remove(index).is_some()
    }

    /// Looks at the connectors of those that are to be begun, until one is no good.
    pub(crate) fn check_fresh(
        &self,
        check: impl Fn(&dyn Any) -> Result<(), String>,
    ) -> Result<(), String> {
        self.fresh.borrow().iter().try_for_each(|new| check(&*new.connector))
    }

    /// The statistics, with how many dialers stand where.
    pub(crate) fn counted_in(&self, stats: Stats) -> Stats {
        Stats {
            dialers_connecting: self.connecting.get(),
            dialers_open: self.open.get(),
            dialers_waiting: self.waiting.get(),
            ..stats
        }
    }

    /// How many stand where one stands that has not stopped.
    fn count_in(&self, state: DialerState) -> Option<&Cell<u64>> {
        match state {
            DialerState::Connecting(_) => Some(&self.connecting),
            DialerState::Open => Some(&self.open),
            DialerState::Waiting => Some(&self.waiting),
            DialerState::Stopped => None,
        }
    }

    /// Whether as many as were counted stand in each state.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn check(&self) -> Result<(), String> {
        let known = self.known.borrow();
        let states = || known.iter().flat_map(Slab::iter).map(|(_, cell)| cell.state());
        let counted = [&self.connecting, &self.open, &self.waiting].map(Cell::get);
        let connecting =
            states().filter(|state| matches!(state, DialerState::Connecting(_))).count();
        let of = |wanted| states().filter(|state| *state == wanted).count();
        let walked = [connecting, of(DialerState::Open), of(DialerState::Waiting)];
        let is_right = walked.map(|count| count as u64) == counted;
        is_right.then_some(()).ok_or_else(|| format!("{walked:?} dialers, and {counted:?} counted"))
    }

    /// Whether there is something to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.fresh.borrow().is_empty() || !self.touched.borrow().is_empty()
    }

    pub(crate) fn take_fresh(&self) -> Option<NewDialer> {
        self.fresh.borrow_mut().pop()
    }

    pub(crate) fn take_touched(&self) -> Option<Rc<DialerCell>> {
        let cell = self.touched.borrow_mut().pop()?;
        cell.listed.set(false);
        Some(cell)
    }
}

impl fmt::Debug for Dialers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialers").field("fresh", &self.fresh.borrow().len()).finish_non_exhaustive()
    }
}

impl DialerCell {
    pub(crate) fn state(&self) -> DialerState {
        self.state.get()
    }

    pub(crate) fn set_state(&self, state: DialerState) {
        let before = self.state.replace(state);
        let Some(dialers) = self.dialers.upgrade() else { return };
        if let Some(count) = dialers.count_in(before) {
            count.set(count.get().saturating_sub(1));
        }
        if let Some(count) = dialers.count_in(state) {
            count.set(count.get() + 1);
        }
    }

    /// Its session is over.
    pub(crate) fn note_end(self: &Rc<Self>, close: &CloseInfo) {
        self.ended.set(Some(Box::new(close.clone())));
        self.touch();
    }

    pub(crate) fn take_end(&self) -> Option<Box<CloseInfo>> {
        self.ended.take()
    }

    pub(crate) fn is_to_stop(&self) -> bool {
        matches!(self.wish.get(), Some(Wish::Stop | Wish::StopAndReconnect))
    }

    pub(crate) fn take_wish(&self) -> Option<Wish> {
        self.wish.take()
    }

    /// Has the loop look at it in its next turn, or at the end of the present one.
    pub(crate) fn touch(self: &Rc<Self>) {
        let Some(dialers) = self.dialers.upgrade() else { return };
        if !self.listed.replace(true) {
            dialers.touched.borrow_mut().push(Rc::clone(self));
        }
    }
}

impl Dialer {
    /// Where it stands.
    pub fn state(&self) -> DialerState {
        self.cell.state.get()
    }

    /// The session, while there is one.
    pub fn session(&self) -> Option<SessionId> {
        self.cell.session.get()
    }

    /// Makes the next attempt in the next turn of the loop, whatever delay was to come before it, but no
    /// sooner than a millisecond after the last one failed; also after a stop. While an attempt is under way
    /// or there is a session, it does nothing.
    pub fn reconnect_now(&self) {
        self.want(Wish::ReconnectNow);
    }

    /// Makes no further attempt, and closes the session with 1000 if there is one.
    pub fn stop(&self) {
        self.want(Wish::Stop);
    }

    fn want(&self, wish: Wish) {
        // A stop ends what there is, which to reconnect does not; any other wish makes those before it void.
        let wish = match wish {
            Wish::ReconnectNow if self.cell.is_to_stop() => Wish::StopAndReconnect,
            wish => wish,
        };
        self.cell.wish.set(Some(wish));
        self.cell.touch();
    }

    /// Names it for other threads, which reach it by
    /// [`ServerRef::find_dialer`](crate::ServerRef::find_dialer).
    ///
    /// ```
    /// use wirewheel::Handle;
    /// use wirewheel::client::DialerKey;
    /// fn network_is_up(server: &Handle, cloud: DialerKey) {
    ///     let _ = server.defer(move |server| {
    ///         if let Some(cloud) = server.find_dialer(cloud) {
    ///             cloud.reconnect_now();
    ///         }
    ///     });
    /// }
    /// ```
    pub fn key(&self) -> DialerKey {
        DialerKey(self.cell.key)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("state", &self.state())
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

/// One that has stopped and that nobody has any more is forgotten.
impl Drop for Dialer {
    fn drop(&mut self) {
        if self.cell.state.get() == DialerState::Stopped {
            self.cell.touch();
        }
    }
}
