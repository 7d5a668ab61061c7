//! Docker's `--init` without a program of its own: the first process forks the command, hands signals on to it, and
//! reaps whatever becomes an orphan.
//!
//! Input: a process that is about to execute a command. Output: in the child, a return, so that the command is
//! executed there; the parent ends as the command ends. It holds no descriptor but the standard ones.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

use super::report;

/// Forks; returns in the child only.
#[expect(unsafe_code, reason = "fork is unsafe for processes with threads, which this one is not")]
pub(super) fn fork_command() -> io::Result<()> {
    // Blocked before the fork, so that none is lost between it and the first wait.
    SigSet::all().thread_block()?;
    // SAFETY: this process has one thread, and the parent's half below never returns.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // A group of its own and, with a terminal, the foreground: Ctrl-C reaches the command, not us.
            let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
            take_foreground();
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            Ok(())
        }
        ForkResult::Parent { child } => {
            report::close_inherited();
            reap(child)
        }
    }
}

#[expect(unsafe_code, reason = "nix asks for a borrowed descriptor of standard input, which may be closed")]
fn take_foreground() {
    // SAFETY: plain integers; without a terminal the kernel refuses. SIGTTOU is blocked by the caller.
    unsafe { libc::tcsetpgrp(0, libc::getpgrp()) };
}

/// Waits for signals: a child's end is collected, everything else goes to the command.
#[expect(unsafe_code, reason = "close_range, sigwaitinfo and kill with real-time signals have no safe form")]
fn reap(command: Pid) -> ! {
    // SAFETY: nothing in this process uses a descriptor above 2 any more; it never returns.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_int::MAX, 0) };
    let all = SigSet::all();
    loop {
        // SAFETY: the set is valid, and no details are asked for.
        let signal = unsafe { libc::sigwaitinfo(all.as_ref(), std::ptr::null_mut()) };
        if signal == libc::SIGCHLD {
            collect(command);
        } else if signal > 0 {
            // SAFETY: plain integers.
            unsafe { libc::kill(command.as_raw(), signal) };
        }
    }
}

/// Collects all ended children; ends as the command did if it is among them.
fn collect(command: Pid) {
    loop {
        match waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => std::process::exit(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => end_by(signal),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
            Ok(_) | Err(_) => {}
        }
    }
}

/// The kernel spares a first process the signals that it does not handle, so that this one ends with the number.
fn end_by(signal: Signal) -> ! {
    let _ = kill(Pid::this(), signal);
    std::process::exit(128 + signal as i32)
}
