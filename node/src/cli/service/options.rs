//! Lists of a service's options: given whole to `service create`, added to and taken from by `service update`.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::Context;
use bollard::models::{
    Mount, ResourcesUlimits, ServiceSpec, TaskSpecContainerSpec, TaskSpecPlacementPreferences, TaskSpecPlacementSpread,
};
use clap::Args;
use shoal_cluster::intent::service::PARTITION_LABEL;

use super::mounts;

/// What `service create` puts into lists.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Set an environment variable; without a value it is taken over from here (repeat for several).
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Label the containers (repeat for several).
    #[arg(long, value_name = "KEY=VALUE")]
    container_label: Vec<String>,
    /// Mount something, such as type=volume,source=data,target=/data (repeat for several).
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<String>,
    /// Make the user a member of this group too (repeat for several).
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Add a line to /etc/hosts, such as db:10.0.0.7 (repeat for several).
    #[arg(long, value_name = "NAME:ADDRESS")]
    host: Vec<String>,
    /// Ask this server for names outside the shoal (repeat for several).
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Look for plain names in this domain too (repeat for several).
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Set an option of resolv.conf, such as timeout:3 (repeat for several).
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Set a kernel parameter of the container, such as net.core.somaxconn=512 (repeat for several).
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Limit each process, such as nofile=1024:2048 (repeat for several).
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Run on nodes that meet this only, such as node.labels.disk==ssd (repeat for several).
    #[arg(long, value_name = "CONSTRAINT")]
    constraint: Vec<String>,
    /// Spread over the values of a label, such as spread=node.labels.zone (repeat for several).
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref: Vec<String>,
}

/// What `service update` adds to lists and takes from them: first it takes away, then it adds.
#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// Set an environment variable, or change it (repeat for several).
    #[arg(long, value_name = "NAME[=VALUE]")]
    env_add: Vec<String>,
    /// Remove an environment variable (repeat for several).
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Label the containers (repeat for several).
    #[arg(long, value_name = "KEY=VALUE")]
    container_label_add: Vec<String>,
    /// Remove a label of the containers (repeat for several).
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Add a mount, or replace the one at its target (repeat for several).
    #[arg(long, value_name = "MOUNT")]
    mount_add: Vec<String>,
    /// Remove the mount at this target (repeat for several).
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Make the user a member of this group too (repeat for several).
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Take the user out of this group (repeat for several).
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Add a line to /etc/hosts (repeat for several).
    #[arg(long, value_name = "NAME:ADDRESS")]
    host_add: Vec<String>,
    /// Remove a name from /etc/hosts, with one address or all (repeat for several).
    #[arg(long, value_name = "NAME[:ADDRESS]")]
    host_rm: Vec<String>,
    /// Ask this server for names outside the shoal (repeat for several).
    #[arg(long, value_name = "ADDRESS")]
    dns_add: Vec<String>,
    /// Ask it no more (repeat for several).
    #[arg(long, value_name = "ADDRESS")]
    dns_rm: Vec<String>,
    /// Look for plain names in this domain too (repeat for several).
    #[arg(long, value_name = "DOMAIN")]
    dns_search_add: Vec<String>,
    /// Look there no more (repeat for several).
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Set an option of resolv.conf (repeat for several).
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Remove an option of resolv.conf (repeat for several).
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Set a kernel parameter of the container (repeat for several).
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl_add: Vec<String>,
    /// Leave a kernel parameter as it is by default (repeat for several).
    #[arg(long, value_name = "NAME")]
    sysctl_rm: Vec<String>,
    /// Limit each process (repeat for several).
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit_add: Vec<String>,
    /// Leave a limit as it is by default (repeat for several).
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
    /// Add a constraint (repeat for several).
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_add: Vec<String>,
    /// Remove a constraint (repeat for several).
    #[arg(long, value_name = "CONSTRAINT")]
    constraint_rm: Vec<String>,
    /// Add a placement preference (repeat for several).
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref_add: Vec<String>,
    /// Remove a placement preference (repeat for several).
    #[arg(long, value_name = "PREFERENCE")]
    placement_pref_rm: Vec<String>,
}

