//! What the demo shows, step by step. Every step checks what it shows; the first that fails ends the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use shoal_runtime::image::{BuildConfig, build_from_executable};

use super::dns::{self, Resolved};
use super::lab::{Host, Lab, fits_a_socket};
use super::process;
use super::show::{Show, mebibytes, seconds};
use super::view::{self, Task, until};
use crate::whoami;

/// The service's name in full, which works everywhere.
const SERVICE_NAME: &str = "web.shoal.internal.";
/// Its name as a container says it.
const SERVICE_URL: &str = "http://web/";
const IMAGE: &str = "whoami:latest";
const REPLICAS: i64 = 3;
/// How long each step may take, on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the traffic of idle nodes is measured.
const IDLE: Duration = Duration::from_secs(5);
/// How long the end state must hold.
const STEADY: Duration = Duration::from_secs(3);

/// What was measured.
#[derive(Debug, Default)]
struct Figures {
    created: Duration,
    answering: Duration,
    names_fresh: Duration,
    rejoined: Duration,
    memory: Vec<(u64, u64)>,
    /// Bytes per second of each node, in both directions together.
    traffic: Vec<u64>,
}

/// Shows everything.
pub(super) async fn run(lab: &mut Lab, show: &Show) -> anyhow::Result<()> {
    let mut figures = Figures::default();
    make_hosts(lab, show)?;
    start_nodes(lab, show).await?;
    load_image(lab, show).await?;
    figures.created = create_service(lab, show).await?;
    resolve_everywhere(lab, show).await?;
    fetch_across(lab, show).await?;
    measure_idle(lab, show, &mut figures).await?;
    lose_a_node(lab, show, &mut figures).await?;
    figures.rejoined = start_again(lab, show).await?;
    print(show, &figures);
    Ok(())
}

fn make_hosts(lab: &Lab, show: &Show) -> anyhow::Result<()> {
    let socket = &lab.hosts[0].socket;
    ensure!(fits_a_socket(socket), "{} is too long for a socket: set TMPDIR to a shorter directory", socket.display());
    show.step("three hosts: network namespaces shoal-demo-1 to -3, veths, a bridge");
    lab.make()
}

async fn start_nodes(lab: &mut Lab, show: &Show) -> anyhow::Result<()> {
    show.step("node1 founds a shoal");
    lab.hosts[0].start(None)?;
    wait_for_api(lab, 0).await?;
    let (seed, token) = (lab.hosts[0].seed(), view::command(&lab.hosts[0], "join-token --quiet").await?);
    show.step(format!(
        "node2 and node3 join by `shoal up --seed {seed} --token {}…`",
        &token.chars().take(12).collect::<String>()
    ));
    for index in 1..lab.hosts.len() {
        lab.hosts[index].start(Some((&seed, token.trim())))?;
    }
    for index in 1..lab.hosts.len() {
        wait_for_api(lab, index).await?;
    }
    for host in &lab.hosts {
        until("all nodes ready", PATIENCE, async || view::see_ready(host, lab.hosts.len()).await).await?;
    }
    show.step("every node sees three nodes ready");
    run_command(&lab.hosts[1], show, "node ls").await
}

