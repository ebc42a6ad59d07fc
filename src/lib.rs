//! frazil: one program that turns a Postgres database into a transactionally consistent Iceberg
//! lakehouse. The map of the house:
//!
//! - [`pipeline`]: the data path, top to bottom. Start there.
//! - [`postgres`]: connection, slot, publication, catalog, COPY: bytes in, facts about them out.
//! - [`window`]: what one lake commit is made of: receive buffer, fold by key, tuple bytes to
//!   Arrow.
//! - [`iceberg`]: files, row deltas, the ledger and the committer.
//! - [`initial_snapshot`]: the copy that comes before the stream.
//! - [`verify`]: whether the lake is the source, at one exact position.
//! - [`publish`]: branches and tags beside the data path: write, audit, publish.
//! - [`config`], [`ops`]: the person's side.

pub mod cli;
pub mod config;
pub mod error;
pub mod iceberg;
pub mod initial_snapshot;
#[doc(hidden)]
pub mod kernels;
pub mod ops;
pub mod pipeline;
pub mod postgres;
pub mod progress;
pub mod publish;
pub mod verify;
pub mod window;