impl ListArgs {
    /// Puts all into an empty spec.
    pub(super) fn apply(self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let edits = EditArgs {
            env_add: self.env,
            container_label_add: self.container_label,
            mount_add: self.mount,
            group_add: self.group,
            host_add: self.host,
            dns_add: self.dns,
            dns_search_add: self.dns_search,
            dns_option_add: self.dns_option,
            sysctl_add: self.sysctl,
            ulimit_add: self.ulimit,
            constraint_add: self.constraint,
            placement_pref_add: self.placement_pref,
            ..EditArgs::nothing()
        };
        edits.apply(spec)
    }
}

impl EditArgs {
    fn nothing() -> Self {
        Self {
            env_add: Vec::new(),
            env_rm: Vec::new(),
            container_label_add: Vec::new(),
            container_label_rm: Vec::new(),
            mount_add: Vec::new(),
            mount_rm: Vec::new(),
            group_add: Vec::new(),
            group_rm: Vec::new(),
            host_add: Vec::new(),
            host_rm: Vec::new(),
            dns_add: Vec::new(),
            dns_rm: Vec::new(),
            dns_search_add: Vec::new(),
            dns_search_rm: Vec::new(),
            dns_option_add: Vec::new(),
            dns_option_rm: Vec::new(),
            sysctl_add: Vec::new(),
            sysctl_rm: Vec::new(),
            ulimit_add: Vec::new(),
            ulimit_rm: Vec::new(),
            constraint_add: Vec::new(),
            constraint_rm: Vec::new(),
            placement_pref_add: Vec::new(),
            placement_pref_rm: Vec::new(),
        }
    }

    /// Changes the lists of a spec.
    pub(super) fn apply(&self, spec: &mut ServiceSpec) -> anyhow::Result<()> {
        let task = spec.task_template.get_or_insert_default();
        let placement = task.placement.get_or_insert_default();
        let constraints = placement.constraints.get_or_insert_default();
        let words = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let gone: Vec<String> = self.constraint_rm.iter().map(words).collect();
        edit(constraints, self.constraint_add.clone(), &gone, words);
        let preferences = placement.preferences.get_or_insert_default();
        let gone: Vec<_> = self.placement_pref_rm.iter().map(|text| preference(text)).collect();
        preferences.retain(|present| !gone.contains(present));
        preferences.extend(self.placement_pref_add.iter().map(|text| preference(text)));
        self.apply_to(task.container_spec.get_or_insert_default())
    }

    fn apply_to(&self, container: &mut TaskSpecContainerSpec) -> anyhow::Result<()> {
        let before_equals = |text: &String| text.split('=').next().unwrap_or_default().to_owned();
        let env = self.env_add.iter().map(|entry| variable(entry)).collect::<anyhow::Result<_>>()?;
        edit(container.env.get_or_insert_default(), env, &self.env_rm, before_equals);
        edit_map(&mut container.labels, &self.container_label_add, &self.container_label_rm);
        edit_map(&mut container.sysctls, &self.sysctl_add, &self.sysctl_rm);
        let target = |target: &str| target.trim_end_matches('/').to_owned();
        let of_mount = |mount: &Mount| target(mount.target.as_deref().unwrap_or_default());
        let given = self.mount_add.iter().map(|text| mounts::parse(text)).collect::<anyhow::Result<_>>()?;
        let gone: Vec<String> = self.mount_rm.iter().map(|text| target(text)).collect();
        edit(container.mounts.get_or_insert_default(), given, &gone, of_mount);
        let of_ulimit = |ulimit: &ResourcesUlimits| ulimit.name.clone().unwrap_or_default();
        let ulimits = self.ulimit_add.iter().map(|text| ulimit(text)).collect::<anyhow::Result<_>>()?;
        edit(container.ulimits.get_or_insert_default(), ulimits, &self.ulimit_rm, of_ulimit);
        edit(container.groups.get_or_insert_default(), self.group_add.clone(), &self.group_rm, String::clone);
        self.edit_hosts(container.hosts.get_or_insert_default())?;
        let dns = container.dns_config.get_or_insert_default();
        for (list, add, gone) in [
            (&mut dns.nameservers, &self.dns_add, &self.dns_rm),
            (&mut dns.search, &self.dns_search_add, &self.dns_search_rm),
            (&mut dns.options, &self.dns_option_add, &self.dns_option_rm),
        ] {
            edit(list.get_or_insert_default(), add.clone(), gone, String::clone);
        }
        Ok(())
    }

