//! Every option of a session: its name, unit, default, and what values are refused.

use std::time::Duration;

use crate::words::bounds::{LARGEST_SIZE, check_size, check_time};
use crate::words::rate::Rate;

/// What a session may do and how long it may take: the options that a server sets for all, a
/// route for its sessions, and some of them a session for itself at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionOptions {
    pub(crate) ping_period: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_timeout: Duration,
    pub(crate) pause_timeout: Option<Duration>,
    pub(crate) max_frame_size: usize,
    /// `None`: the same as `max_frame_size`.
    pub(crate) max_message_size: Option<usize>,
    /// `None`: as the limits of the server and of what arrives have it, see `resolve`.
    pub(crate) max_outgoing_message_size: Option<usize>,
    outgoing: usize,
    /// What may come and what goes out in one frame for sure; 0 until the limits are known.
    short_incoming: usize,
    short_outgoing: usize,
    pub(crate) max_fragments: u32,
    pub(crate) max_piecewise_message_size: u64,
    pub(crate) outbox_bytes: usize,
    pub(crate) outbox_messages: usize,
    pub(crate) on_outbox_full: OutboxOverflow,
    pub(crate) message_rate: Option<Rate>,
    pub(crate) message_rate_closes: bool,
    pub(crate) masking: bool,
    pub(crate) accept_unmasked_frames: bool,
    pub(crate) lenient_rsv: bool,
    /// This side is the client: its frames are masked, the peer's are not (RFC 6455 section 5.1).
    #[cfg(feature = "client")]
    pub(crate) is_client: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            ping_period: Some(Duration::from_secs(15)),
            timeout: Duration::from_secs(15),
            idle_timeout: None,
            write_timeout: Duration::from_secs(30),
            pause_timeout: None,
            max_frame_size: 64 << 10,
            max_message_size: None,
            max_outgoing_message_size: None,
            outgoing: LARGEST_SIZE,
            short_incoming: 0,
            short_outgoing: 0,
            max_fragments: 65_536,
            max_piecewise_message_size: 1 << 30,
            outbox_bytes: 64 << 10,
            outbox_messages: 4_096,
            on_outbox_full: OutboxOverflow::Close,
            message_rate: None,
            message_rate_closes: false,
            masking: false,
            accept_unmasked_frames: false,
            lenient_rsv: false,
            #[cfg(feature = "client")]
            is_client: false,
        }
    }
}

/// What happens to a message that does not fit in the outbox of a peer that does not read (Ktor's
/// `ChannelOverflow`, with what it lacks).
///
/// ```
/// use wirewheel::error::{HandlerError, SendError};
/// use wirewheel::options::OutboxOverflow;
/// use wirewheel::{HandlerResult, Session};
/// fn stream(session: &mut Session<'_>, pieces: &mut Vec<String>) -> HandlerResult {
///     session.set_on_outbox_full(OutboxOverflow::Block); // or on the route, or for all
///     while let Some(piece) = pieces.last() {
///         match session.send(piece) {
///             Ok(()) => drop(pieces.pop()),
///             Err(HandlerError::Send(SendError::Full { .. })) => break, // on_drain goes on
///             Err(other) => return Err(other),
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxOverflow {
    /// It is refused with [`SendError::Full`](crate::error::SendError::Full) and the session ends with
    /// 1013. Only a new connection can help such a peer.
    #[default]
    Close,
    /// It is dropped and counted; see [`Session::dropped`](crate::Session::dropped).
    DropNewest,
    /// The oldest messages that have not begun are dropped to make room, and counted; if all of them make
    /// too little, they stay, and the newest is dropped. Messages of flows are none of these: each flow has
    /// a [policy](crate::flow::BufferOverflow) of its own. Where an extension encodes each message in the
    /// context of those before (no [`share_key`](crate::extension::Extension::share_key): deflate with a
    /// server context), what waits cannot be taken back, and the newest is dropped.
    DropOldest,
    /// It is refused with [`SendError::Full`](crate::error::SendError::Full), and nothing else happens: the
    /// application waits for [`on_drain`](crate::Handler::on_drain).
    Block,
}

impl SessionOptions {
    /// The defaults of a session that is dialled.
    #[cfg(feature = "client")]
    pub(crate) fn of_client() -> Self {
        // A router on the way forgets a silent connection after a minute or less.
        let ping_period = Some(Duration::from_secs(20));
        Self { ping_period, is_client: true, masking: true, ..Self::default() }
    }

