//! The data path neither copies nor allocates for a message: twice the messages take no more
//! allocations than what doubles its size now and then.

use frazil::kernels::Kernels;

use crate::support::events::{self, Mix};

/// Allocations of `work`, what it gave aside.
fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let mut given = None;
    let used = allocation_counter::measure(|| given = Some(work()));
    (used.count_total, given.unwrap())
}

/// Vectors and the hash table that double when they are full: once more each for twice the rows.
const GROWTH: u64 = 16;

#[test]
fn a_change_is_folded_where_it_lies() {
    let kernels = Kernels::new(events::relation()).unwrap();
    for mix in [Mix::Inserts, Mix::Mixed] {
        let folded = |changes| {
            let mut received = kernels.received(&events::frames(mix, changes));
            allocations(|| received.fold().unwrap()).0
        };
        let (some, more) = (folded(10_000), folded(20_000));
        assert!(some > 0, "the counter does not count");
        assert!(more <= some + GROWTH, "{mix:?}: {some} allocations, then {more}");
    }
}

#[test]
fn decoding_allocates_by_the_batch() {
    let kernels = Kernels::new(events::relation()).unwrap();
    for mix in [Mix::Inserts, Mix::Mixed] {
        let decoded = |changes| {
            let mut received = kernels.received(&events::frames(mix, changes));
            received.fold().unwrap();
            let segment = received.into_segment().unwrap();
            let (count, batches) = allocations(|| kernels.decode(segment).unwrap());
            (count, batches.len() as u64)
        };
        let (some, more) = (decoded(10_000), decoded(40_000));
        let per_batch = |(count, batches)| count / batches;
        assert!(more.1 > some.1);
        assert!(per_batch(more) <= per_batch(some) + GROWTH, "{mix:?}: {some:?}, then {more:?}");
    }
}

#[test]
fn a_copied_row_is_decoded_where_it_lies() {
    let kernels = Kernels::new(events::relation()).unwrap();
    let copied = |rows| {
        let mut copied = kernels.copied(&events::copy(rows)).unwrap();
        allocations(|| kernels.copy(&mut copied).unwrap()).0
    };
    let (some, more) = (copied(10_000), copied(20_000));
    // Each of ten columns has values, their ends and what is NULL.
    assert!(more <= some + 3 * 10 + GROWTH, "{some} allocations, then {more}");
}
