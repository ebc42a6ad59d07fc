//! What frazil does, seen from outside: the binary, a real Postgres, an independent reader.

mod bank_transfer;
mod ddl;
mod dml;
mod position_checks;
mod random_workload;
mod restart_and_stop;
mod scene;
mod snapshot_with_writers;
mod toast;
