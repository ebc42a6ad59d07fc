//! What one lake commit is made of. Pure: bytes in, Arrow out, no I/O.

mod array;
mod bytes;
mod datetime;
pub mod decode;
mod fixed;
mod float;
pub mod fold;
pub mod hidden_key;
mod interval;
mod multiset;
mod nested;
mod numeric;
pub mod outcome;
pub mod relation;
pub mod render;
mod scalar;
mod scan;
pub mod segment;
mod store;
mod text;
pub mod wire;
