//! The summary of many runs: what happened in them, which faults they covered, and how long things took.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::options::Fault;
use crate::report::{Outcome, Report};

/// What many runs showed.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    reports: &'a [Report],
    wall: Duration,
}

/// Median, 99th percentile and greatest of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// All but one in a hundred are at most this.
    pub p99: f64,
    /// The greatest.
    pub worst: f64,
}

impl Spread {
    /// Returns the spread of some figures; none of none.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let worst = *figures.last()?;
        let at = |share: usize| figures[((figures.len() * share).div_ceil(100)).clamp(1, figures.len()) - 1];
        Some(Self { median: at(50), p99: at(99), worst })
    }
}

impl<'a> Summary<'a> {
    /// Summarises runs that took this long in real time.
    pub fn new(reports: &'a [Report], wall: Duration) -> Self {
        Self { reports, wall }
    }

    /// Returns how often each thing happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut totals = BTreeMap::new();
        for (what, count) in self.reports.iter().flat_map(|report| &report.counts) {
            *totals.entry(*what).or_default() += count;
        }
        totals
    }

    /// Returns in how many runs each kind of fault was on.
    pub fn coverage(&self) -> BTreeMap<Fault, usize> {
        let on = |fault: &Fault| self.reports.iter().filter(|report| report.options.has(*fault)).count();
        Fault::all().iter().map(|fault| (*fault, on(fault))).collect()
    }

    /// Returns the spread of each time that runs measure, in seconds.
    pub fn times(&self) -> Vec<(&'static str, Spread)> {
        let mut times: Vec<(&'static str, Vec<f64>)> = Vec::new();
        for (place, (name, time)) in self.reports.iter().flat_map(|report| report.times().into_iter().enumerate()) {
            if times.len() <= place {
                times.push((name, Vec::new()));
            }
            times[place].1.extend(time.map(|time| time.as_secs_f64()));
        }
        times.into_iter().filter_map(|(name, figures)| Some((name, Spread::of(figures)?))).collect()
    }

    /// Returns how many tasks started for each that had to, when a node was lost.
    pub fn movement(&self) -> Option<f64> {
        let moved = self.reports.iter().filter_map(|report| report.moved);
        let (started, needed) = moved.fold((0, 0), |sum, moved| (sum.0 + moved.started, sum.1 + moved.needed));
        (needed > 0).then(|| started as f64 / needed as f64)
    }

    /// Returns it in words.
    pub fn text(&self) -> String {
        let mut text = format!("what happened in {} runs:\n", self.reports.len());
        let mut line = |what: &str, figure: String| {
            let _infallible = writeln!(text, "  {what:<42} {figure:>14}");
        };
        for (what, count) in self.counts() {
            line(what, count.to_string());
        }
        let hours: f64 = self.reports.iter().map(Report::node_hours).sum();
        line("simulated node-hours", format!("{hours:.1}"));
        line("wall seconds", format!("{:.1}", self.wall.as_secs_f64()));
        let idle = self.reports.iter().filter(|report| report.idle_bytes > 0.0).map(|report| report.idle_bytes);
        if let Some(idle) = Spread::of(idle.collect()) {
            line("bytes per node and second, all right", format!("{:.0} (median)", idle.median));
        }
        if let Some(movement) = self.movement() {
            line("tasks started per task lost with a node", format!("{movement:.2}"));
        }
        for (what, Spread { median, p99, worst }) in self.times() {
            line(what, format!("median {median:.2} s, p99 {p99:.2} s, worst {worst:.2} s"));
        }
        let coverage = self.coverage();
        let on: Vec<String> = coverage.iter().map(|(fault, runs)| format!("{} {runs}", fault.name())).collect();
        let _infallible = writeln!(text, "runs with each fault: {}", on.join(", "));
        let right = self.reports.iter().filter(|report| report.outcome == Outcome::Right).count();
        let _infallible = writeln!(text, "{right} of {} runs came right", self.reports.len());
        text
    }

    /// Returns it, and every run, as JSON.
    pub fn json(&self) -> Value {
        let times = self
            .times()
            .into_iter()
            .map(|(name, spread)| (name, json!({"median": spread.median, "p99": spread.p99, "worst": spread.worst})));
        json!({
            "runs": self.reports.iter().map(Report::json).collect::<Vec<_>>(),
            "right": self.reports.iter().filter(|report| report.outcome == Outcome::Right).count(),
            "counts": self.counts(),
            "runs_with_fault": self.coverage().into_iter().map(|(f, n)| (f.name(), n)).collect::<BTreeMap<_, _>>(),
            "seconds": times.collect::<BTreeMap<_, _>>(),
            "movement": self.movement(),
            "simulated_node_hours": self.reports.iter().map(Report::node_hours).sum::<f64>(),
            "wall_seconds": self.wall.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_names_the_middle_and_the_ends() {
        let figures = (1..=200).rev().map(f64::from).collect();
        assert_eq!(Spread::of(figures), Some(Spread { median: 100.0, p99: 198.0, worst: 200.0 }));
        assert_eq!(Spread::of(vec![7.0]), Some(Spread { median: 7.0, p99: 7.0, worst: 7.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
