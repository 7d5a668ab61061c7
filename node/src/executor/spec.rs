//! From a task order and its image to a container spec, by Docker's rules.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use shoal_cluster::TaskOrder;
use shoal_cluster::intent::service::container::Dns;
use shoal_cluster::plan::addresses::Addresses;
use shoal_cluster::plan::names::ZONE;
use shoal_runtime::container::{ContainerSpec, Lease};
use shoal_runtime::image::Image;

use super::files::Files;
use super::{Host, health, options};

/// What resolvers are told unless the service says otherwise: short names are looked for in the zone first.
const OPTIONS: &str = "ndots:1 timeout:2 attempts:3";
/// How long a task of a fenced service goes on without this daemon; others wait for longer ([`shoal_cluster::limits::FENCE`]).
const LEASE_MS: u64 = 20_000;
/// Characters of a task's id that serve as its host name, as Docker has it.
const HOSTNAME_CHARS: usize = 12;

/// Returns the container that runs `order` on these layers, with the node's DNS server at `dns`.
pub(super) fn container(
    host: &Host,
    order: &TaskOrder,
    image: &ImageConfiguration,
    layers: Vec<PathBuf>,
    dns: Addresses,
) -> ContainerSpec {
    let mut made = base(host, order, image, layers, dns);
    options::apply(&order.spec, &mut made, &Files::directory(host, order), |number, name| match name {
        Some(name) => host.volumes.path(name),
        None => host.volumes.path_of_task(&order.id, number),
    });
    made
}

fn base(
    host: &Host,
    order: &TaskOrder,
    image: &ImageConfiguration,
    layers: Vec<PathBuf>,
    dns: Addresses,
) -> ContainerSpec {
    let config = image.config().clone().unwrap_or_default();
    let spec = &order.spec;
    let id = order.id.to_string();
    let hostname = spec.hostname.clone().unwrap_or_else(|| id[..HOSTNAME_CHARS].to_owned());
    let addresses: Vec<String> = order.addresses.iter().map(|address| address.to_string()).collect();
    let env = [
        ("SHOAL_NODE", host.node_name.clone()),
        ("SHOAL_SERVICE", order.service_name.to_string()),
        ("SHOAL_TASK", id.clone()),
        ("SHOAL_SLOT", order.slot.to_string()),
        ("SHOAL_ADDRESSES", addresses.join(",")),
    ];
    let env = env.into_iter().map(|(name, value)| format!("{name}={value}"));
    ContainerSpec {
        labels: spec.labels.clone().into_iter().collect(),
        layers,
        args: command(order, config.entrypoint().as_deref(), config.cmd().as_deref()),
        env: config.env().iter().flatten().cloned().chain(env).chain(spec.env.iter().cloned()).collect(),
        cwd: spec.workdir.clone().or_else(|| config.working_dir().clone()).unwrap_or_default(),
        user: spec.user.clone().or_else(|| config.user().clone()).unwrap_or_default(),
        resolv_conf: resolv_conf(dns, &spec.container.dns),
        hosts: order.addresses.iter().map(|address| (address, hostname.clone())).collect(),
        hostname,
        cgroup_parent: host.cgroup_parent.clone(),
        lease: order.fenced.then(|| Lease {
            file: host.lease.clone(),
            timeout_ms: LEASE_MS,
            signal: stop_signal(order),
            grace_ms: spec.stop_grace_ms,
        }),
        id,
        ..ContainerSpec::default()
    }
}

/// Takes from the image what the service leaves open and the order must tell a restarted node: the stop signal and the
/// health check.
pub(super) fn take_defaults(order: &mut TaskOrder, image: &Image) {
    let signal = || image.config.config().as_ref().and_then(|config| config.stop_signal().clone());
    order.spec.stop_signal = order.spec.stop_signal.take().or_else(signal);
    order.spec.health = health::complete(order.spec.health.as_ref(), &image.docker);
}

/// Returns what to run: the service's command replaces the image's entrypoint and its own default arguments.
fn command(order: &TaskOrder, entrypoint: Option<&[String]>, cmd: Option<&[String]>) -> Vec<String> {
    let spec = &order.spec;
    if !spec.command.is_empty() {
        return [&spec.command[..], &spec.args[..]].concat();
    }
    let args = if spec.args.is_empty() { cmd.unwrap_or_default() } else { &spec.args[..] };
    [entrypoint.unwrap_or_default(), args].concat()
}

/// Returns the resolver's configuration: the node's own DNS server, the zone for plain names, and what the service asks.
fn resolv_conf(server: Addresses, asked: &Dns) -> String {
    let server = server.iter().next().map_or_else(String::new, |address| format!("nameserver {address}\n"));
    let search = [&[ZONE.to_owned()][..], &asked.search].concat().join(" ");
    let options = if asked.options.is_empty() { OPTIONS.to_owned() } else { asked.options.join(" ") };
    format!("{server}search {search}\noptions {options}\n")
}

/// Returns the number of the signal that asks this task to end.
pub(super) fn stop_signal(order: &TaskOrder) -> i32 {
    let name = order.spec.stop_signal.as_deref().unwrap_or("SIGTERM");
    let full = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    let number =
        name.parse().ok().or_else(|| full.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32));
    number.unwrap_or(nix::sys::signal::Signal::SIGTERM as i32)
}
