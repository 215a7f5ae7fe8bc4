//! The outbox: what is written in which pieces, what may be dropped, and what it counts as.

use super::*;
use crate::structures::wire::scripted::ScriptedWire;
use proptest::prelude::*;

/// A wire that takes so much at a time, then nothing.
fn wire_taking(takes: Vec<usize>, out: Vec<u8>) -> ScriptedWire {
    ScriptedWire { takes, out, ..ScriptedWire::default() }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    if payload.len() < 126 {
        bytes.push(payload.len() as u8);
    } else {
        bytes.extend([126, (payload.len() >> 8) as u8, payload.len() as u8]);
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// The frames that went out: first byte and payload.
fn parse(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let len = frame_len(bytes, 0);
        let header = if bytes[1] & 127 == 126 { 4 } else { 2 };
        frames.push((bytes[0], bytes[header..len].to_vec()));
        bytes = &bytes[len..];
    }
    frames
}

fn drain(outbox: &mut Outbox, out: Vec<u8>) -> Vec<u8> {
    let mut wire = wire_taking(vec![usize::MAX; 100], out);
    assert_eq!(outbox.write_to(&mut wire, &mut SpareBuffers::new(0)), Ok(Flush::Done));
    assert_eq!((outbox.buffered_bytes(), outbox.control_bytes()), (0, 0));
    wire.out
}

#[test]
fn control_overtakes_data_but_not_inside_a_frame() {
    let mut outbox = Outbox::default();
    outbox.push_frames(frame(0x81, b"first"));
    outbox.push_frames(frame(0x81, b"second"));
    let mut wire = wire_taking(vec![3], Vec::new());
    assert_eq!(outbox.write_to(&mut wire, &mut SpareBuffers::new(0)), Ok(Flush::Blocked));
    assert!(outbox.push_control(&frame(0x8a, b"pong")));
    let frames = parse(&drain(&mut outbox, wire.out));
    let kinds: Vec<u8> = frames.iter().map(|(first, _)| *first).collect();
    assert_eq!(kinds, [0x81, 0x8a, 0x81]);
}

#[test]
fn a_close_waits_for_the_data_and_a_close_now_replaces_it() {
    for now in [false, true] {
        let mut outbox = Outbox::default();
        outbox.push_frames(frame(0x81, b"first"));
        outbox.push_frames(frame(0x81, b"second"));
        let mut wire = wire_taking(vec![1], Vec::new());
        assert_eq!(outbox.write_to(&mut wire, &mut SpareBuffers::new(0)), Ok(Flush::Blocked));
        let close = frame(0x88, b"\x03\xe8");
        if now {
            {
                outbox.drop_what_has_not_begun();
                outbox.push_frames(close.clone());
            }
        } else {
            outbox.push_frames(close.clone())
        }
        let frames = parse(&drain(&mut outbox, wire.out));
        let payloads: Vec<&[u8]> = frames.iter().map(|(_, payload)| &payload[..]).collect();
        if now {
            assert_eq!(payloads, [&b"first"[..], b"\x03\xe8"]);
        } else {
            assert_eq!(payloads, [&b"first"[..], b"second", b"\x03\xe8"]);
        }
    }
}

/// Of one turn that sent and closed, with a socket that took less: the Close went first.
#[test]
fn a_close_in_a_rest_stays_behind_its_data() {
    let frames = [&b"\x82\x02ab"[..], b"\x89\x00", b"\x82\x01c", b"\x88\x02\x03\xe8"].concat();
    for written in 0..frames.len() {
        let mut outbox = Outbox::default();
        outbox.push_rest(&frames, written, &mut SpareBuffers::new(0));
        let mut wire = wire_taking(vec![100], frames[..written].to_vec());
        assert_eq!(outbox.write_to(&mut wire, &mut SpareBuffers::new(0)), Ok(Flush::Done));
        assert!(wire.out.ends_with(b"c\x88\x02\x03\xe8"), "cut at {written}: {:?}", wire.out);
        assert_eq!(wire.out.len(), frames.len());
    }
}

#[test]
fn the_oldest_whole_message_that_has_not_begun_is_dropped() {
    let mut outbox = Outbox::default();
    outbox.push_frames(frame(0x01, b"open"));
    outbox.push_frames(frame(0x81, b"begun"));
    outbox.push_frames([frame(0x01, b"o"), frame(0x80, b"ld")].concat());
    outbox.push_shared(frame(0x82, b"new").into(), 0);
    outbox.push_frames(frame(0x88, b""));
    let mut wire = wire_taking(vec![7], Vec::new());
    assert_eq!(outbox.write_to(&mut wire, &mut SpareBuffers::new(0)), Ok(Flush::Blocked));
    assert_eq!(outbox.drop_oldest(), Some(7));
    assert_eq!(outbox.drop_oldest(), Some(5));
    assert_eq!(outbox.drop_oldest(), None, "neither what has begun nor the Close");
    let out = drain(&mut outbox, wire.out);
    let kinds: Vec<u8> = parse(&out).iter().map(|(first, _)| *first).collect();
    assert_eq!(kinds, [0x01, 0x81, 0x88]);
    assert_eq!(outbox.held, 0);
}

#[test]
fn a_shared_message_goes_on_where_it_stopped() {
    let shared: Rc<[u8]> = frame(0x82, &[7; 200]).into();
    for written in 0..shared.len() {
        let mut outbox = Outbox::default();
        outbox.push_shared(Rc::clone(&shared), written);
        assert!(outbox.push_control(&frame(0x8a, b"pong")));
        assert_eq!(outbox.buffered_bytes(), shared.len() - written);
        assert!(outbox.memory() >= shared.len());
        let frames = parse(&drain(&mut outbox, shared[..written].to_vec()));
        assert_eq!(frames.len(), 2);
        assert_eq!(Rc::strong_count(&shared), 1);
    }
}

#[test]
fn a_comment_among_events_is_dropped_with_none_of_them() {
    let mut outbox = Outbox::default();
    outbox.push_rest_of_events(b"data: a\n\n:\n\ndata: b\n\n", 0);
    let dropped: Vec<_> = std::iter::from_fn(|| outbox.drop_oldest()).collect();
    assert_eq!(dropped, [9, 9]);
    assert_eq!(drain(&mut outbox, Vec::new()), b":\n\n");
}

#[test]
fn an_answer_is_never_interrupted() {
    let mut outbox = Outbox::default();
    outbox.push_opaque(b"HTTP/1.1 101".to_vec());
    assert!(outbox.push_control(&frame(0x89, b"")));
    assert_eq!(drain(&mut outbox, Vec::new()), b"HTTP/1.1 101\x89\x00");
}

#[test]
fn the_control_lane_is_bounded() {
    let mut outbox = Outbox::default();
    outbox.push_frames(frame(0x82, b"data"));
    let pong = frame(0x8a, &[0; 125]);
    let taken = (0..1000).filter(|_| outbox.push_control(&pong)).count();
    assert_eq!(taken, CONTROL_BYTES_MAX / pong.len());
}

/// A peer that takes as much as comes, one frame late, is held that frame and no more.
#[test]
fn a_control_lane_that_is_never_empty_gives_back_what_went_out() {
    let mut outbox = Outbox::default();
    let pong = frame(0x8a, &[7; 80]);
    assert!(outbox.push_control(&pong));
    for _ in 0..10_000 {
        assert!(outbox.push_control(&pong));
        let mut wire = wire_taking(vec![pong.len()], Vec::new());
        assert_eq!(outbox.write_to(&mut wire, &mut SpareBuffers::new(0)), Ok(Flush::Blocked));
        assert_eq!(wire.out, pong);
        assert!(outbox.memory() <= CONTROL_BYTES_MAX, "{} held", outbox.memory());
    }
}

/// An echo that the peer takes little by little, among control frames.
#[test]
fn a_part_of_a_message_waits_in_its_buffer_which_comes_back() {
    let message = Rc::new(Assembled::Binary(vec![7; 1 << 20]));
    let (mut outbox, mut spare) = (Outbox::default(), SpareBuffers::new(8 << 20));
    outbox.push_received(Rc::clone(&message), 1_000..(1 << 20));
    assert!(outbox.push_control(&frame(0x8a, b"pong")));
    outbox.push_frames(frame(0x81, b"next"));
    assert_eq!(outbox.buffered_bytes(), (1 << 20) - 1_000 + 6);
    assert!(outbox.memory() >= 1 << 20);
    let mut wire = wire_taking(vec![500, 300_000, 10], Vec::new());
    for _ in 0..3 {
        assert_eq!(outbox.write_to(&mut wire, &mut spare), Ok(Flush::Blocked));
    }
    drop(message); // the hook is over
    assert_eq!(spare.bytes(), 0);
    wire.then_takes = usize::MAX;
    assert_eq!(outbox.write_to(&mut wire, &mut spare), Ok(Flush::Done));
    let (rest, behind) = wire.out.split_at((1 << 20) - 1_000);
    assert!(rest.iter().all(|byte| *byte == 7));
    assert_eq!(behind, [frame(0x8a, b"pong"), frame(0x81, b"next")].concat());
    assert_eq!((spare.bytes(), outbox.held), (1 << 20, 0));
}

proptest! {
    /// A rest cut at every byte, then short writes of any size with control frames in between:
    /// legal frames, data in order, every control frame whole.
    #[test]
    fn any_cut_and_any_writes_give_legal_frames(
        sizes in proptest::collection::vec(
            (prop_oneof![0usize..20, 120usize..300], 0u8..4), 1..6),
        cut in any::<prop::sample::Index>(),
        writes in proptest::collection::vec((0usize..60, any::<bool>()), 0..40),
    ) {
        let mut turn = Vec::new();
        let mut data = Vec::new();
        for (number, (size, kind)) in sizes.iter().enumerate() {
            let payload = vec![number as u8; *size];
            match kind {
                0 => turn.extend(frame(0x8a, &payload[..payload.len().min(125)])),
                1 => {
                    turn.extend(frame(0x01, &payload));
                    turn.extend(frame(0x80, &payload));
                    data.extend([(0x01, payload.clone()), (0x80, payload)]);
                }
                _ => {
                    turn.extend(frame(0x82, &payload));
                    data.push((0x82, payload));
                }
            }
        }
        let written = cut.index(turn.len());
        let mut outbox = Outbox::default();
        outbox.push_rest(&turn, written, &mut SpareBuffers::new(0));
        let mut out = turn[..written].to_vec();
        let mut pongs = 0;
        for (take, pong) in writes {
            if pong {
                prop_assert!(outbox.push_control(&frame(0x8a, b"later")));
                pongs += 1;
            }
            let mut wire = wire_taking(vec![take], out);
            outbox.write_to(&mut wire, &mut SpareBuffers::new(0)).unwrap();
            out = wire.out;
        }
        let frames = parse(&drain(&mut outbox, out));
        let got: Vec<_> = frames.iter().filter(|(first, _)| !is_control(*first)).cloned().collect();
        prop_assert_eq!(got, data);
        let later = frames.iter().filter(|(first, p)| *first == 0x8a && p == b"later").count();
        prop_assert_eq!(later, pongs);
    }
}
