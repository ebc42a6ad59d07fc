//! What frazil does, seen from outside: the binary, a real Postgres, an independent reader.

mod ddl;
mod dml;
mod random_workload;
mod scene;