    /// A line of hosts is an address and its names.
    fn edit_hosts(&self, hosts: &mut Vec<String>) -> anyhow::Result<()> {
        for gone in &self.host_rm {
            let (name, address) = gone.split_once(':').map_or((gone.as_str(), None), |(name, ip)| (name, Some(ip)));
            hosts.retain_mut(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let Some((ip, names)) = words.split_first() else { return false };
                if address.is_some_and(|address| address != *ip) {
                    return true;
                }
                let names: Vec<&str> = names.iter().copied().filter(|present| *present != name).collect();
                let (stays, left) = (!names.is_empty(), format!("{ip} {}", names.join(" ")));
                *line = left;
                stays
            });
        }
        let given = self.host_add.iter().map(|text| host(text)).collect::<anyhow::Result<Vec<_>>>()?;
        hosts.extend(given);
        Ok(())
    }
}

/// Takes away what is named, and puts in what is given, in place of what has the same name.
fn edit<T, N: PartialEq>(list: &mut Vec<T>, add: Vec<T>, remove: &[N], name: impl Fn(&T) -> N) {
    list.retain(|present| !remove.contains(&name(present)));
    for given in add {
        list.retain(|present| name(present) != name(&given));
        list.push(given);
    }
}

fn edit_map(map: &mut Option<HashMap<String, String>>, add: &[String], remove: &[String]) {
    let map = map.get_or_insert_default();
    map.retain(|key, _| !remove.contains(key));
    map.extend(labels(add));
}

/// What becomes of a service on the lesser side of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Partition {
    /// Each side runs all of it.
    Available,
    /// It runs with the majority of the members only, and no slot on two sides.
    Fenced,
}

impl Partition {
    /// Writes it into the service's label.
    pub(in crate::cli) fn apply(self, spec: &mut ServiceSpec) {
        let value = match self {
            Self::Available => "available",
            Self::Fenced => "fenced",
        };
        spec.labels.get_or_insert_default().insert(PARTITION_LABEL.to_owned(), value.to_owned());
    }
}

/// Returns labels as a map; one without a value has an empty one.
pub(in crate::cli) fn labels(given: &[String]) -> HashMap<String, String> {
    let split = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_owned(), value.to_owned())
    };
    given.iter().map(split).collect()
}

/// Returns `NAME=value`; a name alone takes its value from this process.
fn variable(given: &str) -> anyhow::Result<String> {
    if given.contains('=') {
        return Ok(given.to_owned());
    }
    let value = std::env::var(given);
    let value = value.with_context(|| format!("--env {given}: it has no value here, write {given}=VALUE"))?;
    Ok(format!("{given}={value}"))
}

/// The engine takes the label alone; what is no spread is left as it is, so that it says what is wrong.
fn preference(text: &str) -> TaskSpecPlacementPreferences {
    let label = text.strip_prefix("spread=").unwrap_or(text).to_owned();
    TaskSpecPlacementPreferences { spread: Some(TaskSpecPlacementSpread { spread_descriptor: Some(label) }) }
}

/// Reads `NAME:ADDRESS`, and returns a line of hosts.
fn host(text: &str) -> anyhow::Result<String> {
    let parsed = text.split_once([':', '=']).and_then(|(name, address)| {
        let plain = address.trim_start_matches('[').trim_end_matches(']');
        Some((name, plain.parse::<IpAddr>().ok()?))
    });
    let (name, address) = parsed
        .filter(|(name, _)| !name.is_empty())
        .with_context(|| format!("--host {text}: expected a name and an IP address, such as db:10.0.0.7"))?;
    Ok(format!("{address} {name}"))
}

