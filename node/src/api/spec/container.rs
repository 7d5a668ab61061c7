//! The container's options, between Docker's words and shoal's.

use std::net::IpAddr;

use bollard::models::{
    ResourcesUlimits, TaskSpecContainerSpec, TaskSpecContainerSpecDnsConfig as DnsConfig,
    TaskSpecContainerSpecPrivileges as Privileges, TaskSpecContainerSpecPrivilegesSeccomp as Seccomp,
    TaskSpecContainerSpecPrivilegesSeccompModeEnum as SeccompMode, TaskSpecLogDriver as LogDriver,
};
use shoal_cluster::intent::service::container::{ContainerOptions, Dns, Host, Log, Ulimit};

use super::accept::{AcceptError, map, texts};
use super::mount;
use super::uses::{self, Known};
use crate::api::error::shown;

/// The label of a container by which clients that know Docker's words only let set-uid programs raise privileges:
/// Docker's `NoNewPrivileges: false` is what they send when nobody asked for anything.
const NEW_PRIVILEGES: &str = "shoal.new-privileges";

/// The driver whose options shoal has.
const LOG_DRIVER: &str = "json-file";

/// Accepts the options of a container; what has a place of its own there is taken out of its labels.
pub(super) fn options(
    known: &Known,
    spec: &mut TaskSpecContainerSpec,
    log_driver: Option<LogDriver>,
) -> Result<ContainerOptions, AcceptError> {
    let privileges = spec.privileges.take().unwrap_or_default();
    let new_privileges = new_privileges(spec, &privileges)?;
    let seccomp = privileges.seccomp.and_then(|seccomp| seccomp.mode);
    let mounts = spec.mounts.take().unwrap_or_default().into_iter().map(mount::accept);
    Ok(ContainerOptions {
        groups: texts("ContainerSpec.Groups", spec.groups.take())?,
        init: spec.init.unwrap_or_default(),
        tty: spec.tty.unwrap_or_default(),
        open_stdin: spec.open_stdin.unwrap_or_default(),
        mounts: mounts.collect::<Result<_, _>>()?,
        files: uses::files(known, spec)?,
        hosts: spec.hosts.iter().flatten().map(|line| host(line)).collect::<Result<_, _>>()?,
        dns: spec.dns_config.take().map_or(Ok(Dns::default()), dns)?,
        capabilities_added: texts("ContainerSpec.CapabilityAdd", spec.capability_add.take())?,
        capabilities_dropped: texts("ContainerSpec.CapabilityDrop", spec.capability_drop.take())?,
        ulimits: spec.ulimits.take().unwrap_or_default().into_iter().map(ulimit).collect(),
        sysctls: map("ContainerSpec.Sysctls", spec.sysctls.take())?,
        new_privileges,
        unfiltered: seccomp == Some(SeccompMode::UNCONFINED),
        log: log_driver.map(log).transpose()?,
    })
}

fn new_privileges(spec: &mut TaskSpecContainerSpec, privileges: &Privileges) -> Result<bool, AcceptError> {
    let label = spec.labels.as_mut().and_then(|labels| labels.remove(NEW_PRIVILEGES));
    let invalid = |reason: &str| AcceptError::Invalid { field: "ContainerSpec.Labels", reason: reason.to_owned() };
    match label.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") if privileges.no_new_privileges == Some(true) => {
            Err(invalid("the label shoal.new-privileges=true contradicts Privileges.NoNewPrivileges"))
        }
        Some("true") => Ok(true),
        Some(_) => Err(invalid("the label shoal.new-privileges is neither true nor false")),
    }
}

/// Reads `ADDRESS NAME…`.
fn host(line: &str) -> Result<Host, AcceptError> {
    let mut words = line.split_whitespace();
    let address = words.next().unwrap_or_default();
    let address = address.parse::<IpAddr>().map_err(|_| AcceptError::Invalid {
        field: "ContainerSpec.Hosts",
        reason: format!("{:?} does not begin with an IP address", shown(line)),
    })?;
    Ok(Host { address, names: words.map(str::to_owned).collect() })
}

fn dns(config: DnsConfig) -> Result<Dns, AcceptError> {
    let address = |text: &String| {
        let reason = || format!("{:?} is not an IP address", shown(text));
        text.parse().map_err(|_| AcceptError::Invalid { field: "DNSConfig.Nameservers", reason: reason() })
    };
    Ok(Dns {
        nameservers: config.nameservers.iter().flatten().map(address).collect::<Result<_, _>>()?,
        search: texts("DNSConfig.Search", config.search)?,
        options: texts("DNSConfig.Options", config.options)?,
    })
}

