//! Intake against a real Postgres.

mod acknowledge;
mod catalog;
mod check;
mod garbage;
mod large_reads;
mod login;
mod same_events;
mod server;
mod slots;
mod stall;
