//! Plots as SVG: bars of rates, and lines over a count.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::figures::{Row, thousands};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 40.0;
const BAR: f64 = 26.0;
/// The baseline's colour, and frazil's, which lines use in turn.
const COLOURS: [&str; 2] = ["#9aa5b1", "#2563eb"];

/// One file for each scenario with a baseline: rows per second of the baselines and of frazil.
pub(crate) fn bars(folder: &Path, rows: &[Row], run: &str) -> Result<()> {
    for row in rows {
        let (Some(before), Some(frazil), Some(after)) = (row.before, row.frazil, row.after) else {
            continue;
        };
        let sides = [("baseline", before, 0), ("frazil", frazil, 1), ("baseline", after, 0)];
        let rates = sides.map(|(name, side, colour)| (name, side.rate(row.rows), colour));
        let title = format!("{}: rows per second ({run})", row.scenario);
        let name: String = row.scenario.chars().filter(|c| *c != ',').collect();
        write(folder, &name.replace(' ', "-"), &bar_chart(&title, &rates))?;
    }
    Ok(())
}

/// One file, `NAME.svg`, with a line for each series of points.
pub(crate) fn line(
    folder: &Path,
    (name, title): (&str, &str),
    series: &[(&str, Vec<(f64, f64)>)],
) -> Result<()> {
    write(folder, name, &line_chart(title, series))
}

fn write(folder: &Path, name: &str, svg: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    Ok(fs::write(folder.join(format!("{name}.svg")), svg)?)
}

fn bar_chart(title: &str, bars: &[(&str, f64, usize)]) -> String {
    let largest = bars.iter().map(|(_, rate, _)| *rate).fold(1.0, f64::max);
    let mut body = String::new();
    let mut y = TOP;
    for (name, rate, colour) in bars {
        let width = (WIDTH - 2.0 * LEFT - 40.0) * rate / largest;
        let colour = COLOURS.get(*colour).unwrap_or(&"black");
        let _ = write!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{}\">{}</text>\n",
            LEFT - 8.0,
            y + 18.0,
            LEFT + width + 8.0,
            y + 18.0,
            thousands(*rate),
        );
        y += BAR + 10.0;
    }
    svg(title, y + 10.0, &body)
}

fn line_chart(title: &str, series: &[(&str, Vec<(f64, f64)>)]) -> String {
    let all = || series.iter().flat_map(|(_, points)| points);
    let right = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let top = all().map(|(_, y)| *y).fold(1e-3, f64::max);
    let at_x = |x: f64| LEFT + (WIDTH - LEFT - 30.0) * x / right;
    let at_y = |y: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / top;
    let mut body = String::new();
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (x, y) = (at_x(right * part), at_y(top * part));
        let _ = write!(
            body,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#e5e7eb\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.1}</text>\n\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
            WIDTH - 30.0,
            LEFT - 8.0,
            y + 4.0,
            top * part,
            HEIGHT - BOTTOM + 20.0,
            thousands(right * part),
        );
    }
    for (nth, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS.iter().rev().cycle().nth(nth).unwrap_or(&"black");
        let points: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
        let legend = LEFT + 20.0 + 140.0 * f64::from(u32::try_from(nth).unwrap_or(0));
        let _ = write!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
             <text x=\"{legend}\" y=\"{}\" fill=\"{colour}\">{name}</text>\n",
            points.join(" "),
            TOP - 6.0,
        );
    }
    svg(title, HEIGHT, &body)
}

fn svg(title: &str, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\">{title}</text>\n{body}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_largest_rate() {
        let svg = bar_chart("t", &[("baseline", 500.0, 0), ("frazil", 1_000.0, 1)]);
        assert!(svg.contains("width=\"270.0\"") && svg.contains("width=\"540.0\""), "{svg}");
    }

    #[test]
    fn a_line_spans_its_points() {
        let svg = line_chart("t", &[("a", vec![(0.0, 0.0), (10.0, 2.0)])]);
        assert!(svg.contains("points=\"70.0,280.0 690.0,50.0\""), "{svg}");
    }
}
