//! What frazil does, seen from outside: the binary, a real Postgres, an independent reader.

mod bad_input;
mod bank_transfer;
mod ddl;
mod dml;
mod garbled_stream;
mod memory;
mod order;
mod position_checks;
mod random_workload;
mod refresh;
mod restart_and_stop;
mod scene;
mod server_errors_in_the_stream;
mod snapshot_with_writers;
mod toast;
mod types;