    /// The most bytes of an assembled message.
    pub(crate) fn message_limit(&self) -> usize {
        self.max_message_size.unwrap_or(self.max_frame_size)
    }

    /// The most bytes of a message in one frame.
    #[inline]
    pub(crate) fn short_limit(&self) -> usize {
        self.short_incoming
    }

    /// The most bytes of a message that is sent.
    pub(crate) fn outgoing_limit(&self) -> usize {
        self.outgoing
    }

    /// The most bytes of a message that is sent in one frame.
    #[inline]
    pub(crate) fn short_outgoing_limit(&self) -> usize {
        self.short_outgoing
    }

    /// The same of a message in pieces, as far as it can be a length in memory.
    pub(crate) fn piecewise_limit(&self) -> usize {
        usize::try_from(self.max_piecewise_message_size).unwrap_or(usize::MAX)
    }

    /// Fills in what depends on the limits of the server.
    pub(crate) fn resolve(&mut self, process_bytes: usize) {
        // What may arrive may be sent back.
        let default = (process_bytes / 4).max(self.message_limit()).min(LARGEST_SIZE);
        self.outgoing = self.max_outgoing_message_size.unwrap_or(default);
        self.short_incoming = self.message_limit().min(self.max_frame_size);
        self.short_outgoing = self.outgoing.min(self.max_frame_size);
    }

    /// Refuses zero and absurd values by name.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(period) = self.ping_period {
            check_time("ping_period", period)?;
        }
        if let Some(idle) = self.idle_timeout {
            check_time("idle_timeout", idle)?;
        }
        if let Some(pause) = self.pause_timeout {
            check_time("pause_timeout", pause)?;
        }
        check_time("timeout", self.timeout)?;
        check_time("write_timeout", self.write_timeout)?;
        check_size("max_frame_size", self.max_frame_size)?;
        check_size("max_message_size", self.message_limit())?;
        check_size("max_outgoing_message_size", self.max_outgoing_message_size.unwrap_or(1))?;
        check_size("max_fragments", self.max_fragments as usize)?;
        if self.max_piecewise_message_size == 0 {
            return Err("max_piecewise_message_size is 0: it must be at least 1".into());
        }
        if let Some(rate) = self.message_rate {
            rate.check("message_rate")?;
        }
        check_size("outbox_bytes", self.outbox_bytes)?;
        check_size("outbox_messages", self.outbox_messages)
    }
}

