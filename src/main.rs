//! The thin binary: see `frazil::cli`.
fn main() {}
