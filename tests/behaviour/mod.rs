//! What frazil does, seen from outside: the binary, a real Postgres, an independent reader.

mod random_workload;
