//! Intake against a real Postgres.

mod acknowledge;
mod catalog;
mod garbage;
mod login;
mod same_events;
mod server;
mod slots;
mod stall;
