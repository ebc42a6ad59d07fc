//! Case 167: bytes that no sound server sends, and settings that no sane person types. Each target
//! runs for `FRAZIL_FUZZ_SECONDS` (2 by default, 60 in CI) over mutated sound inputs and the corpus
//! in `fuzz/corpus`; `FRAZIL_SEED` replays a run. For longer, guided by coverage: `fuzz/README.md`.
//!
//! No input makes a target panic, take long, or allocate much more than it is long.

mod shape;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use frazil::postgres::pgoutput::{parse, parse_streamed};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use targets::TARGETS;

/// Bytes that a target may hold at once, whatever it is given: builders of Arrow, tables of names.
const BYTES_BASE: u64 = 1 << 20;
/// ... and for each byte of its input. `1e131071` is the most that a few bytes can ask for.
const BYTES_PER_BYTE: u64 = 1 << 14;
/// The longest that one input may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(5);

fn seconds() -> Duration {
    let seconds = std::env::var("FRAZIL_FUZZ_SECONDS").map_or(2, |n| n.parse().unwrap());
    Duration::from_secs(seconds)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    names.sort();
    names.into_iter().map(|name| std::fs::read(name).unwrap()).collect()
}

/// One input; a failure shows it, to be put into the corpus.
fn one(name: &str, target: fn(&[u8]), input: &[u8]) {
    let since = Instant::now();
    let mut outcome = Ok(());
    let used = allocation_counter::measure(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
    });
    let shown = || format!("{name}: b\"{}\"", input.escape_ascii());
    if let Err(panic) = outcome {
        eprintln!("{}", shown());
        std::panic::resume_unwind(panic);
    }
    let most = BYTES_BASE + BYTES_PER_BYTE * input.len() as u64;
    assert!(used.bytes_max <= most, "{} bytes at once for {}", used.bytes_max, shown());
    assert!(since.elapsed() < PATIENCE, "{:?} for {}", since.elapsed(), shown());
}

fn run(name: &str) {
    let seed = std::env::var("FRAZIL_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    println!("FRAZIL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let target = TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
    let corpus = corpus(name);
    corpus.iter().for_each(|input| one(name, target, input));
    let (end, mut count) = (Instant::now() + seconds(), 0_u64);
    while Instant::now() < end {
        for _ in 0..50 {
            let mut input = match random.random_range(0..12) {
                0 => corpus.choose(&mut random).cloned().unwrap_or_default(),
                _ => shape::sound(name, &mut random),
            };
            if random.random_range(0..10) > 0 {
                shape::mutate(&mut random, &mut input);
            }
            one(name, target, &input);
            count += 1;
        }
    }
    println!("{name}: {count} inputs");
}

// cases: 167 holds
#[test]
fn pgoutput() {
    run("pgoutput");
}

// cases: 167 holds
#[test]
fn copy_binary() {
    run("copy_binary");
}

// cases: 167 holds
#[test]
fn numeric() {
    run("numeric");
}

// cases: 167 holds
#[test]
fn arrays() {
    run("arrays");
}

// cases: 167 holds
#[test]
fn text_values() {
    run("text_values");
}

#[test]
fn config() {
    run("config");
}

/// What is written down as the manual has it is read as what it says; within a stream segment too.
#[test]
fn what_is_encoded_is_parsed() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        for (bytes, message) in shape::messages(&mut random) {
            assert_eq!(parse(&bytes, 0, bytes.len()).unwrap(), message);
            if b"RYT".contains(&bytes[0]) {
                let streamed = [&bytes[..1], &[0, 0, 0, 9], &bytes[1..]].concat();
                let parsed = parse_streamed(&streamed, 0, streamed.len()).unwrap();
                assert_eq!(parsed, (9, message));
            }
        }
    }
}
