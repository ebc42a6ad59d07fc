//! Changes of tables, partitions, types and publications, with the DDL capture on the source and
//! without it: either way the lake follows.

mod capture;
mod message;
