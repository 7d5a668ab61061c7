//! The lease: a container that must not outlive its daemon for long.
//!
//! Input: the lease of the spec, the change time of its file, this host's clock since boot, which runs on while the host
//! sleeps and cannot be set. Output: the signals by which the container ends once the daemon has not touched the file
//! for too long. What has begun to end ends, though the daemon comes back.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use super::super::Lease;

/// How often the file is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// What a shim knows of its lease.
#[derive(Debug)]
pub(super) struct Watch {
    lease: Lease,
    touched: Option<SystemTime>,
    /// When it was last seen to have been touched, by the clock since boot.
    seen_at: Duration,
    /// When the container was asked to end.
    asked_at: Option<Duration>,
    killed: bool,
}

impl Watch {
    /// Begins now.
    pub(super) fn new(lease: Lease) -> Self {
        let touched = touched(&lease);
        Self { lease, touched, seen_at: since_boot(), asked_at: None, killed: false }
    }

    /// Looks at the file, and returns the signal that is to be sent now, if any.
    pub(super) fn look(&mut self) -> Option<i32> {
        let now = since_boot();
        if let Some(asked_at) = self.asked_at {
            let kills = !self.killed && now.saturating_sub(asked_at) >= Duration::from_millis(self.lease.grace_ms);
            self.killed |= kills;
            return kills.then_some(libc::SIGKILL);
        }
        let silent = now.saturating_sub(self.seen_at);
        // Judged before the file is looked at: a host that slept for so long must not go on.
        if silent >= Duration::from_millis(self.lease.timeout_ms) {
            self.asked_at = Some(now);
            return Some(self.lease.signal);
        }
        let touched = touched(&self.lease);
        if touched.is_some() && touched != self.touched {
            (self.touched, self.seen_at) = (touched, now);
        }
        None
    }
}

fn touched(lease: &Lease) -> Option<SystemTime> {
    fs::metadata(&lease.file).and_then(|metadata| metadata.modified()).ok()
}

/// Returns the time since the host started, sleep included.
#[expect(unsafe_code, reason = "the standard library has no clock that counts sleep")]
fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a value of the right type that lives until the call is over.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    assert!(result == 0, "every Linux since 2.6.39 has this clock: {}", io::Error::last_os_error());
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
