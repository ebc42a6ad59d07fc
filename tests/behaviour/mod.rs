//! What frazil does, seen from outside: the binary, a real Postgres, an independent reader.

mod archive;
mod bad_input;
mod bank_transfer;
mod bare_tables;
mod ddl;
mod dml;
mod garbled_stream;
mod half_open;
mod hidden_keys;
mod identity_switch;
mod keyless;
mod memory;
mod not_replicated;
mod order;
mod position_checks;
mod positions;
mod random_workload;
mod refresh;
mod restart_and_stop;
pub(crate) mod scene;
mod server_errors_in_the_stream;
mod snapshot_with_writers;
mod stored_values;
mod toast;
mod too_large;
pub(crate) mod types;