/// Waits until a host's node answers, and learns its id.
async fn wait_for_api(lab: &mut Lab, index: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let id = loop {
        match view::id(&lab.hosts[index]).await {
            Ok(id) => break id,
            Err(error) => {
                if let Some(end) = lab.hosts[index].ended() {
                    bail!(end);
                }
                ensure!(Instant::now() < deadline, "{} does not answer: {error:#}", lab.hosts[index].name);
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    };
    if lab.hosts[index].id != id {
        lab.learn_id(index, &id)?;
    }
    Ok(())
}

async fn load_image(lab: &Lab, show: &Show) -> anyhow::Result<()> {
    let archive = lab.file("whoami.tar");
    let path = archive.clone();
    let built = tokio::task::spawn_blocking(move || {
        let config = BuildConfig {
            entrypoint: vec!["/bin/whoami".to_owned()],
            exposed_ports: vec!["80/tcp".to_owned()],
            ..BuildConfig::default()
        };
        let mut out = BufWriter::new(File::create(path)?);
        let program = std::env::current_exe()?;
        let built = build_from_executable(&program, "/bin/whoami", IMAGE, &config, &mut out)?;
        std::io::Write::flush(&mut out)?;
        anyhow::Ok(built)
    })
    .await??;
    let (files, size) = (built.files.len(), mebibytes(built.layer_bytes));
    show.step(format!(
        "an image {IMAGE} of shoal's own executable: {files} files, {size}; node1 loads it, no registry"
    ));
    run_command(&lab.hosts[0], show, &format!("image load {}", archive.display())).await
}

async fn create_service(lab: &Lab, show: &Show) -> anyhow::Result<Duration> {
    show.step("a service of three replicas; the other nodes take the image from their peers");
    let begun = Instant::now();
    let line = format!("service create --detach --name web --replicas {REPLICAS} {IMAGE}");
    run_command(&lab.hosts[0], show, &line).await?;
    until("three tasks running", PATIENCE, async || view::exactly(&lab.hosts[0], REPLICAS).await).await?;
    let took = begun.elapsed();
    show.step(format!("three tasks run, {} after `service create`", seconds(took)));
    // Asked of another node than the one it was created on.
    until("node3 knows", PATIENCE, async || view::exactly(&lab.hosts[2], REPLICAS).await).await?;
    run_command(&lab.hosts[2], show, "service ps web").await?;
    Ok(took)
}

async fn resolve_everywhere(lab: &Lab, show: &Show) -> anyhow::Result<()> {
    show.step("each node resolves web.shoal.internal, by a DNS query over UDP");
    let mut all = BTreeSet::new();
    for host in &lab.hosts {
        let resolved = until("three addresses", PATIENCE, async || resolve(host, REPLICAS).await).await?;
        let took = resolved.took.as_secs_f64() * 1e3;
        show.detail(format!("{}   {}   ({took:.1} ms)", host.name, words(&resolved.addresses)));
        all.insert(resolved.addresses);
    }
    ensure!(all.len() == 1, "the nodes answer differently: {all:?}");
    Ok(())
}

/// Resolves the service on a host's node, and insists on this many addresses.
async fn resolve(host: &Host, count: i64) -> anyhow::Result<Resolved> {
    let resolved = dns::resolve(&host.namespace, SERVICE_NAME).await?;
    ensure!(resolved.addresses.len() as i64 == count, "{} answers {}", host.name, words(&resolved.addresses));
    Ok(resolved)
}

fn words(addresses: &[Ipv4Addr]) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(" ")
}

async fn fetch_across(lab: &Lab, show: &Show) -> anyhow::Result<()> {
    let (host, task, pid) = some_container(lab).context("no host has a container")?;
    show.step(format!("inside a container on {}: GET {SERVICE_URL} from each address of the name", host.name));
    let elsewhere = |page: &String| whoami::line(page, "node").is_some_and(|node| node != host.name);
    let pages = until("a page of a task on another node", PATIENCE, async || {
        let pages = view::pages_from_container(pid, SERVICE_URL).await?;
        // Each task has an IPv6 address too.
        let tasks: BTreeSet<_> = pages.iter().filter_map(|page| whoami::line(page, "task")).collect();
        let found = tasks.len() == usize::try_from(REPLICAS)? && pages.iter().any(elsewhere);
        ensure!(found, "the pages were {pages:?}");
        Ok(pages)
    })
    .await
    .with_context(|| format!("in task {task}"))?;
    let page = pages.iter().find(|page| elsewhere(page)).context("one was found above")?;
    show.detail(page);
    show.detail(format!(
        "(through the QUIC tunnel from {} to {})",
        host.name,
        whoami::line(page, "node").unwrap_or("?")
    ));
    Ok(())
}

/// Returns a container of the lab, on the last host that has one: that host, the task and the process.
fn some_container(lab: &Lab) -> Option<(&Host, String, i32)> {
    lab.hosts.iter().rev().find_map(|host| {
        let (task, pid) = host.marks().tasks().into_iter().next()?;
        Some((host, task, pid))
    })
}

async fn measure_idle(lab: &Lab, show: &Show, figures: &mut Figures) -> anyhow::Result<()> {
    show.step(format!("what three idle nodes cost, over {} s", IDLE.as_secs()));
    let pids: Vec<i32> = lab.hosts.iter().filter_map(Host::pid).collect();
    let before: Vec<_> = pids.iter().filter_map(|pid| process::traffic(*pid)).collect();
    let begun = Instant::now();
    tokio::time::sleep(IDLE).await;
    let after: Vec<_> = pids.iter().filter_map(|pid| process::traffic(*pid)).collect();
    let spent = begun.elapsed().as_secs_f64();
    let rate =
        |((r0, s0), (r1, s1)): (&(u64, u64), &(u64, u64))| ((r1 + s1).saturating_sub(r0 + s0) as f64 / spent) as u64;
    figures.traffic = before.iter().zip(&after).map(rate).collect();
    figures.memory = pids.iter().filter_map(|pid| process::memory(*pid)).collect();
    ensure!(figures.traffic.len() == 3 && figures.memory.len() == 3, "a node's figures cannot be read");
    for (host, ((rss, pss), rate)) in lab.hosts.iter().zip(figures.memory.iter().zip(&figures.traffic)) {
        show.detail(format!(
            "{}   {} in memory ({} of its own)   {rate} B/s",
            host.name,
            mebibytes(*rss),
            mebibytes(*pss)
        ));
    }
    Ok(())
}

async fn lose_a_node(lab: &mut Lab, show: &Show, figures: &mut Figures) -> anyhow::Result<()> {
    let victim = &lab.hosts[0];
    let tasks = view::exactly(&lab.hosts[1], REPLICAS).await?;
    let lost: Vec<Task> = tasks.into_iter().filter(|task| task.node == victim.id).collect();
    ensure!(!lost.is_empty(), "{} runs no task, so nothing can be shown", victim.name);
    let addresses = resolve(&lab.hosts[1], REPLICAS).await?.addresses;
    let dead = addresses_of(&lab.hosts[1], &addresses, &lost).await?;
    show.step(format!("SIGKILL to {}, the founder, and to all that runs on it; no goodbye", victim.name));
    let begun = Instant::now();
    let count = lab.hosts[0].cut_power()?;
    show.detail(format!("{count} processes are dead, and slot {} with them", slots(&lost)));
    watch_recovery(lab, begun, &lost, &dead, figures).await?;
    show.step(format!("a replacement answers over HTTP, {} after the kill", seconds(figures.answering)));
    show.detail(format!("no name shows {} any more since {}", words(&dead), seconds(figures.names_fresh)));
    for host in &lab.hosts[1..] {
        let resolved = until("three addresses", PATIENCE, async || resolve(host, REPLICAS).await).await?;
        show.detail(format!("{}   {}", host.name, words(&resolved.addresses)));
    }
    run_command(&lab.hosts[1], show, "service ps web").await
}

fn slots(tasks: &[Task]) -> String {
    tasks.iter().map(|task| task.slot.to_string()).collect::<Vec<_>>().join(", ")
}

/// Returns which of these addresses are those of the tasks, by what their pages say.
async fn addresses_of(host: &Host, addresses: &[Ipv4Addr], tasks: &[Task]) -> anyhow::Result<Vec<Ipv4Addr>> {
    let mut found = Vec::new();
    for address in addresses {
        let page = view::page(host, *address).await?;
        if tasks.iter().any(|task| whoami::line(&page, "task") == Some(task.id.as_str())) {
            found.push(*address);
        }
    }
    ensure!(found.len() == tasks.len(), "no page names the tasks {tasks:?}");
    Ok(found)
}

/// Watches names and pages until the survivors have taken over.
async fn watch_recovery(
    lab: &Lab,
    begun: Instant,
    lost: &[Task],
    dead: &[Ipv4Addr],
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (victim, survivors) = lab.hosts.split_first().context("there are hosts")?;
    let missing: BTreeSet<String> = lost.iter().map(|task| task.slot.to_string()).collect();
    let (mut fresh, mut answering) = (None, BTreeMap::new());
    until("the survivors take over", PATIENCE, async || {
        let mut shown = BTreeSet::new();
        for host in survivors {
            shown.extend(dns::resolve(&host.namespace, SERVICE_NAME).await?.addresses);
        }
        if fresh.is_none() && !dead.iter().any(|address| shown.contains(address)) {
            fresh = Some(begun.elapsed());
        }
        for address in shown.iter().filter(|address| !dead.contains(address)) {
            let Ok(page) = view::page(&survivors[0], *address).await else { continue };
            let says = |name| whoami::line(&page, name).unwrap_or_default().to_owned();
            if says("node") != victim.name && missing.contains(&says("slot")) {
                answering.entry(says("slot")).or_insert_with(|| begun.elapsed());
            }
        }
        ensure!(fresh.is_some() && answering.len() == missing.len(), "names {shown:?}, answering slots {answering:?}");
        Ok(())
    })
    .await?;
    figures.names_fresh = fresh.unwrap_or_default();
    figures.answering = answering.into_values().max().unwrap_or_default();
    Ok(())
}

async fn start_again(lab: &mut Lab, show: &Show) -> anyhow::Result<Duration> {
    show.step("node1 starts again, with neither seed nor token: it remembers its members");
    let begun = Instant::now();
    lab.hosts[0].start(None)?;
    wait_for_api(lab, 0).await?;
    for host in &lab.hosts {
        until("all nodes ready again", PATIENCE, async || view::see_ready(host, lab.hosts.len()).await).await?;
    }
    let rejoined = begun.elapsed();
    show.step(format!("every node sees three nodes ready again, after {}", seconds(rejoined)));
    let mut steady_since = None;
    until("exactly three tasks, for a while", PATIENCE, async || {
        let seen = check_exactly_three(lab).await;
        if seen.is_err() {
            steady_since = None;
        }
        seen?;
        let since = *steady_since.get_or_insert_with(Instant::now);
        ensure!(since.elapsed() >= STEADY, "not steady yet");
        Ok(())
    })
    .await?;
    show.step(format!(
        "exactly three tasks run, by every node's word and by their processes, for {} s",
        STEADY.as_secs()
    ));
    run_command(&lab.hosts[0], show, "node ls").await?;
    run_command(&lab.hosts[0], show, "service ps web").await?;
    Ok(rejoined)
}

/// Makes sure that all nodes name the same three tasks, and that the containers of just these have processes.
async fn check_exactly_three(lab: &Lab) -> anyhow::Result<()> {
    let processes: BTreeSet<String> = lab.marks().tasks().into_keys().collect();
    for host in &lab.hosts {
        let tasks = view::exactly(host, REPLICAS).await?;
        let named: BTreeSet<String> = tasks.into_iter().map(|task| task.id).collect();
        ensure!(named == processes, "{} names {named:?}, but {processes:?} have processes", host.name);
    }
    Ok(())
}

/// Runs one of our own commands and shows it with its output.
async fn run_command(host: &Host, show: &Show, line: &str) -> anyhow::Result<()> {
    let output = view::command(host, line).await?;
    show.detail(format!("{}# shoal {line}", host.name));
    show.detail(output);
    Ok(())
}

fn print(show: &Show, figures: &Figures) {
    let Figures { created, answering, names_fresh, rejoined, memory, traffic } = figures;
    let rss = memory.iter().map(|(rss, _)| *rss).max().unwrap_or(0);
    let pss = memory.iter().map(|(_, pss)| *pss).max().unwrap_or(0);
    let rate = traffic.iter().max().copied().unwrap_or(0);
    show.step("figures");
    for (what, here, target) in [
        ("service create → 3 tasks running", seconds(*created), "< 2 s"),
        ("SIGKILL → replacement answers", seconds(*answering), "< 10 s"),
        ("SIGKILL → no name shows the dead task", seconds(*names_fresh), ""),
        ("start → member again", seconds(*rejoined), ""),
        ("memory of an idle node, the largest (RSS)", mebibytes(rss), "< 64 MiB"),
        ("of that its own share (PSS)", mebibytes(pss), ""),
        ("traffic of an idle node, the busiest", format!("{:.2} KB/s", rate as f64 / 1e3), "< 5 KB/s"),
    ] {
        show.detail(format!("{what:<44}{here:>12}   {target}"));
    }
}
