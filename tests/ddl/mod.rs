//! Changes of tables, partitions, types and publications, with the DDL capture on the source and
//! without it: either way the lake follows.

mod capture;
mod columns;
mod filters;
mod forged;
mod harmless;
mod inheritance;
mod keys;
mod lagging;
mod leaf_by_itself;
mod many_tables;
mod message;
mod names;
mod one_transaction;
mod partitions;
mod partitions_apart;
mod publications;
mod rewrites;
mod stage;
mod types;
