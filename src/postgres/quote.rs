//! Names and texts as Postgres's grammars take them.

use crate::error::{Error, Result};

/// `name` as a quoted identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a literal of the replication grammar and of SQL with standard_conforming_strings.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// `schema.name`, both quoted.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// Postgres's own rule for slot names, checked before one is sent: `BAD_SLOT_NAME`.
pub fn slot_name(name: &str) -> Result<&str> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if (1..=63).contains(&name.len()) && name.chars().all(fits) {
        return Ok(name);
    }
    Err(Error::config("BAD_SLOT_NAME", format!("`{name}` cannot be a replication slot's name"))
        .with_cure("use 1 to 63 of a-z, 0-9 and _"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(qualified("a\"b", "C d"), "\"a\"\"b\".\"C d\"");
        assert_eq!(literal("it's"), "'it''s'");
    }

    #[test]
    fn slot_names() {
        assert_eq!(slot_name("frazil_1").unwrap(), "frazil_1");
        for bad in ["", "A", "a-b", "ä", &"x".repeat(64)] {
            assert_eq!(slot_name(bad).unwrap_err().code(), "BAD_SLOT_NAME");
        }
    }
}
