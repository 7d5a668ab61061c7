//! Kernel settings under `/proc/sys/net`, as the network namespace of the calling thread sees them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::link::LinkError;

/// Tells whether this kernel speaks IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf").is_dir()
}

/// Lets this host forward between interfaces, without losing the routes that it learns from router advertisements.
pub(crate) fn enable_forwarding() -> Result<(), LinkError> {
    set("ipv4/ip_forward", "1")?;
    if !has_ipv6() {
        return Ok(());
    }
    // A forwarding host ignores router advertisements unless told 2 (kernel's ip-sysctl, accept_ra), so a host whose
    // default route comes from them would lose it.
    if read("ipv6/conf/all/forwarding")? != "1" {
        for interface in interfaces()? {
            let accept = format!("ipv6/conf/{interface}/accept_ra");
            if read(&accept).is_ok_and(|value| value == "1") {
                set(&accept, "2")?;
            }
        }
    }
    set("ipv6/conf/all/forwarding", "1")
}

/// Sets the host's end of a task's link: no addresses of its own, and no IPv4 source that is not the task's.
pub(crate) fn prepare_task_link(interface: &str) -> Result<(), LinkError> {
    set(&format!("ipv4/conf/{interface}/rp_filter"), "1")?;
    set(&format!("ipv4/conf/{interface}/send_redirects"), "0")?;
    prepare_ipv6(interface)
}

/// Sets the node's TUN: no addresses but those we give it.
pub(crate) fn prepare_tun(interface: &str) -> Result<(), LinkError> {
    set(&format!("ipv4/conf/{interface}/send_redirects"), "0")?;
    prepare_ipv6(interface)
}

/// Sets an interface inside a task's network namespace.
pub(crate) fn prepare_inside(interface: &str) -> Result<(), LinkError> {
    prepare_ipv6(interface)
}

fn prepare_ipv6(interface: &str) -> Result<(), LinkError> {
    if !has_ipv6() {
        return Ok(());
    }
    set(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
    set(&format!("ipv6/conf/{interface}/accept_ra"), "0")?;
    set(&format!("ipv6/conf/{interface}/accept_dad"), "0")?;
    // 1: no link-local address is made, so the kernel has nobody to say hello to on this link.
    set(&format!("ipv6/conf/{interface}/addr_gen_mode"), "1")
}

fn interfaces() -> Result<Vec<String>, LinkError> {
    let path = PathBuf::from("/proc/sys/net/ipv6/conf");
    let failed = |source| LinkError::Sysctl { path: path.clone(), source };
    let names = fs::read_dir(&path).map_err(failed)?;
    names.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(failed)).collect()
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys/net").join(name)
}

fn read(name: &str) -> Result<String, LinkError> {
    let path = path(name);
    match fs::read_to_string(&path) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(source) => Err(LinkError::Sysctl { path, source }),
    }
}

/// Writes `value` unless it is there already: a read-only `/proc/sys` that is right is good enough.
fn set(name: &str, value: &str) -> Result<(), LinkError> {
    if read(name).is_ok_and(|present| present == value) {
        return Ok(());
    }
    let path = path(name);
    fs::write(&path, value).map_err(|source: io::Error| LinkError::Sysctl { path, source })
}
