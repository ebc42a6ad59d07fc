//! What one lake commit is made of. Pure: bytes in, Arrow out, no I/O.

pub mod relation;
