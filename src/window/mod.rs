//! What one lake commit is made of. Pure: bytes in, Arrow out, no I/O.

mod array;
mod bytes;
mod datetime;
pub mod decode;
mod fixed;
mod float;
pub mod fold;
mod forms;
mod geometry;
mod hstore;
mod interval;
mod json;
mod lists;
mod nested;
mod numeric;
pub mod outcome;
mod reader;
mod record;
pub mod relation;
pub mod render;
mod scalar;
mod scan;
pub mod segment;
mod store;
mod structs;
mod text;
pub mod wire;