/// The setters of the options that both a server and a route have, written once.
///
/// The type has `fn change(&mut self, impl FnOnce(&mut SessionOptions) + 'static)`; the macro is told
/// how the setters take and give back their receiver.
macro_rules! session_option_setters {
    ($this:ident: [$($receiver:tt)+] -> $Own:ty) => {
        $crate::words::options::session_option_setters! { @setters $this [$($receiver)+] [$Own]
            /// Time between pings (Ktor's `pingPeriod`); `None` switches pings off. Default 15 s.
            ping_period: optional Duration, |options, period| options.ping_period = period;
            /// Ends a session (1001) from which nothing arrived for this long, pongs included.
            /// Default `None`: off.
            idle_timeout: optional Duration, |options, time| options.idle_timeout = time;
            /// How long to wait for the pong that matches a ping (Ktor's `timeout`); then the
            /// session ends with 1011 "Ping timeout". Default 15 s.
            timeout: required Duration, |options, time| options.timeout = time;
            /// Ends a session (1013) whose peer takes less of what waits in this time than
            /// [`min_rate`](crate::Limits::min_rate) asks for; also one (1008) whose peer began a
            /// message and lets less of it come, while it is read. Whoever moves bytes may take as long
            /// as it needs, for the last bytes of a closed session too. Default 30 s.
            write_timeout: required Duration, |options, time| options.write_timeout = time;
            /// Ends a session (1013) of which nothing is read for this long: because of
            /// [`Session::pause`](crate::Session::pause), of a flow that suspended it, or of
            /// `message_rate`. Each message that is taken in between begins the time anew. Default
            /// `None`: off.
            pause_timeout: optional Duration, |options, time| options.pause_timeout = time;
            /// The most payload bytes of a frame (Ktor's `maxFrameSize`), in and out: a larger one
            /// that arrives ends the session with 1009, a larger send is cut into frames. Default
            /// 64 KiB.
            max_frame_size: required usize, |options, bytes| options.max_frame_size = bytes;
            /// The most bytes of a message that arrives, assembled or inflated; a larger one ends the
            /// session with 1009. Default: `max_frame_size`.
            max_message_size: required usize, |options, bytes| options.max_message_size = Some(bytes);
            /// The most bytes of a message that is sent; it goes out in frames of `max_frame_size`. A
            /// larger one is refused with [`SendError::TooBig`](crate::error::SendError::TooBig), which ends
            /// nothing, also where a hook returns it. Default: a quarter of `process_bytes`, or
            /// `max_message_size` where that is more.
            max_outgoing_message_size: required usize,
                |options, bytes| options.max_outgoing_message_size = Some(bytes);
            /// The most frames of one message; more end the session with 1008. Default 65,536.
            max_fragments: required u32, |options, count| options.max_fragments = count;
            /// The most bytes of a message whose handler takes it in [`pieces`](crate::pieces), inflated or
            /// not, whatever its frames; a larger one ends the session with 1009. Nothing of it is kept, so
            /// that `max_frame_size`, `max_message_size` and `max_fragments` do not bound what arrives
            /// there. Default 1 GiB.
            max_piecewise_message_size: required u64,
                |options, bytes| options.max_piecewise_message_size = bytes;
            /// The most bytes that wait for a peer that does not read; one message is always taken
            /// while nothing waits. Default 64 KiB.
            outbox_bytes: required usize, |options, bytes| options.outbox_bytes = bytes;
            /// The most messages that wait for a peer that does not read. Default 4,096.
            outbox_messages: required usize, |options, count| options.outbox_messages = count;
            /// What happens to a message that does not fit in the outbox. Default
            /// [`OutboxOverflow::Close`](crate::options::OutboxOverflow::Close): 1013.
            on_outbox_full: required $crate::words::options::OutboxOverflow,
                |options, policy| options.on_outbox_full = policy;
            /// The rate of messages that a session takes (in raw sessions: of data frames). Over it,
            /// reading pauses until there is a token, and the peer is slowed down by its own
            /// connection; nothing is lost, and pings are answered meanwhile. A burst of at least 16
            /// ms of the rate uses it fully. A session that was sent a message keeps some 300
            /// bytes for it. Default `None`: off.
            message_rate: optional $crate::words::rate::Rate, |options, rate| options.message_rate = rate;
            /// Ends a session (1008) that is over `message_rate` instead of pausing it. Default
            /// false.
            message_rate_closes: required bool, |options, on| options.message_rate_closes = on;
            /// What is allowed for parity with Ktor although RFC 6455 forbids it: see
            /// [`compat`](crate::compat). Default: nothing.
            compat: required $crate::words::compat::Compat, |options, compat| {
                options.masking = compat.masking;
                options.accept_unmasked_frames = compat.accept_unmasked_frames;
                options.lenient_rsv = compat.lenient_rsv;
            };
        }
    };
    (@setters $this:ident $receiver:tt $Own:tt
        $($(#[$doc:meta])* $name:ident: $kind:ident $T:ty, |$options:ident, $value:ident| $set:expr;)+
    ) => {$(
        $crate::words::options::session_option_setters! { @one $this $receiver $Own
            $(#[$doc])* $name: $kind $T, |$options, $value| $set }
    )+};
    (@one $this:ident [$($receiver:tt)+] [$Own:ty]
        $(#[$doc:meta])* $name:ident: optional $T:ty, |$options:ident, $value:ident| $set:expr
    ) => {
        $(#[$doc])*
        pub fn $name($($receiver)+, value: impl Into<Option<$T>>) -> $Own {
            let $value: Option<$T> = value.into();
            $this.change(move |$options| $set);
            $this
        }
    };
    (@one $this:ident [$($receiver:tt)+] [$Own:ty]
        $(#[$doc:meta])* $name:ident: required $T:ty, |$options:ident, $value:ident| $set:expr
    ) => {
        $(#[$doc])*
        pub fn $name($($receiver)+, $value: $T) -> $Own {
            $this.change(move |$options| $set);
            $this
        }
    };
}
pub(crate) use session_option_setters;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_are_refused_by_name() {
        let zero_ping =
            SessionOptions { ping_period: Some(Duration::ZERO), ..SessionOptions::default() };
        assert!(zero_ping.check().unwrap_err().starts_with("ping_period is 0ns"));
        let zero_frame = SessionOptions { max_frame_size: 0, ..SessionOptions::default() };
        assert!(zero_frame.check().unwrap_err().starts_with("max_frame_size is 0"));
    }
}
