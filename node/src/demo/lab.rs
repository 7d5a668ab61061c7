//! The lab: three hosts in network namespaces, a node in each.
//!
//! The hosts have addresses of the range for documentation (RFC 5737), so that they collide with no network of the
//! machine nor with the overlay. The node processes are children of the demo, in process groups of their own: Ctrl-C
//! at the terminal is for the demo alone, which then ends them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use super::namespace::Namespace;
use super::process::Marks;
use super::remains;
use super::show::Show;
use super::wire;

/// How many hosts there are.
pub(super) const HOSTS: u8 = 3;
/// The port on which nodes listen.
const PORT: u16 = 7946;
/// Lines of a node's log that are shown when something failed.
const LOG_LINES: usize = 15;

/// Three hosts and what connects them.
#[derive(Debug)]
pub(super) struct Lab {
    directory: PathBuf,
    /// The hosts, in order.
    pub(super) hosts: Vec<Host>,
}

/// One host, and the node that runs there.
#[derive(Debug)]
pub(super) struct Host {
    /// The node's name.
    pub(super) name: String,
    /// The host's address.
    pub(super) address: Ipv4Addr,
    /// The host's network.
    pub(super) namespace: Namespace,
    /// The socket of the node's API.
    pub(super) socket: PathBuf,
    /// The node's id, once it is known.
    pub(super) id: String,
    namespace_name: String,
    directory: PathBuf,
    child: Option<Child>,
}

/// Returns all namespaces that a demo makes.
pub(super) fn namespaces() -> Vec<Namespace> {
    let hosts = (1..=HOSTS).map(namespace_name);
    hosts.chain(["shoal-demo-hub".to_owned()]).map(|name| Namespace::named(&name)).collect()
}

fn namespace_name(number: u8) -> String {
    format!("shoal-demo-{number}")
}

impl Lab {
    /// Describes a lab that keeps its files in `directory`; nothing is made yet.
    pub(super) fn new(directory: PathBuf) -> Self {
        let host = |number| {
            let (name, namespace_name) = (format!("node{number}"), namespace_name(number));
            Host {
                address: Ipv4Addr::new(198, 51, 100, number),
                namespace: Namespace::named(&namespace_name),
                socket: directory.join(&name).join("shoal.sock"),
                directory: directory.join(&name),
                id: String::new(),
                child: None,
                namespace_name,
                name,
            }
        };
        Self { hosts: (1..=HOSTS).map(host).collect(), directory }
    }

    /// Makes the hosts and connects them.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        let spaces = namespaces();
        for namespace in &spaces {
            namespace.make().context("cannot make a network namespace")?;
        }
        let hub = spaces.last().context("there is a hub")?;
        let hosts: Vec<_> = self.hosts.iter().map(|host| (host.namespace.clone(), host.address)).collect();
        wire::connect(hub, &hosts)
            .context("cannot connect the hosts; `modprobe veth bridge` loads what the kernel needs")?;
        for host in &self.hosts {
            fs::create_dir(&host.directory)?;
        }
        Ok(())
    }

    /// Returns where a file of the demo itself is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Notes the id of a host's node, also for whoever has to clean up.
    pub(super) fn learn_id(&mut self, index: usize, id: &str) -> io::Result<()> {
        id.clone_into(&mut self.hosts[index].id);
        let mut nodes = File::options().create(true).append(true).open(self.directory.join(remains::NODES))?;
        writeln!(nodes, "{id}")
    }

    /// Returns what all processes of the lab have in common.
    pub(super) fn marks(&self) -> Marks {
        let mut marks = Marks::default();
        for one in self.hosts.iter().map(Host::marks) {
            marks.namespaces.extend(one.namespaces);
            marks.nodes.extend(one.nodes);
        }
        marks
    }

    /// Forgets the children that have ended.
    pub(super) fn reap(&mut self) {
        for child in self.hosts.iter_mut().filter_map(|host| host.child.as_mut()) {
            let _ = child.try_wait();
        }
    }

    /// Shows the ends of the nodes' logs.
    pub(super) fn show_logs(&self, show: &Show) {
        for host in &self.hosts {
            let Ok(text) = fs::read(host.log()) else { continue };
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            show.detail(format!("the log of {} ends with:", host.name));
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                show.detail(format!("  {line}"));
            }
        }
    }

    /// Prints how to play with a kept lab.
    pub(super) fn explain(&self, show: &Show) {
        let [first, second, ..] = self.hosts.as_slice() else { return };
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("shoal"));
        let (program, socket, other) = (program.display(), first.socket.display(), second.socket.display());
        let namespace = &second.namespace_name;
        show.print("\nThe three nodes stay up. To play with them:\n");
        for line in [
            format!("docker -H unix://{socket} node ls"),
            format!("docker -H unix://{other} service ps web"),
            format!("{program} --socket {other} service scale web=6"),
            format!("{program} --socket {socket} status"),
            format!("ip netns exec {namespace} dig +short web.shoal.internal @127.0.0.1 -p 7953"),
            format!("ip netns exec {namespace} {program} whoami --get http://ADDRESS/"),
            format!("tail -f {}", second.log().display()),
        ] {
            show.print(&format!("  {line}"));
        }
        show.print(&format!("\nTo end it and remove everything:\n\n  {program} demo --clean"));
    }
}

