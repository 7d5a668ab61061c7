//! Services that change while they are used: rolled forward and back, paused, scaled, drained, under a load of requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::support::{Lab, Node, dns, docker, has_docker, inside, skip, until};

/// The page that the demo serves.
const PAGE: &str = "whoami:latest";
/// How long one request may take. A node that is gone is noticed by others within this time; nobody's page needs it.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Requests one after the other, each with a fresh look at the name, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Result<Vec<String>>>,
}

impl Load {
    fn start(node: &Node, name: &str) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (node, name, stopped, counted) = (node.clone(), name.to_owned(), Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = request(&node, &name, counted.load(Ordering::Relaxed)) {
                    failed.push(format!("{error:#}"));
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(failed)
        });
        Self { stop, done, thread }
    }

    /// Ends it. Returns how many requests there were, and what became of those that failed.
    fn end(self) -> Result<(u64, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        Ok((self.done.load(Ordering::Relaxed), failed))
    }
}

/// Asks one of the tasks behind a name for its page, as a client on this host does.
fn request(node: &Node, name: &str, number: u64) -> Result<()> {
    let answer = dns::ask(node, &format!("{name}.shoal.internal"))?;
    ensure!(!answer.addresses.is_empty(), "no address: {answer:?}");
    let address = answer.addresses[usize::try_from(number)? % answer.addresses.len()];
    let page = inside(&node.namespace, move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), REQUEST_MAX)?;
        stream.set_read_timeout(Some(REQUEST_MAX))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: page\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })?;
    let page = page.with_context(|| format!("{address}"))?;
    ensure!(page.starts_with("HTTP/1.1 200"), "{address}: {page:?}");
    Ok(())
}

fn service(node: &Node, name: &str) -> Result<Value> {
    Ok(node.api("GET", &format!("/services/{name}"), b"")?.1)
}

/// Waits until a rollout has this state, as all nodes see it.
fn rollout(lab: &Lab, name: &str, state: &str) -> Result<()> {
    until(&format!("the rollout of {name} is {state}"), || {
        lab.nodes.iter().try_for_each(|node| {
            let found = service(node, name)?["UpdateStatus"]["State"].clone();
            ensure!(found == state, "{}: {found}", node.name);
            Ok(())
        })
    })
}

pub(crate) fn no_request_fails_while_a_service_is_updated_rolled_back_and_moved(lab: &mut Lab) -> Result<()> {
    if !has_docker() {
        return skip("the docker client is not installed");
    }
    // Without a health check a task has its name once its process is started, which is before it listens.
    let create = "service create --detach --name page --replicas 6 --update-monitor 300ms --rollback-monitor 300ms";
    let health = "--health-tcp 80 --health-start-interval 100ms --health-start-period 10s";
    lab.ok(&format!("{create} --update-parallelism 2 --update-order start-first {health} {PAGE}"))?;
    lab.settle("page", 6)?;
    let load: Vec<Load> = lab.nodes[..2].iter().map(|node| Load::start(node, "page")).collect();
    // Docker's client shows the progress of each task, and returns when all have arrived.
    let shown = docker(&lab.nodes[1], &["service", "update", "--env-add", "COLOUR=blue", "page"])?;
    ensure!(shown.contains("converged"), "{shown}");
    rollout(lab, "page", "completed")?;
    ensure!(service(&lab.nodes[2], "page")?["Spec"].to_string().contains("COLOUR=blue"));
    docker(&lab.nodes[2], &["service", "rollback", "--detach", "page"])?;
    rollout(lab, "page", "rollback_completed").or_else(|_| rollout(lab, "page", "completed"))?;
    ensure!(!service(&lab.nodes[0], "page")?["Spec"].to_string().contains("COLOUR"));
    lab.settle("page", 6)?;
    lab.ok("node update --availability drain node3")?;
    until("node3 runs none of it", || {
        let on = |task: &Value| task["NodeID"].as_str().map(str::to_owned);
        let running = lab.nodes[0].running("page")?;
        let third = lab.nodes[2].api("GET", "/nodes/self", b"")?.1["ID"].as_str().map(str::to_owned);
        ensure!(running.len() == 6 && running.iter().all(|task| on(task) != third), "{} run", running.len());
        Ok(())
    })?;
    lab.ok("node update --availability active node3")?;
    lab.ok("service scale --detach page=9")?;
    lab.settle("page", 9)?;
    lab.ok("service scale --detach page=3")?;
    lab.settle("page", 3)?;
    std::thread::sleep(Duration::from_secs(2));
    let ended: Vec<_> = load.into_iter().map(Load::end).collect();
    lab.ok("service rm page")?;
    for (ended, node) in ended.into_iter().zip(&lab.nodes) {
        let (requests, failed) = ended?;
        println!("     {requests} requests from {}, {} failed", node.name, failed.len());
        ensure!(requests > 100 && failed.is_empty(), "{} of {requests} failed: {failed:#?}", failed.len());
    }
    Ok(())
}

pub(crate) fn an_update_that_fails_is_paused_with_the_reason_and_rolled_back(lab: &mut Lab) -> Result<()> {
    let create = "service create --detach --name bad --replicas 3 --update-monitor 2s --restart-delay 200ms";
    lab.ok(&format!("{create} {PAGE}"))?;
    lab.settle("bad", 3)?;
    // The first slot fails, and the others are left as they are.
    lab.ok("service update --detach --args nonsense bad")?;
    rollout(lab, "bad", "paused")?;
    let status = service(&lab.nodes[1], "bad")?["UpdateStatus"].clone();
    let reason = status["Message"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("paused") && reason.contains("task"), "{status}");
    let names = dns::ask(&lab.nodes[2], "bad.shoal.internal")?;
    ensure!(names.addresses.len() == 2, "two slots run on: {names:?}");
    lab.ok("service rollback --detach bad")?;
    lab.settle("bad", 3)?;
    // The same once more, rolled back by itself.
    lab.ok("service update --detach --update-failure-action rollback --args nonsense bad")?;
    rollout(lab, "bad", "rollback_completed")?;
    lab.settle("bad", 3)?;
    let history = lab.ok("service history bad")?;
    ensure!(history.lines().count() > 4, "{history}");
    lab.ok("service rm bad").map(drop)
}
