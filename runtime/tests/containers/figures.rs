//! Figures to print, not to assert as times: how fast a container starts, and what its shim costs.

use std::fs;
use std::time::{Duration, Instant};

use super::Case;
use super::lab::{Lab, output, processes_with};

pub(crate) const CASES: &[Case] = &[("figures_of_start_and_shim", figures_of_start_and_shim)];

const ROUNDS: usize = 20;

fn figures_of_start_and_shim(lab: &Lab) {
    lab.block_on(async {
        let runtime = lab.open().await;
        let mut figures: [Vec<Duration>; 4] = Default::default();
        for round in 0..ROUNDS {
            let id = format!("timed-{round}");
            let begin = Instant::now();
            runtime.create(&lab.spec(&id, "echo here; while :; do sleep 1; done")).await.unwrap();
            figures[0].push(begin.elapsed());
            runtime.start(&id).await.unwrap();
            figures[1].push(begin.elapsed());
            while !output(&runtime, &id).await.contains("here") {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            figures[2].push(begin.elapsed());
            if round == 0 {
                print_memory(processes_with(&id)[0]);
            }
            let begin = Instant::now();
            runtime.remove(&id).await.unwrap();
            figures[3].push(begin.elapsed());
        }
        for (name, figures) in ["created", "started", "first byte logged", "removed"].iter().zip(&mut figures) {
            figures.sort();
            let middle = figures[ROUNDS / 2];
            println!("  {name}: median {middle:.1?}, worst {:.1?} of {ROUNDS}", figures[ROUNDS - 1]);
        }
    });
}

fn print_memory(shim: i32) {
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let kib = |name: &str| {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
    };
    let private = kib("Private_Clean") + kib("Private_Dirty");
    println!(
        "  shim: {private} KiB private ({} KiB dirty), PSS {} KiB, RSS {} KiB",
        kib("Private_Dirty"),
        kib("Pss:"),
        kib("Rss")
    );
}
