//! Two builds side by side: A, B, A, B on the same WAL.

use std::path::Path;

use crate::figures::{Measured, thousands};
use crate::frazil::Frazil;
use crate::scenario::{self, Scenario};
use crate::stage::Stage;
use crate::{Context, Result, fail};

/// Runs of each build.
const ROUNDS: usize = 2;

/// Measures `scenario` with the context's frazil (A) and with `other` (B), and gives lines of a
/// table. The lake gets its base rows by A; it is compared with the source after each run.
pub(crate) fn run(context: &Context, scenario: Scenario, other: &Path) -> Result<String> {
    if scenario == Scenario::Snapshot {
        let (stage, rows) = scenario::snapshot_stage(context)?;
        let frazils = both(&stage, other);
        let sides = interleaved(&frazils, |frazil| {
            let (measured, frazil) = scenario::snapshot(&stage, frazil, 2)?;
            stage.verify(&frazil)?;
            Ok(measured)
        })?;
        return Ok(line("snapshot, 2 workers", rows, &sides));
    }
    let Some(stream) = scenario.stream(context) else {
        return fail(format!("{}: only scenarios that stream, and snapshot", scenario.name()));
    };
    let mut stage = stream.staged(context)?;
    let rows = stream.changes(&stage.postgres)?;
    let mut lines = Vec::new();
    for variant in &stream.variants {
        let frazils = both(&stage, other)
            .map(|frazil| Frazil { settings: variant.settings.clone(), ..frazil });
        let sides = interleaved(&frazils, |frazil| {
            let followed = stage.follow(frazil)?;
            stage.verify(frazil)?;
            Ok(followed.measured)
        })?;
        lines.push(line(&format!("{}{}", stream.name, variant.suffix), rows, &sides));
    }
    Ok(lines.join("\n"))
}

/// The head of the table.
pub(crate) const HEAD: &str = "\
| scenario | rows | A rows/s | B rows/s | rate A / B | A CPU s/M | B CPU s/M | CPU A / B |
|---|---|---|---|---|---|---|---|";

fn both(stage: &Stage, other: &Path) -> [Frazil; 2] {
    let a = stage.frazil.clone();
    let b = Frazil { binary: other.to_owned(), ..a.clone() };
    [a, b]
}

/// What each build needed, in the order A, B, A, B.
fn interleaved(
    frazils: &[Frazil; 2],
    mut measure: impl FnMut(&Frazil) -> Result<Measured>,
) -> Result<[Vec<Measured>; 2]> {
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    let [a, b] = frazils;
    for _ in 0..ROUNDS {
        of_a.push(measure(a)?);
        of_b.push(measure(b)?);
    }
    Ok([of_a, of_b])
}

fn line(name: &str, rows: u64, [a, b]: &[Vec<Measured>; 2]) -> String {
    let mean = |side: &[Measured], of: &dyn Fn(&Measured) -> f64| {
        side.iter().map(of).sum::<f64>()
            / f64::from(u32::try_from(side.len()).unwrap_or(1)).max(1.0)
    };
    let each = |side: &[Measured], of: &dyn Fn(&Measured) -> String| {
        side.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let rate = |one: &Measured| one.rate(rows);
    let cpu = |one: &Measured| one.cpu_per_million(rows);
    let (rate_text, cpu_text) =
        (|one: &Measured| thousands(one.rate(rows)), |one: &Measured| format!("{:.2}", cpu(one)));
    format!(
        "| {name} | {} | {} | {} | **{:.2}** | {} | {} | **{:.2}** |",
        thousands(crate::figures::count(rows)),
        each(a, &rate_text),
        each(b, &rate_text),
        mean(a, &rate) / mean(b, &rate).max(1e-9),
        each(a, &cpu_text),
        each(b, &cpu_text),
        mean(a, &cpu) / mean(b, &cpu).max(1e-9),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_as_fast_is_two() {
        let took = |wall_s, cpu_s| Measured { wall_s, cpu_s, ..Measured::default() };
        let sides = [vec![took(1.0, 1.0); 2], vec![took(2.0, 4.0); 2]];
        let line = line("mixed", 1_000_000, &sides);
        assert!(line.contains("| **2.00** |") && line.ends_with("| **0.25** |"), "{line}");
    }
}
