//! What Postgres versions differ in, and a source of more than one server: failover, standbys,
//! prepared transactions, origins.

mod failover;
mod majors;
mod origin;
mod prepared;