/// Reads `NAME=SOFT[:HARD]`; -1 is no limit.
fn ulimit(text: &str) -> anyhow::Result<ResourcesUlimits> {
    let parsed = text.split_once('=').and_then(|(name, limits)| {
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Some((name.to_owned(), soft.parse().ok()?, hard.parse().ok()?))
    });
    let (name, soft, hard) = parsed.with_context(|| format!("--ulimit {text}: expected one like nofile=1024:2048"))?;
    Ok(ResourcesUlimits { name: Some(name), soft: Some(soft), hard: Some(hard) })
}

/// Splits a command line at spaces; what is in single or double quotes stays together.
pub(super) fn split_command(line: &str) -> anyhow::Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), character) if open == character => quote = None,
            (Some(_), character) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, character) if character.is_whitespace() => words.extend(word.take()),
            (None, character) => word.get_or_insert_default().push(character),
        }
    }
    anyhow::ensure!(quote.is_none(), "a quote is not closed in {line:?}");
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use bollard::models::MountType;

    use super::*;

    fn edits(change: impl FnOnce(&mut EditArgs)) -> EditArgs {
        let mut edits = EditArgs::nothing();
        change(&mut edits);
        edits
    }

    fn own(list: &[&str]) -> Vec<String> {
        list.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn lists_are_edited_by_name() {
        let mut container = TaskSpecContainerSpec::default();
        let given = edits(|edits| {
            edits.env_add = own(&["A=1", "B=2"]);
            edits.mount_add = own(&["type=tmpfs,target=/t", "type=tmpfs,target=/u/"]);
            edits.host_add = own(&["db:10.0.0.7", "db2:fd00::1"]);
            edits.ulimit_add = own(&["nofile=10:20", "nproc=-1"]);
            edits.sysctl_add = own(&["net.core.somaxconn=512"]);
            edits.dns_add = own(&["10.0.0.53"]);
        });
        given.apply_to(&mut container).unwrap();
        assert_eq!(container.hosts.as_deref(), Some(&own(&["10.0.0.7 db", "fd00::1 db2"])[..]));
        let given = edits(|edits| {
            edits.env_add = own(&["A=3"]);
            edits.env_rm = own(&["B"]);
            edits.mount_add = own(&["type=bind,source=/s,target=/t"]);
            edits.mount_rm = own(&["/u"]);
            edits.host_rm = own(&["db", "db2:fd00::2"]);
            edits.ulimit_rm = own(&["nofile"]);
            edits.sysctl_rm = own(&["net.core.somaxconn"]);
            edits.dns_rm = own(&["10.0.0.53"]);
        });
        given.apply_to(&mut container).unwrap();
        assert_eq!(container.env.unwrap(), ["A=3"]);
        let mounts = container.mounts.unwrap();
        assert_eq!((mounts.len(), mounts[0].typ), (1, Some(MountType::BIND)));
        assert_eq!(container.hosts.unwrap(), ["fd00::1 db2"]);
        assert_eq!(container.ulimits.unwrap().len(), 1);
        assert!(container.sysctls.unwrap().is_empty() && container.dns_config.unwrap().nameservers.unwrap().is_empty());
    }

    #[test]
    fn what_is_not_understood_says_what_is_expected() {
        for (wrong, part) in [
            (edits(|edits| edits.host_add = own(&["db"])), "db:10.0.0.7"),
            (edits(|edits| edits.host_add = own(&["db:nowhere"])), "IP address"),
            (edits(|edits| edits.ulimit_add = own(&["nofile"])), "nofile=1024:2048"),
            (edits(|edits| edits.env_add = own(&["SHOAL_NO_SUCH_VARIABLE"])), "no value"),
        ] {
            let error = wrong.apply_to(&mut TaskSpecContainerSpec::default()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(split_command("sh -c 'echo \"a b\"' \"\"").unwrap(), ["sh", "-c", "echo \"a b\"", ""]);
        assert!(split_command("sh 'a").is_err());
        assert_eq!(split_command("  ").unwrap(), Vec::<String>::new());
    }
}
