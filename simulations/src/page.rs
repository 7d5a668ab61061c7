//! The page: many runs as one HTML file with plots in SVG, complete in itself.

use std::fmt::Write;

use crate::report::{Outcome, Report};
use crate::summary::Summary;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 300.0;
const MARGIN: f64 = 46.0;

/// One figure of a run, if it has it.
type Figure = fn(&Report) -> Option<f64>;

/// What is plotted against the number of nodes: title, unit, figure.
const PLOTS: [(&str, &str, Figure); 6] = [
    ("From heal until all is right", "s", |report| report.converged.map(|time| time.as_secs_f64())),
    ("From the loss of a node until all others know", "s", |report| report.detected.map(|time| time.as_secs_f64())),
    ("From the loss of a node until all is right without it", "s", |report| {
        report.replaced.map(|time| time.as_secs_f64())
    }),
    ("Tasks started per task lost with a node", "", |report| {
        report.moved.filter(|moved| moved.needed > 0).map(|moved| moved.started as f64 / moved.needed as f64)
    }),
    ("Bytes per node and second while all is right", "B/s", |report| {
        (report.idle_bytes > 0.0).then_some(report.idle_bytes)
    }),
    ("Oldest stale answer while faults last", "s", |report| Some(report.stale_us as f64 / 1e6)),
];

/// Returns the page of these runs.
pub fn page(reports: &[Report], summary: &Summary<'_>) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><title>Simulated shoals</title><style>body{font:14px sans-serif;margin:2em}\
         svg{border:1px solid #ccc;margin:6px}pre,td{font:12px monospace}td,th{padding:2px 10px;text-align:left}\
         .bad{color:#b00}</style><h1>Simulated shoals</h1>",
    );
    for (title, unit, figure) in PLOTS {
        let points: Vec<(f64, f64)> =
            reports.iter().filter_map(|report| Some((report.options.nodes as f64, figure(report)?))).collect();
        page.push_str(&plot(title, unit, &points));
    }
    let _infallible = write!(page, "<h2>Summary</h2><pre>{}</pre><h2>Runs</h2><table>", escape(&summary.text()));
    page.push_str("<tr><th>seed<th>nodes<th>outcome<th>faults<th>trace");
    for report in reports {
        let class = if report.outcome == Outcome::Right { "" } else { " class=bad" };
        let faults: Vec<String> = report.options.faults.iter().map(|fault| fault.name()).collect();
        let _infallible = write!(
            page,
            "<tr{class}><td>{}<td>{}<td>{}<td>{}<td>{}",
            report.options.seed,
            report.options.nodes,
            escape(&report.outcome.kind()),
            faults.join(" "),
            report.hash
        );
    }
    page.push_str("</table>");
    page
}

/// Returns one plot: a point for each run, and a line through the medians. The number of nodes is to a logarithmic
/// scale.
fn plot(title: &str, unit: &str, points: &[(f64, f64)]) -> String {
    let most = points.iter().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
    let logs = points.iter().map(|(x, _)| x.max(1.0).log10());
    let (least_x, most_x) = logs.fold((f64::MAX, f64::MIN), |(least, most), x| (least.min(x), most.max(x)));
    let span = (most_x - least_x).max(0.1);
    let at = |x: f64, y: f64| {
        let across = MARGIN + (x.max(1.0).log10() - least_x) / span * (WIDTH - 2.0 * MARGIN);
        (across, HEIGHT - MARGIN - y / most * (HEIGHT - 2.0 * MARGIN))
    };
    let mut svg = format!(
        "<svg width={WIDTH} height={HEIGHT}><text x=10 y=20 font-weight=bold>{}</text>\
         <path d='M{MARGIN} {MARGIN}V{}H{}' fill=none stroke=#888 />",
        escape(title),
        HEIGHT - MARGIN,
        WIDTH - MARGIN
    );
    for share in [0.0, 0.5, 1.0] {
        let (_, y) = at(1.0, most * share);
        let _infallible = write!(svg, "<text x=2 y={y:.0} font-size=11>{:.4} {unit}</text>", rounded(most * share));
    }
    let mut by_nodes: std::collections::BTreeMap<u64, Vec<f64>> = std::collections::BTreeMap::new();
    for (x, y) in points {
        by_nodes.entry(*x as u64).or_default().push(*y);
        let (across, up) = at(*x, *y);
        let _infallible = write!(svg, "<circle cx={across:.1} cy={up:.1} r=2.5 fill=#36c fill-opacity=.45 />");
    }
    let mut line = String::new();
    for (nodes, mut figures) in by_nodes {
        figures.sort_by(f64::total_cmp);
        let (across, up) = at(nodes as f64, figures[figures.len() / 2]);
        let _infallible = write!(line, "{}{across:.1} {up:.1}", if line.is_empty() { "M" } else { "L" });
        let label = HEIGHT - MARGIN + 16.0;
        let _infallible = write!(svg, "<text x={across:.0} y={label} font-size=11 text-anchor=middle>{nodes}</text>");
    }
    let _infallible = write!(svg, "<path d='{line}' fill=none stroke=#c33 stroke-width=1.5 /></svg>");
    svg
}

/// Rounds to what a label can show.
fn rounded(figure: f64) -> f64 {
    if figure >= 100.0 { figure.round() } else { (figure * 100.0).round() / 100.0 }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_a_point_for_each_run_and_stays_inside() {
        let svg = plot("a < b", "s", &[(3.0, 1.0), (3.0, 2.0), (1_000.0, 7.5)]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("a &lt; b") && svg.contains(">1000</text>"));
        assert!(!svg.contains("NaN") && !svg.contains("cx=-"), "{svg}");
        assert!(!plot("none", "", &[]).contains("NaN"));
    }
}
