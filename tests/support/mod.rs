//! What tests stand on: a private Postgres, the frazil binary, an independent reader of the lake,
//! and a random workload.

pub mod columns;
pub mod frazil;
pub mod lake;
pub mod postgres;
pub mod process;
pub mod shapes;
pub mod workload;
