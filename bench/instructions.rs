//! One kernel of the data path over bytes that are the same every time, for `bench/instructions`,
//! which runs it under callgrind and counts what happens in [`measured`].
//!
//!     instructions KERNEL ROWS
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "a tool for developers, with what tests use as well"
)]

#[path = "../tests/support/events.rs"]
mod events;

use std::hint::black_box;

use events::Mix;
use frazil::kernels::Kernels;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kernel, rows] = arguments.as_slice() else {
        eprintln!("usage: instructions KERNEL ROWS");
        std::process::exit(2);
    };
    let rows: i64 = rows.parse().unwrap();
    let kernels = Kernels::new(events::relation()).unwrap();
    match kernel.as_str() {
        "fold_inserts" => fold(&kernels, Mix::Inserts, rows),
        "fold_mixed" => fold(&kernels, Mix::Mixed, rows),
        "decode_inserts" => decode(&kernels, Mix::Inserts, rows),
        "decode_mixed" => decode(&kernels, Mix::Mixed, rows),
        "copy" => {
            let mut copied = kernels.copied(&events::copy(rows)).unwrap();
            let batch = measured(|| kernels.copy(&mut copied).unwrap());
            assert_eq!(batch.num_rows(), usize::try_from(rows).unwrap());
        }
        "encode" => {
            let mut received = kernels.received(&events::frames(Mix::Inserts, rows));
            received.fold().unwrap();
            let batches = kernels.decode(received.into_segment().unwrap()).unwrap();
            let bytes = measured(|| kernels.encode(&batches).unwrap());
            println!("{} bytes per row", bytes.len() / usize::try_from(rows).unwrap());
        }
        _ => panic!("no kernel {kernel}"),
    }
}

fn fold(kernels: &Kernels, mix: Mix, rows: i64) {
    let mut received = kernels.received(&events::frames(mix, rows));
    let ended = measured(|| received.fold().unwrap());
    assert_eq!(ended, u64::try_from(rows / 1_000).unwrap());
}

fn decode(kernels: &Kernels, mix: Mix, rows: i64) {
    let mut received = kernels.received(&events::frames(mix, rows));
    received.fold().unwrap();
    let segment = received.into_segment().unwrap();
    let batches = measured(|| kernels.decode(segment).unwrap());
    assert!(!batches.is_empty());
}

/// What is counted: by this name callgrind begins and ends.
#[inline(never)]
fn measured<T>(kernel: impl FnOnce() -> T) -> T {
    black_box(kernel())
}
