//! What a name stands for, and for how long.

use super::*;
use crate::flow::shared_flow::SharedFlow;

#[test]
fn a_name_stands_for_its_flow_until_that_is_gone() {
    let mut names = FlowNames::default();
    let (one, two): (SharedFlow, SharedFlow) = (SharedFlow::new(), SharedFlow::new());
    let first: FlowKey<str> = names.name(&one.inner);
    let second: FlowKey<str> = names.name(&two.inner);
    let again: FlowKey<str> = names.name(&one.inner);
    assert_eq!((again.number, first.number == second.number), (first.number, false));
    assert!(names.find(first).is_some_and(|cell| Rc::ptr_eq(&cell, &one.inner)));
    drop(one);
    assert!(names.find(first).is_none());
    let third: FlowKey<str> = names.name(&SharedFlow::<str>::new().inner);
    assert!(third.number > second.number && names.find(second).is_some());
}

#[test]
fn names_of_flows_that_are_gone_are_not_kept() {
    let mut names = FlowNames::default();
    let kept: [SharedFlow; 4] = std::array::from_fn(|_| SharedFlow::new());
    for flow in &kept {
        names.name::<str>(&flow.inner);
    }
    for _ in 0..500 {
        names.name::<str>(&SharedFlow::<str>::new().inner);
        assert!(names.named.len() <= 2 * (kept.len() + 1) + 16, "{}", names.named.len());
    }
    assert_eq!(names.flows().count(), kept.len());
}

#[test]
fn a_name_of_another_server_or_loop_stands_for_nothing() {
    let flow: SharedFlow = SharedFlow::new();
    let all = [(0, 1, 0), (0, 1, 1), (0, 1, 2), (0, 2, 3), (1, 2, 3), (0, 2, 4)];
    let mut all = all.map(|(number, loops, server)| {
        FlowNames::of_loop(GenerationBits::of(number, loops).of_server(server))
    });
    // Each names the same flow anew, as the names of others are none of its own.
    let keys: Vec<FlowKey<str>> = all.iter_mut().map(|names| names.name(&flow.inner)).collect();
    for (at, names) in all.iter().enumerate() {
        let found: Vec<_> =
            (0..).zip(&keys).filter(|(_, key)| names.find(**key).is_some()).collect();
        assert!(found.len() == 1 && found[0].0 == at, "{at}: {found:?}");
    }
}
