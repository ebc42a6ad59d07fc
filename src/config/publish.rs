//! Write, audit, publish: settings.

use std::time::Duration;

use crate::error::{Error, Result};

use super::raw::{RawCatalog, RawCheck, RawPublish, Scalar};
use super::{duration, invalid, missing, set};

/// Lake commits go to one branch; readers see another one, into which it is merged once the checks
/// have passed.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishSettings {
    /// The branch that is written to.
    pub branch: String,
    /// The branch that readers see.
    pub into: String,
    /// How often.
    pub interval: Duration,
    /// What must hold on `branch`.
    pub checks: Vec<RowCheck>,
}

/// Bounds for the rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct RowCheck {
    /// Namespace and name.
    pub table: (String, String),
    /// Fewest rows.
    pub rows_min: u64,
    /// Most rows.
    pub rows_max: u64,
    /// The part of the published rows that may be gone, 0 to 1.
    pub rows_drop_max: Option<f64>,
}

/// Resolves what was typed; the branch that is written to becomes the catalog's.
pub(super) fn resolve(
    raw: RawPublish,
    catalog: &mut RawCatalog,
) -> Result<Option<PublishSettings>> {
    let into = set(raw.into);
    let Some(branch) = set(raw.branch) else {
        return match into {
            None => Ok(None),
            Some(_) => Err(missing("publish.branch", "name the branch that is written to")),
        };
    };
    let into = into.unwrap_or_else(|| "main".to_owned());
    let written = set(catalog.r#ref.take()).unwrap_or_else(|| branch.clone());
    if written != branch || branch == into {
        let what = format!("publish.branch {branch}, publish.into {into}, catalog.ref {written}");
        return Err(Error::config("BAD_SETTING", what).with_cure(
            "publish.branch is the branch that is written to (leave --ref out), and not the one \
             that readers see",
        ));
    }
    catalog.r#ref = Some(Scalar(branch.clone()));
    let checks = raw.checks.unwrap_or_default().into_iter().map(row_check);
    Ok(Some(PublishSettings {
        interval: duration("publish.interval", raw.interval, "10s")?,
        checks: checks.collect::<Result<_>>()?,
        branch,
        into,
    }))
}

fn row_check(raw: RawCheck) -> Result<RowCheck> {
    let table = set(raw.table)
        .ok_or_else(|| missing("publish.checks.table", "name the table of each check"))?;
    let (namespace, name) = table
        .split_once('.')
        .ok_or_else(|| invalid("publish.checks.table", &table, "is not SCHEMA.TABLE"))?;
    let number = |key: &str, value, default| match set(value) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| invalid(key, &text, "is not a number of rows")),
    };
    let check = RowCheck {
        table: (namespace.to_owned(), name.to_owned()),
        rows_min: number("publish.checks.rows_min", raw.rows_min, 0)?,
        rows_max: number("publish.checks.rows_max", raw.rows_max, u64::MAX)?,
        rows_drop_max: set(raw.rows_drop_max).map(|text| percent(&text)).transpose()?,
    };
    if check.rows_min > check.rows_max {
        let bounds = format!("{} to {}", check.rows_min, check.rows_max);
        return Err(invalid("publish.checks", &bounds, "holds no number"));
    }
    Ok(check)
}

fn percent(text: &str) -> Result<f64> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number {
        Some(number) if (0.0..=100.0).contains(&number) => Ok(number / 100.0),
        _ => Err(invalid("publish.checks.rows_drop_max", text, "is no percentage")
            .with_cure("write it as 10%")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn resolved(yaml: &str) -> (Result<Option<PublishSettings>>, Option<String>) {
        let mut raw = RawConfig::parse(yaml, "test").unwrap();
        let publish = resolve(raw.publish, &mut raw.catalog);
        (publish, set(raw.catalog.r#ref))
    }

    #[test]
    fn the_branch_of_publish_is_the_one_written_to() {
        let (publish, reference) = resolved(
            "publish: {branch: ingest, checks: [{table: a.b, rows_min: 3, rows_drop_max: 5%}]}",
        );
        let publish = publish.unwrap().unwrap();
        assert_eq!((publish.into.as_str(), reference.as_deref()), ("main", Some("ingest")));
        let check = &publish.checks[0];
        assert_eq!(
            (check.rows_min, check.rows_max, check.rows_drop_max),
            (3, u64::MAX, Some(0.05))
        );
        assert!(resolved("publish: {}").0.unwrap().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for yaml in [
            "publish: {into: main}",
            "publish: {branch: main}",
            "publish: {branch: ingest}\ncatalog: {ref: other}",
            "publish: {branch: i, checks: [{rows_min: 1}]}",
            "publish: {branch: i, checks: [{table: nodot}]}",
            "publish: {branch: i, checks: [{table: a.b, rows_min: 5, rows_max: 4}]}",
            "publish: {branch: i, checks: [{table: a.b, rows_drop_max: 5}]}",
        ] {
            assert!(resolved(yaml).0.is_err(), "{yaml}");
        }
    }
}
