//! `--tables 'public.*,!public.audit_*'`: which tables are followed.

use std::fmt;

use crate::error::{Error, Result};

/// Table patterns in order; the last one that matches decides. A list that begins with an exclusion
/// begins from all tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    includes: bool,
}

impl Patterns {
    /// Reads a comma-separated list. `*` stands for any characters, `?` for one; without a dot the
    /// pattern is a table in `public`.
    pub fn parse(list: &str) -> Result<Self> {
        let mut patterns = Vec::new();
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (text, includes) = match part.strip_prefix('!') {
                Some(rest) => (rest.trim(), false),
                None => (part, true),
            };
            if text.is_empty() {
                return Err(Error::config("BAD_PATTERN", format!("`{part}` in `{list}` is empty"))
                    .with_cure(
                        "write patterns as schema.table, for instance public.*,!public.audit_*",
                    ));
            }
            let text = match text {
                "*" => "*.*".to_owned(),
                text if text.contains('.') => text.to_owned(),
                text => format!("public.{text}"),
            };
            patterns.push(Pattern { text, includes });
        }
        if patterns.first().is_none_or(|first| !first.includes) {
            patterns.insert(0, Pattern { text: "*.*".to_owned(), includes: true });
        }
        Ok(Self(patterns))
    }

    /// The one table `namespace.name`, besides what `these` select.
    #[must_use]
    pub fn with(these: Option<Self>, table: &str) -> Self {
        let mut patterns = these.map_or_else(Vec::new, |these| these.0);
        patterns.push(Pattern { text: table.to_owned(), includes: true });
        Self(patterns)
    }

    /// Whether `namespace.name` is followed.
    pub fn selects(&self, namespace: &str, name: &str) -> bool {
        let table = format!("{namespace}.{name}");
        let decides = self.0.iter().rev().find(|pattern| matches(&pattern.text, &table));
        decides.is_some_and(|pattern| pattern.includes)
    }

    /// The including patterns that match none of `tables`, except the one for all.
    pub fn unmatched<'a>(&'a self, tables: &[(String, String)]) -> Vec<&'a str> {
        let none = |pattern: &&Pattern| {
            pattern.includes
                && pattern.text != "*.*"
                && !tables.iter().any(|(ns, name)| matches(&pattern.text, &format!("{ns}.{name}")))
        };
        self.0.iter().filter(none).map(|pattern| pattern.text.as_str()).collect()
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pattern) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let not = if pattern.includes { "" } else { "!" };
            write!(f, "{comma}{not}{}", pattern.text)?;
        }
        Ok(())
    }
}

/// Glob match with `*` and `?`, over characters; linear but for the last `*` taken back.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || Some(&c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match &mut star {
                Some((at, from)) => {
                    *from += 1;
                    p = *at + 1;
                    t = *from;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_decides() {
        let patterns = Patterns::parse("public.*, !public.audit_*, public.audit_me").unwrap();
        assert!(patterns.selects("public", "orders"));
        assert!(!patterns.selects("public", "audit_log"));
        assert!(patterns.selects("public", "audit_me"));
        assert!(!patterns.selects("other", "orders"));
    }

    #[test]
    fn an_exclusion_alone_begins_from_all() {
        let patterns = Patterns::parse("!public.audit_*").unwrap();
        assert!(patterns.selects("x", "y"));
        assert!(!patterns.selects("public", "audit_1"));
    }

    #[test]
    fn stars_match_in_the_middle() {
        assert!(matches("a*b*c", "a--b--b-c"));
        assert!(!matches("a*b*c", "a--b--b-d"));
        assert!(matches("public.t?", "public.t1"));
        assert!(!matches("public.t?", "public.t10"));
    }

    #[test]
    fn an_include_that_matches_nothing_is_named() {
        let patterns = Patterns::parse("public.orders,public.oders").unwrap();
        let tables = [("public".to_owned(), "orders".to_owned())];
        assert_eq!(patterns.unmatched(&tables), ["public.oders"]);
    }
}
