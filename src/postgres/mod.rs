//! Postgres: connection, slot, publication, catalog, COPY.
//!
//! - [`dsn`], [`hosts`], [`sql`], [`session`]: where the source is, and the two kinds of connection
//!   to it.
//! - [`stream`], [`pgoutput`]: START_REPLICATION's bytes, and what they say.
//! - [`copy_out`]: the rows of a COPY.
//! - [`tunnel`]: a wire of ours under somebody else's client.
//! - [`catalog`], [`tables`], [`slot`], [`publication`]: what the server has; [`unannounced`]: what
//!   changes there without an event.
//! - [`ddl_capture`], [`ddl_message`]: event triggers on the source, and what they say.
//! - [`check`]: whether all that is fit to be replicated.
//! - [`server_error`]: what Postgres's errors mean for frazil.

pub mod catalog;
mod catalog_rows;
pub mod check;
mod check_tables;
pub mod copy_out;
pub mod ddl_capture;
pub mod ddl_message;
pub mod dsn;
pub mod hosts;
pub mod pg_types;
pub mod pgoutput;
mod pgpass;
pub mod publication;
pub mod quote;
pub mod server_error;
pub mod session;
pub mod slot;
mod socket;
pub mod sql;
pub mod stream;
pub mod tables;
mod tls;
pub mod tunnel;
pub mod unannounced;
