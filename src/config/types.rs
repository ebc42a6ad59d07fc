//! `types:` and `values:`: what is said of columns and of values without a place in the lake.

use std::collections::BTreeMap;

use super::raw::{RawValues, Scalar};
use super::{invalid, set};
use crate::error::Result;
use crate::window::rules::{Override, TypeRules, Unrepresentable};

/// Reads both sections.
pub(super) fn resolve(types: BTreeMap<String, Scalar>, values: RawValues) -> Result<TypeRules> {
    let mut rules = TypeRules::default();
    for (name, wanted) in types {
        let key = format!("types.{name}");
        let place = place(&name).ok_or_else(|| {
            invalid(&key, &name, "is not a column")
                .with_cure("write it as schema.table.column; names with dots in double quotes")
        })?;
        let wanted = Override::parse(&wanted.0).map_err(|why| invalid(&key, &wanted.0, &why))?;
        rules.overrides.insert(place, wanted);
    }
    let key = "values.on_unrepresentable";
    if let Some(rule) = set(values.on_unrepresentable) {
        rules.unrepresentable = rule_of(key, &rule)?;
    }
    for (name, rule) in values.tables {
        let key = format!("values.tables.{name}");
        let table = place(&name).ok_or_else(|| {
            invalid(&key, &name, "is not a table").with_cure("write it as schema.table")
        })?;
        rules.tables.insert(table, rule_of(&key, &rule.0)?);
    }
    Ok(rules)
}

fn rule_of(key: &str, text: &str) -> Result<Unrepresentable> {
    Unrepresentable::parse(text)
        .ok_or_else(|| invalid(key, text, "is not a rule").with_cure("use raw, error or clamp"))
}

/// `N` names with dots between them, each as it is or in double quotes.
fn place<const N: usize>(text: &str) -> Option<[String; N]> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = name(rest)?;
        names.push(name);
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => break,
            None => return None,
        }
    }
    names.try_into().ok()
}

/// A name at the beginning of `text`, and what follows.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at_checked(end)?;
        return (!name.is_empty() && !name.contains('"')).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if quoted.get(at + 1..).is_some_and(|rest| rest.starts_with('"')) => {
                characters.next();
                name.push('"');
            }
            '"' => return quoted.get(at + 1..).map(|rest| (name, rest)),
            _ => name.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn rules(text: &str) -> Result<TypeRules> {
        let raw = RawConfig::parse(text, "f")?;
        resolve(raw.types, raw.values)
    }

    #[test]
    fn columns_and_tables_are_named() {
        let text = "types: {shop.orders.amount: 'decimal(38,9)', '\"a.b\".\"c\"\"d\".e': string}\n\
             values: {on_unrepresentable: error, tables: {shop.orders: clamp}}";
        let rules = rules(text).unwrap();
        let decimal = Override::Decimal { precision: 38, scale: 9 };
        assert_eq!(rules.of_column("shop", "orders", "amount"), Some(decimal));
        assert_eq!(rules.of_column("a.b", "c\"d", "e"), Some(Override::String));
        assert_eq!(rules.of_table("shop", "orders"), Unrepresentable::Clamp);
        assert_eq!(rules.of_table("shop", "other"), Unrepresentable::Error);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("types: {orders.amount: string}", "types.orders.amount"),
            ("types: {a.b.c: varchar}", "varchar"),
            ("types: {a.b.c: 'decimal(40,1)'}", "decimal(40,1)"),
            ("values: {on_unrepresentable: ignore}", "values.on_unrepresentable"),
            ("values: {tables: {orders: raw}}", "values.tables.orders"),
        ];
        for (text, named) in cases {
            let error = rules(text).unwrap_err();
            assert_eq!(error.code(), "BAD_SETTING", "{text}");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert_eq!(rules("values: {on_unrepresentible: raw}").unwrap_err().code(), "BAD_CONFIG");
    }
}
