//! Values: what Postgres sends and what stands in the Arrow column. Postgres is the oracle.

mod decoder;
pub(crate) mod extension_tables;
mod extremes;
mod forms;
mod garbage;
mod lake_types;
mod oracle;
mod overrides;
mod postgres;
mod random;
mod sql_ascii;
mod value_rules;
