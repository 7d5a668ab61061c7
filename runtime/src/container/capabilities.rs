//! Capabilities: which of the kernel's privileges a container's root holds.
//!
//! Input: Docker's default set, what the operator adds and drops, and what the host itself has. Output: names for the
//! OCI spec. One default is stricter than Docker's: no `CAP_MKNOD`, since cgroup v2 has no device list without a BPF
//! program, and nothing in a container needs it.

use super::Privileges;

/// All capabilities in the kernel's order (linux/capability.h): the position is the number.
pub(super) const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    "SETFCAP",
];

/// The word for every capability.
const EVERY: &str = "ALL";

/// Returns a capability's name as the kernel spells it, or [`EVERY`]; `None` if there is none of that name.
pub(super) fn canonical(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if plain == EVERY { Some(EVERY) } else { ALL.into_iter().find(|known| *known == plain) }
}

/// Returns the bounding set as `CAP_…` in the kernel's order, by Docker's rules for `--cap-add` and `--cap-drop`.
/// `host` is the bit set of what the shim may itself: a container gets no more.
pub(super) fn bounding(privileges: &Privileges, host: u64) -> Vec<String> {
    let names = |list: &[String]| list.iter().filter_map(|name| canonical(name)).collect::<Vec<_>>();
    let (add, drop) = (names(&privileges.cap_add), names(&privileges.cap_drop));
    let wanted = |name: &&str| {
        let base = if drop.contains(&EVERY) {
            false
        } else {
            (DEFAULT.contains(name) || add.contains(&EVERY)) && !drop.contains(name)
        };
        base || (add.contains(name) && (drop.contains(&EVERY) || !drop.contains(name)))
    };
    let held = ALL.into_iter().enumerate().filter(|(bit, _)| host & (1 << bit) != 0).map(|(_, name)| name);
    held.filter(wanted).map(|name| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let privileges = Privileges { cap_add: own(add), cap_drop: own(drop), ..Privileges::default() };
        bounding(&privileges, u64::MAX)
    }

    #[test]
    fn adding_and_dropping_follow_docker() {
        assert_eq!(set(&[], &[]).len(), DEFAULT.len());
        assert!(set(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!set(&[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(set(&["SYS_TIME"], &["ALL"]), ["CAP_SYS_TIME"]);
        assert_eq!(set(&["ALL"], &[]).len(), ALL.len());
        assert_eq!(set(&["ALL"], &["MKNOD"]).len(), ALL.len() - 1);
        assert_eq!(set(&[], &["ALL"]), Vec::<String>::new());
    }

    #[test]
    fn the_numbers_are_those_of_the_kernel() {
        for (name, number) in [("CHOWN", 0), ("NET_RAW", 13), ("SYS_ADMIN", 21), ("SETFCAP", 31), ("BPF", 39)] {
            assert_eq!(ALL.iter().position(|known| *known == name), Some(number), "{name}");
        }
        assert_eq!(bounding(&Privileges::default(), 0b11), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
    }
}
