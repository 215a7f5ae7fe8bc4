//! Frames in pieces, against the reader of whole ones that the oracle has.

use super::*;
use crate::protocol::frame::{Masking, write_frame_with};
use crate::protocol::oracle::framewise::{Frames, Whole, frames};
use crate::protocol::oracle::verdict::pieces;
use crate::words::message::Rsv;
use proptest::prelude::*;

const RULES: FrameRules = FrameRules {
    max_frame_size: 1 << 16,
    max_coded_frame_size: 1 << 16,
    max_message_size: 1 << 16,
    max_fragments: 8,
    masking: Masking::Required,
    allowed_rsv: 7,
    claimed_rsv: 0,
};

/// Every frame of `bytes`, which arrive cut at `cuts`.
fn read(bytes: &[u8], cuts: &[usize], assembly: Assembly) -> Result<Vec<Whole>, ProtocolError> {
    let Frames { whole, fault, .. } = frames(pieces(bytes, cuts).into_iter(), &RULES, assembly);
    fault.map_or(Ok(whole), Err)
}

fn written(frames: &[Whole]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (fin, rsv, opcode, payload) in frames {
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        write_frame_with(&mut bytes, *fin, Rsv::from_bits(*rsv), *opcode, payload, mask);
    }
    bytes
}

/// A session that takes messages in pieces takes any length; on 32-bit targets with all that a usize can say.
#[test]
fn a_frame_whose_end_no_usize_can_say_has_not_come() {
    let rules = FrameRules {
        max_frame_size: usize::MAX,
        max_coded_frame_size: usize::MAX,
        max_message_size: usize::MAX,
        ..RULES
    };
    for length in [usize::MAX, usize::MAX - 13, usize::MAX - 14, usize::MAX >> 1] {
        let length = (length as u64) & (u64::MAX >> 1); // RFC 6455 section 5.2: the first bit is 0
        let bytes = [&[0x82, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4, 5]].concat();
        assert_eq!(whole_frame(&bytes, &rules), Ok(None), "{length}");
    }
}

#[test]
fn fragments_out_of_order_are_refused() {
    use OpCode::{Continuation, Text};
    let count = |list: &[(bool, OpCode)]| {
        let list: Vec<_> = list.iter().map(|&(fin, op)| (fin, 0, op, vec![1])).collect();
        read(&written(&list), &[], Assembly::EveryFrame).map(|frames| frames.len())
    };
    assert_eq!(count(&[(true, Continuation)]), Err(ProtocolError::UnexpectedContinuation));
    assert_eq!(count(&[(false, Text), (true, Text)]), Err(ProtocolError::UnfinishedMessage));
    assert_eq!(count(&[(false, Text), (true, Continuation), (true, Text)]), Ok(3));
    let after_the_end = [(false, Text), (true, Continuation), (true, Continuation)];
    assert_eq!(count(&after_the_end), Err(ProtocolError::UnexpectedContinuation));
    let many = [&[(false, Text)][..], &[(false, Continuation); 8]].concat();
    assert_eq!(count(&many), Err(ProtocolError::TooManyFragments { limit: 8 }));
}

#[test]
fn memory_grows_with_what_arrives() {
    let mut bytes = written(&[(true, 0, OpCode::Binary, vec![0; 60_000])]);
    let mut slot = None;
    next_step(&mut slot, &mut bytes[..1_000], &RULES, Assembly::EveryFrame).unwrap();
    let memory = slot.as_deref().map_or(0, PartialFrame::payload_memory);
    assert!((992..1_100).contains(&memory), "{memory}");
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_frames(
        messages in proptest::collection::vec(
            (proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..4),
             any::<bool>(), 0u8..8), 0..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        raw: bool,
    ) {
        let mut list = Vec::new();
        for (fragments, ping, rsv) in messages {
            let last = fragments.len() - 1;
            for (number, payload) in fragments.into_iter().enumerate() {
                let opcode = if number == 0 { OpCode::Binary } else { OpCode::Continuation };
                list.push((number == last, rsv, opcode, payload));
                if ping {
                    list.push((true, 0, OpCode::Ping, b"between".to_vec()));
                }
            }
        }
        let bytes = written(&list);
        let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        let assembly = if raw { Assembly::EveryFrame } else { Assembly::ControlOnly };
        prop_assert_eq!(read(&bytes, &cuts, assembly), Ok(list));
    }
}
