//! The scenarios: one file each, but for those that only stream a load (`streams`).

mod catalog;
mod idle;
mod live;
mod long;
mod many;
mod snapshot;
mod start;
mod streams;

pub(crate) use snapshot::{snapshot, staged as snapshot_stage};

use streams::Stream;

use crate::figures::Row;
use crate::{Context, Result, fail};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Snapshot,
    Inserts,
    Mixed,
    Huge,
    Small,
    Wide,
    Many,
    Long,
    Catalog,
    Latency,
    Idle,
    Start,
}

/// All of them, by name, in the order in which `all` runs them.
const ALL: [(&str, Scenario); 12] = [
    ("snapshot", Scenario::Snapshot),
    ("inserts", Scenario::Inserts),
    ("mixed", Scenario::Mixed),
    ("huge", Scenario::Huge),
    ("small", Scenario::Small),
    ("wide", Scenario::Wide),
    ("many", Scenario::Many),
    ("long", Scenario::Long),
    ("catalog", Scenario::Catalog),
    ("latency", Scenario::Latency),
    ("idle", Scenario::Idle),
    ("start", Scenario::Start),
];

/// What `quick` runs.
const QUICK: [Scenario; 6] = [
    Scenario::Snapshot,
    Scenario::Inserts,
    Scenario::Mixed,
    Scenario::Huge,
    Scenario::Small,
    Scenario::Wide,
];

impl Scenario {
    /// The scenarios that `names` stand for, and whether `quick` is among the names.
    pub(crate) fn named(names: &[String]) -> Result<(Vec<Self>, bool)> {
        let mut found = Vec::new();
        for name in names {
            match name.as_str() {
                "all" => found.extend(ALL.map(|(_, scenario)| scenario)),
                "quick" => found.extend(QUICK),
                name => match ALL.iter().find(|(known, _)| *known == name) {
                    Some((_, scenario)) => found.push(*scenario),
                    None => {
                        let known = ALL.map(|(known, _)| known).join(", ");
                        return fail(format!("no scenario {name}; there are quick, all, {known}"));
                    }
                },
            }
        }
        Ok((found, names.iter().any(|name| name == "quick")))
    }

    pub(crate) fn name(self) -> &'static str {
        ALL.iter().find(|(_, scenario)| *scenario == self).map_or("", |(name, _)| name)
    }

    /// Runs it to its end; fails also where source and lake differ in the end.
    pub(crate) fn run(self, context: &Context) -> Result<Vec<Row>> {
        match self {
            Self::Snapshot => snapshot::run(context),
            Self::Inserts | Self::Mixed | Self::Huge | Self::Wide | Self::Small => {
                let stream = self.stream(context).map(|stream| stream.run(context));
                let mut rows = stream.transpose()?.unwrap_or_default();
                if self == Self::Small {
                    rows.extend(live::run(context)?);
                }
                Ok(rows)
            }
            Self::Many => many::run(context),
            Self::Long => long::run(context),
            Self::Catalog => catalog::run(context),
            Self::Latency => catalog::latency(context),
            Self::Idle => idle::run(context),
            Self::Start => start::run(context),
        }
    }

    /// The stream that it measures, where that is what it does.
    pub(crate) fn stream(self, context: &Context) -> Option<Stream> {
        match self {
            Self::Inserts => Some(streams::inserts(context)),
            Self::Mixed => Some(streams::mixed(context)),
            Self::Huge => Some(streams::huge(context)),
            Self::Wide => Some(streams::wide(context)),
            Self::Small => Some(streams::small(context)),
            Self::Many => Some(streams::many(context, context.scaled(many::TABLES.0, 20))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_scenarios() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (found, is_quick) = Scenario::named(&names(&["mixed", "quick"])).unwrap();
        assert_eq!((found.len(), is_quick), (7, true));
        assert_eq!(Scenario::named(&names(&["all"])).unwrap().0.len(), ALL.len());
        assert!(Scenario::named(&names(&["mixd"])).is_err());
        assert!(ALL.iter().all(|(name, scenario)| scenario.name() == *name));
    }
}
