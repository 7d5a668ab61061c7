//! The container's network namespace, as far as the runtime cares: the loopback link comes up before anything runs.
//!
//! Everything else (veth, addresses, routes) is plugged in by the overlay between `create` and `start`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sched::{CloneFlags, setns};

/// Brings `lo` up in the network namespace of `pid`. Only for a single-threaded process, which visits that namespace.
pub(super) fn raise_loopback(pid: i32) -> io::Result<()> {
    let own = File::open("/proc/self/ns/net")?;
    setns(File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
    let result = set_up("lo");
    setns(own, CloneFlags::CLONE_NEWNET)?;
    result
}

#[expect(unsafe_code, reason = "link flags are set by ioctl; netlink would be a dependency for one bit")]
fn set_up(link: &str) -> io::Result<()> {
    // SAFETY: creates a descriptor from no pointers; the result is checked before it is owned.
    let socket = unsafe {
        match libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) {
            -1 => return Err(io::Error::last_os_error()),
            descriptor => OwnedFd::from_raw_fd(descriptor),
        }
    };
    // SAFETY: `ifreq` is plain bytes, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(link.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the kernel reads and writes one `ifreq` at the address of one; the flags are the union's live field
    // after SIOCGIFFLAGS.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request) == -1 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
