//! The one test binary: one behaviour per file, one folder per area.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, unreachable_pub, reason = "support is written for tests to come")]

mod behaviour;
mod branches;
mod case_list;
mod contract;
#[cfg(feature = "failpoints")]
mod crash;
mod ddl;
mod fuzz;
mod nessie;
mod postgres;
#[cfg(feature = "failpoints")]
mod property;
mod streamed;
mod support;
mod tidy;
mod types;
mod verify;
mod versions;
