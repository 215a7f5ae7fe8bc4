//! The slab against a map, and its generations.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

#[test]
fn full_is_a_value() {
    let mut slab = Slab::new(2);
    slab.insert('a').unwrap();
    slab.insert('b').unwrap();
    assert_eq!(slab.insert('c'), Err('c'));
    slab.remove(0);
    assert!(slab.insert('c').is_ok());
}

#[test]
fn a_stale_key_finds_nobody_even_after_its_page_was_freed() {
    let mut slab = Slab::new(10);
    let stale = slab.insert(1).unwrap();
    slab.remove(stale.index);
    assert!(slab.pages[0].entries.is_none(), "an empty page is given back");
    let fresh = slab.insert(2).unwrap();
    assert_eq!(fresh.index, stale.index);
    assert_eq!((slab.get(stale), slab.get(fresh)), (None, Some(&2)));
}

#[test]
fn loops_never_give_the_same_key_and_know_their_own() {
    for loops in [2, 3, 4, 5, 64] {
        let mut given = std::collections::HashSet::new();
        for number in 0..loops {
            let bits = GenerationBits::of(number, loops);
            let mut slab = Slab::new(4).of_loop(bits);
            for _ in 0..10 {
                let key = slab.insert(number).unwrap();
                assert!(given.insert(key), "{key:?} of {loops}");
                assert_eq!(bits.owner(key.generation), number);
                slab.remove(key.index);
            }
            let last = bits.fixed | (u32::MAX >> bits.count);
            assert_eq!(bits.after(last), bits.fixed, "it comes round among its own");
        }
    }
    assert_eq!(GenerationBits::of(0, 1), GenerationBits::NONE);
    assert_eq!(GenerationBits::default(), GenerationBits::NONE);
    assert_eq!(GenerationBits::NONE.after(u32::MAX - 1), u32::MAX);
    assert_eq!(GenerationBits::NONE.owner(u32::MAX), 0);
}

#[test]
fn servers_begin_far_from_each_other_whatever_their_loops() {
    for loops in [1, 2, 3, 5, 64] {
        let bits = GenerationBits::of(loops - 1, loops);
        let own = u32::MAX >> bits.count;
        for server in 1..1_500 {
            let first = bits.of_server(server).first;
            assert_eq!((bits.owner(first), bits.of_server(0)), (loops - 1, bits));
            // Of any two servers so many apart, also if the other one has fewer loops.
            let apart = first & own;
            let apart = apart.min(own - apart);
            assert!(apart / 8 >= own / 64 / server, "{server} of {loops}: {apart}");
        }
    }
    let mut slab = Slab::new(1).of_loop(GenerationBits::NONE.of_server(2));
    let key = slab.insert(0).unwrap();
    assert_eq!(key.generation, SERVER_STRIDE.wrapping_mul(2));
    assert_eq!((slab.get(Key { generation: 0, ..key }), slab.get(key)), (None, Some(&0)));
}

#[test]
fn the_lowest_slot_is_used_first() {
    let mut slab = Slab::new(1000);
    for n in 0..200 {
        slab.insert(n).unwrap();
    }
    slab.remove(130);
    slab.remove(3);
    assert_eq!(slab.insert(0).unwrap().index, 3);
    assert_eq!(slab.insert(0).unwrap().index, 130);
    assert_eq!(slab.insert(0).unwrap().index, 200);
}

proptest! {
    #[test]
    fn it_agrees_with_a_map(
        operations in proptest::collection::vec((any::<bool>(), 0u32..150), 1..300),
    ) {
        let mut slab = Slab::new(128);
        let mut model: HashMap<u32, (Key, usize)> = HashMap::new();
        for (step, (add, index)) in operations.into_iter().enumerate() {
            if add {
                match slab.insert(step) {
                    Ok(key) => prop_assert!(model.insert(key.index, (key, step)).is_none()),
                    Err(value) => prop_assert_eq!((value, model.len()), (step, 128)),
                }
            } else {
                let expected = model.remove(&index);
                prop_assert_eq!(slab.remove(index), expected.map(|(_, value)| value));
                if let Some((key, _)) = expected {
                    prop_assert_eq!(slab.get(key), None);
                }
            }
            prop_assert_eq!(slab.len(), model.len());
            for (key, value) in model.values() {
                prop_assert_eq!(slab.get(*key), Some(value));
                prop_assert_eq!(slab.get_mut(*key).copied(), Some(*value));
            }
            let mut from = 0;
            let mut seen = 0;
            while let Some(index) = slab.next_occupied(from) {
                prop_assert!(model.contains_key(&index));
                (from, seen) = (index + 1, seen + 1);
            }
            prop_assert_eq!(seen, model.len());
            let all: HashMap<u32, usize> = slab.iter().map(|(at, value)| (at, *value)).collect();
            let expected = model.iter().map(|(at, (_, value))| (*at, *value)).collect();
            prop_assert_eq!(all, expected);
        }
    }
}
