//! What a client of a simulation may do, and draws of it that need no client.

use std::fmt;
use std::time::Duration;

use crate::testing::far_end::frame_of;
use crate::testing::frames::{masked, unmasked};
use crate::testing::network::{Buffers, Pace, PeerEnd};
use crate::testing::simulation::choices::Choices;
use crate::testing::simulation::world::Mood;

/// Something that a client does.
pub(crate) enum Play {
    Send(Vec<u8>),
    /// Sends a whole request, and shuts its side behind it.
    SendLast(Vec<u8>),
    /// Sends a whole 101: what follows are frames.
    #[cfg(feature = "client")]
    Switch(Vec<u8>),
    ReadPiece(usize),
    WritePiece(usize),
    Room(usize),
    Block(Duration),
    Pace(Pace),
    BreakIn(usize),
    BreakOut(usize),
    End(PeerEnd),
}

impl fmt::Debug for Play {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => {
                let start = bytes.get(..30).unwrap_or(bytes).escape_ascii();
                write!(f, "sends {} bytes, {start}", bytes.len())
            }
            Self::SendLast(bytes) => write!(f, "sends {} bytes, and shuts its side", bytes.len()),
            #[cfg(feature = "client")]
            Self::Switch(_) => f.write_str("switches"),
            Self::ReadPiece(bytes) => write!(f, "is read in pieces of {bytes}"),
            Self::WritePiece(bytes) => write!(f, "is written in pieces of {bytes}"),
            Self::Room(bytes) => write!(f, "takes {bytes}"),
            Self::Block(time) => write!(f, "takes nothing for {time:?}"),
            Self::Pace(pace) => write!(f, "reads like this: {pace:?}"),
            Self::BreakIn(bytes) => write!(f, "breaks after sending {bytes}"),
            Self::BreakOut(bytes) => write!(f, "breaks after taking {bytes}"),
            Self::End(end) => write!(f, "ends: {end:?}"),
        }
    }
}

/// What lies between the server and a client, and how that one reads at first.
pub(crate) fn draw_reader(choices: &mut Choices, mood: Mood) -> (Buffers, Pace) {
    if mood.is_slow {
        // A window that opens by small steps, so that something is taken all the time.
        let receive = choices.pick(&[1_000, 3_000]);
        let buffers = Buffers { send: choices.pick(&[2_000, 20_000]), receive, segment: 536 };
        return (buffers, draw_pace(choices, mood));
    }
    let buffers = Buffers {
        send: choices.pick(&[2_000, 20_000, 200_000]),
        receive: choices.pick(&[1_000, 10_000, 100_000]),
        segment: choices.pick(&[536, 1_448, 16_000]),
    };
    (buffers, Pace::All)
}

pub(super) fn draw_pace(choices: &mut Choices, mood: Mood) -> Pace {
    if mood.is_slow {
        let every = Duration::from_millis(choices.pick(&[100, 500]));
        return Pace::Steadily { bytes: choices.pick(&[300, 1_000]), every };
    }
    match choices.below(16) {
        0..=5 => Pace::All,
        6 if mood.faults => Pace::Nothing,
        7 if mood.faults && choices.one_in(4) => Pace::Vanished,
        _ => Pace::Steadily {
            bytes: choices.pick(&[300, 3_000, 50_000]),
            every: Duration::from_millis(choices.pick(&[50, 500, 1_000])),
        },
    }
}

pub(super) fn byte(choices: &mut Choices) -> u8 {
    u8::try_from(choices.below(256)).unwrap_or(0)
}

pub(super) fn malformed(choices: &mut Choices, is_server: bool) -> Vec<u8> {
    let frame = |first, payload: &[u8]| frame_of(is_server, first, payload);
    match choices.below(7) {
        0 => frame(0x83, b""),
        // With a mask where there must be none, or the other way round.
        1 if is_server => masked(0x81, b"x"),
        1 => unmasked(0x81, b"x"),
        2 => frame(0x81, b"\xff\xfe"),
        3 => frame(0x88, &[3]),
        4 => frame(0x80, b"continuation of nothing"),
        5 => frame(0xc9, b"a compressed ping"),
        _ => (0..=choices.below(20)).map(|_| byte(choices)).collect(),
    }
}
