//! What tests stand on: a private Postgres, the frazil binary, a real S3 and a real REST catalog, a
//! proxy that breaks them, an independent reader of the lake, and a random workload.

pub mod columns;
pub mod events;
pub mod fault_proxy;
pub mod frazil;
pub mod lake;
pub mod minio;
pub mod nessie;
pub mod postgres;
pub mod process;
pub mod servers;
pub mod shapes;
pub mod stream_faults;
pub mod wire_proxy;
pub mod workload;

mod services_tests;