fn ulimit(given: ResourcesUlimits) -> Ulimit {
    Ulimit {
        name: given.name.unwrap_or_default(),
        soft: given.soft.unwrap_or_default(),
        hard: given.hard.unwrap_or_default(),
    }
}

/// Reads the options of Docker's `json-file` driver that bound what is kept.
fn log(driver: LogDriver) -> Result<Log, AcceptError> {
    let name = driver.name.unwrap_or_default();
    if !matches!(name.as_str(), "" | LOG_DRIVER) {
        return Err(AcceptError::Unsupported {
            option: "log drivers besides json-file",
            field: "TaskTemplate.LogDriver",
        });
    }
    let mut log = Log::default();
    for (option, value) in driver.options.unwrap_or_default() {
        let field = "LogDriver.Options";
        let invalid = |reason: String| AcceptError::Invalid { field, reason: format!("{option}: {reason}") };
        match option.as_str() {
            "max-size" => {
                log.file_bytes_max =
                    Some(decimal_size(&value).ok_or_else(|| invalid("expected a size like 10m".to_owned()))?)
            }
            "max-file" => {
                let count = value.parse().map_err(|_| invalid(format!("{:?} is not a number", shown(&value))))?;
                log.files_max = Some(count);
            }
            _ => {
                return Err(AcceptError::Unsupported { option: "--log-opt besides max-size and max-file", field });
            }
        }
    }
    Ok(log)
}

/// Reads a size as Docker reads that of a log: units of 1,000.
fn decimal_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match lower[digits.len()..].trim_end_matches('b') {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Shows the options of a container, except for its log's.
pub(super) fn show(options: &ContainerOptions, shown: &mut TaskSpecContainerSpec) {
    let list = |items: &[String]| (!items.is_empty()).then(|| items.to_vec());
    let host = |host: &Host| format!("{} {}", host.address, host.names.join(" "));
    let hosts: Vec<String> = options.hosts.iter().map(host).collect();
    let mounts: Vec<_> = options.mounts.iter().map(mount::show).collect();
    let ulimits: Vec<_> = options.ulimits.iter().map(show_ulimit).collect();
    shown.groups = list(&options.groups);
    shown.init = options.init.then_some(true);
    shown.tty = options.tty.then_some(true);
    shown.open_stdin = options.open_stdin.then_some(true);
    shown.mounts = (!mounts.is_empty()).then_some(mounts);
    shown.hosts = list(&hosts);
    shown.dns_config = show_dns(&options.dns);
    uses::show_files(&options.files, shown);
    shown.capability_add = list(&options.capabilities_added);
    shown.capability_drop = list(&options.capabilities_dropped);
    shown.ulimits = (!ulimits.is_empty()).then_some(ulimits);
    let sysctls = options.sysctls.iter().map(|(key, value)| (key.clone(), value.clone()));
    shown.sysctls = (!options.sysctls.is_empty()).then(|| sysctls.collect());
    let seccomp = || Seccomp { mode: Some(SeccompMode::UNCONFINED), profile: None };
    shown.privileges = Some(Privileges {
        seccomp: options.unfiltered.then(seccomp),
        no_new_privileges: Some(!options.new_privileges),
        ..Privileges::default()
    });
    if options.new_privileges {
        shown.labels.get_or_insert_default().insert(NEW_PRIVILEGES.to_owned(), true.to_string());
    }
}

fn show_dns(dns: &Dns) -> Option<DnsConfig> {
    let list = |items: Vec<String>| (!items.is_empty()).then_some(items);
    let config = DnsConfig {
        nameservers: list(dns.nameservers.iter().map(IpAddr::to_string).collect()),
        search: list(dns.search.clone()),
        options: list(dns.options.clone()),
    };
    (config != DnsConfig::default()).then_some(config)
}

fn show_ulimit(ulimit: &Ulimit) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(ulimit.name.clone()), soft: Some(ulimit.soft), hard: Some(ulimit.hard) }
}

/// Shows how much output is kept, if that was asked for.
pub(super) fn show_log(log: Option<&Log>) -> Option<LogDriver> {
    let log = log?;
    let size = log.file_bytes_max.map(|bytes| ("max-size".to_owned(), bytes.to_string()));
    let files = log.files_max.map(|files| ("max-file".to_owned(), files.to_string()));
    Some(LogDriver { name: Some(LOG_DRIVER.to_owned()), options: Some(size.into_iter().chain(files).collect()) })
}
