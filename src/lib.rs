//! frazil: one program that turns a Postgres database into a transactionally consistent Iceberg
//! lakehouse. The map of the house:
//!
//! - [`pipeline`]: the data path, top to bottom. Start there.
//! - [`postgres`]: connection, slot, publication, catalog, COPY: bytes in, facts about them out.
//! - [`window`]: what one lake commit is made of: receive buffer, fold by key, tuple bytes to Arrow.
//! - [`iceberg`]: files, row deltas, the ledger and the committer.
//! - [`initial_snapshot`]: the copy that comes before the stream.
//! - [`cli`], [`config`], [`ops`]: the person's side.

pub mod error;
pub mod postgres;
pub mod progress;
pub mod window;