impl Host {
    /// Returns the address at which others join.
    pub(super) fn seed(&self) -> String {
        format!("{}:{PORT}", self.address)
    }

    /// Returns what the processes of this host have in common.
    pub(super) fn marks(&self) -> Marks {
        let nodes = (!self.id.is_empty()).then(|| self.id.clone());
        Marks { namespaces: self.namespace.number().into_iter().collect(), nodes: nodes.into_iter().collect() }
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Starts the node; `join` is what it needs the first time, seed and token.
    pub(super) fn start(&mut self, join: Option<(&str, &str)>) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe().context("cannot tell where shoal's own executable is")?);
        command.arg("--socket").arg(&self.socket).args(["up", "--name", &self.name, "--listen", &self.seed()]);
        command.arg("--data-dir").arg(self.directory.join("data"));
        if let Some((seed, token)) = join {
            // The token goes by the environment: a command line can be read by everybody.
            command.args(["--seed", seed]).env("SHOAL_TOKEN", token);
        }
        self.child = Some(self.spawn(command)?);
        Ok(())
    }

    fn spawn(&self, mut command: Command) -> anyhow::Result<Child> {
        for name in [
            "SEED",
            "NAME",
            "DATA_DIR",
            "LISTEN",
            "ADVERTISE_ADDR",
            "DNS_LISTEN",
            "UPSTREAM",
            "INTERFACE",
            "LOG_FORMAT",
            "LOG",
        ] {
            command.env_remove(format!("SHOAL_{name}"));
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let spawned = self.namespace.run(move || command.spawn())?;
        spawned.with_context(|| format!("cannot start {}", self.name))
    }

    /// Returns the node's process.
    pub(super) fn pid(&self) -> Option<i32> {
        i32::try_from(self.child.as_ref()?.id()).ok()
    }

    /// Tells how the node's process ended, if it did.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        Some(format!("{} ended ({status}): {}", self.name, text.lines().last().unwrap_or("it said nothing")))
    }

    /// Kills the node and all that runs on it at once, as a loss of power does, and waits until all of it is dead.
    pub(super) fn cut_power(&mut self) -> anyhow::Result<usize> {
        let marks = self.marks();
        let victims = marks.processes();
        marks.strike(&victims);
        marks.kill_all()?;
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        Ok(victims.len())
    }
}

/// Returns whether a path is short enough for a socket.
pub(super) fn fits_a_socket(path: &Path) -> bool {
    path.as_os_str().len() < 108
}
