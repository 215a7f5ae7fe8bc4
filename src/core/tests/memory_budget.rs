//! The memory budget: who has to go, and how often that is looked for.

use super::*;

fn net(process_bytes: usize) -> Net {
    let limits = Limits::new().process_bytes(process_bytes);
    let frame = process_bytes.max(64 << 10);
    Net::new(WebSockets::new().max_frame_size(frame).outbox_bytes(1 << 20).limits(limits))
}

/// The beginning of a binary frame of 131,072 bytes, with so many bytes of it.
fn begin(net: &mut Net, index: LinkId, bytes: usize) {
    net.input(index, b"\x82\xff\0\0\0\0\0\x02\0\0\0\0\0\0");
    more(net, index, bytes);
}

fn more(net: &mut Net, index: LinkId, bytes: usize) {
    net.input(index, &vec![0; bytes]);
}

#[test]
fn the_largest_goes_and_not_the_one_that_grew_last() {
    let mut net = net(200_000);
    let sessions: Vec<LinkId> = (0..5).map(|_| net.open()).collect();
    begin(&mut net, sessions[2], 120_000);
    for &index in &[sessions[0], sessions[1], sessions[3]] {
        begin(&mut net, index, 10_000);
    }
    net.expect(&[]);
    // Capacity is what counts, and it grows in steps.
    begin(&mut net, sessions[4], 0);
    (0..15).for_each(|_| more(&mut net, sessions[4], 4_000));
    net.expect(&["error Try again later", "close 1013 unclean"]);
    assert!(net.take(sessions[2]).ends_with(b"\x03\xf5Try again later"));
    assert_eq!(net.core.stats().over_budget, 1);
    for &index in &[sessions[0], sessions[1], sessions[3], sessions[4]] {
        assert!(net.take(index).is_empty() && net.gone(index).is_none());
    }
}

#[test]
fn what_cannot_be_freed_by_a_close_is_freed_by_a_reset() {
    let mut net = net(50_000);
    let deaf = net.open();
    net.room(deaf, 100);
    // 60,000 bytes of one frame that has begun: the Close has to wait behind it.
    net.text(deaf, "big");
    assert_eq!(net.gone(deaf), Some(Disposal::Reset));
    net.expect(&["error Try again later", "close 1013 unclean"]);
    assert_eq!(net.core.stats().over_budget, 2);
    net.expect_empty();
}

#[test]
fn the_budget_holds_under_many_who_press_against_it_and_each_look_ends_one() {
    let budget = 1 << 20;
    let mut net = net(budget);
    let mut sent = 0;
    let mut looks = 0;
    for round in 0..400 {
        let index = net.open();
        begin(&mut net, index, 0);
        for _ in 0..(round % 7) {
            more(&mut net, index, 9_000);
            sent += 9_000;
            assert!(net.core.shared.bytes_held <= budget);
        }
        let ended = net.core.stats().over_budget;
        assert!(ended - looks <= 2);
        looks = ended;
    }
    assert!(looks > 50, "the budget was never spent");
    // At most one is ended for what the average holds.
    let held_by_one = budget as u64 / net.core.connections.slab.len() as u64;
    assert!(looks * held_by_one / 2 <= sent, "{looks} looks for {sent} bytes");
}

#[test]
fn requests_and_answers_are_held_to_it_too() {
    let limits = Limits::new().process_bytes(20_000);
    let mut net = Net::new(WebSockets::new().limits(limits));
    let slow: Vec<LinkId> = (0..10).map(|_| net.accept()).collect();
    for &index in &slow {
        net.input(index, format!("GET / HTTP/1.1\r\nHost: {}", "h".repeat(4_000)).as_bytes());
    }
    let gone = slow.iter().filter(|&&index| net.gone(index).is_some()).count();
    assert!((5..=6).contains(&gone), "{gone} gone");
    assert!(net.core.shared.bytes_held <= 20_000);
}
