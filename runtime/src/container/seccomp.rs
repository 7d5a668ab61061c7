//! The system call filter: Docker's default list, widened by what the container's capabilities are for.
//!
//! Input: the lists below and the names of capabilities. Output: a classic BPF program, installed by a process on
//! itself just before it becomes the command, or the same as an OCI profile for runtimes that install it themselves. What is not listed fails with `EPERM`; what is newer than the list fails with `ENOSYS`, so that programs
//! fall back. Foreign calling conventions (32 bit) end the process. Written by hand, since the C library for this
//! would be a system dependency and the program is 200 instructions.

use std::io;

use libc::sock_filter;
use serde_json::{Value, json};

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

/// Above this, x86_64 numbers mean the x32 convention. On other platforms nothing is that high.
const X32_BIT: u32 = 0x4000_0000;

/// Flags of `clone` that make namespaces: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NAMESPACES: u32 = 0x7E02_0000;

/// Personalities that change no address layout: Linux, 32 bit, UNAME26, both, and the query.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// Offsets in `struct seccomp_data`; both platforms are little-endian, so the low half of an argument comes first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// Installs the filter for the calling process and all that it becomes. Needs no-new-privileges to be set.
#[expect(unsafe_code, reason = "the filter is handed to the kernel as a pointer")]
pub(super) fn install(capabilities: &[String]) -> io::Result<()> {
    let mut program = program(capabilities);
    let header = libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    // SAFETY: the header points at a live program of the stated length, which the kernel copies and checks.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const header, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the same list as the `linux.seccomp` of an OCI runtime spec.
pub(super) fn profile(capabilities: &[String]) -> Value {
    let mut names: Vec<&str> = allowed(capabilities).map(|(name, _)| name).collect();
    names.sort_unstable();
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" })];
    let argument = |value: u64, mask: Option<u64>| match mask {
        Some(mask) => json!([{ "index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }]),
        None => json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]),
    };
    if !may_make_namespaces(capabilities) {
        let args = argument(0, Some(u64::from(CLONE_NAMESPACES)));
        rules.push(json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": args }));
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
    }
    let not_vsock = json!([{ "index": 0, "value": libc::AF_VSOCK, "op": "SCMP_CMP_NE" }]);
    rules.push(json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": not_vsock }));
    rules.extend(PERSONALITIES.iter().map(|personality| {
        let args = argument(u64::from(*personality), None);
        json!({ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args })
    }));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "syscalls": rules })
}

fn may_make_namespaces(capabilities: &[String]) -> bool {
    capabilities.iter().any(|name| name == "CAP_SYS_ADMIN")
}

fn program(capabilities: &[String]) -> Vec<sock_filter> {
    let mut numbers: Vec<u32> = allowed(capabilities).map(|(_, number)| number as u32).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut code = vec![load(ARCH), jump(JEQ, AUDIT_ARCH, 1, 0), ret(KILL), load(NUMBER)];
    code.extend([jump(JGE, X32_BIT, 0, 1), ret(UNKNOWN)]);
    for (first, last) in ranges(&numbers) {
        code.extend([jump(JGE, first, 0, 2), jump(JGT, last, 1, 0), ret(ALLOW)]);
    }
    code.extend([jump(JEQ, libc::SYS_clone3 as u32, 0, 1), ret(UNKNOWN)]);
    code.extend([jump(JEQ, libc::SYS_clone as u32, 0, 4), load(FIRST_ARGUMENT)]);
    code.extend([jump(JSET, CLONE_NAMESPACES, 0, 1), ret(DENY), ret(ALLOW)]);
    code.extend([jump(JEQ, libc::SYS_socket as u32, 0, 4), load(FIRST_ARGUMENT)]);
    code.extend([jump(JEQ, libc::AF_VSOCK as u32, 0, 1), ret(DENY), ret(ALLOW)]);
    let personalities = PERSONALITIES.len() as u8;
    code.extend([jump(JEQ, libc::SYS_personality as u32, 0, personalities * 2 + 2), load(FIRST_ARGUMENT)]);
    code.extend(PERSONALITIES.iter().flat_map(|personality| [jump(JEQ, *personality, 0, 1), ret(ALLOW)]));
    code.push(ret(DENY));
    let newest = numbers.last().copied().unwrap_or(0);
    code.extend([jump(JGT, newest, 0, 1), ret(UNKNOWN), ret(DENY)]);
    code
}

type Call = (&'static str, libc::c_long);

fn allowed(capabilities: &[String]) -> impl Iterator<Item = Call> {
    let further = CAPABLE.iter().filter(|(name, _)| capabilities.iter().any(|held| held == name));
    let further = further.flat_map(|(_, calls)| calls.iter());
    let unnamed = [("io_pgetevents", IO_PGETEVENTS), ("fchmodat2", FCHMODAT2)];
    ALLOWED.iter().chain(ALLOWED_HERE).chain(further).copied().chain(unnamed)
}

/// Joins sorted numbers to inclusive ranges.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *number <= *last + 1 => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}

const JEQ: u32 = libc::BPF_JEQ;
const JGE: u32 = libc::BPF_JGE;
const JGT: u32 = libc::BPF_JGT;
const JSET: u32 = libc::BPF_JSET;

fn load(offset: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn jump(test: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt: if_true, jf: if_false, k: value }
}

fn ret(value: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: value }
}

macro_rules! numbers {
    // The kernel's name is what follows `SYS_`.
    ($($name:ident)*) => { &[$((stringify!($name).split_at(4).1, libc::$name)),*] };
}

/// The same on every platform; `libc` has it for x86_64 only.
const FCHMODAT2: libc::c_long = 452;
/// Not in the `libc` crate.
#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: libc::c_long = 333;
#[cfg(target_arch = "aarch64")]
const IO_PGETEVENTS: libc::c_long = 292;

/// Allowed whatever the arguments, on every platform.
#[rustfmt::skip]
const ALLOWED: &[Call] = numbers![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_chroot SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range
    SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve
    SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr
    SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex
    SYS_futex_waitv SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups
    SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid
    SYS_getresuid SYS_getrlimit SYS_get_robust_list SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid
    SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch
    SYS_io_cancel SYS_ioctl SYS_io_destroy SYS_io_getevents SYS_ioprio_get SYS_ioprio_set
    SYS_io_setup SYS_io_submit SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self
    SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr
    SYS_madvise SYS_membarrier SYS_memfd_create SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall
    SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend
    SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall
    SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_open
    SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64
    SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease SYS_process_vm_readv SYS_process_vm_writev SYS_pselect6
    SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom
    SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat SYS_renameat2 SYS_restart_syscall
    SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn
    SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_getaffinity SYS_sched_getattr
    SYS_sched_getparam SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getscheduler
    SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler
    SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg
    SYS_sendto SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority
    SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_set_robust_list SYS_setsid SYS_setsockopt
    SYS_set_tid_address SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack
    SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs
    SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime
    SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate
    SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
];

/// Further calls that only this platform has, mostly the older forms of those above.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[Call] = numbers![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_ctl_old
    SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_get_thread_area
    SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_memfd_secret SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open
    SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_set_thread_area SYS_signalfd SYS_stat
    SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[Call] = numbers![SYS_memfd_secret];

/// Allowed to who holds the capability, as in Docker's profile.
#[rustfmt::skip]
const CAPABLE: &[(&str, &[Call])] = &[
    ("CAP_SYS_ADMIN", numbers![
        SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_mount
        SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open SYS_pivot_root SYS_quotactl
        SYS_quotactl_fd SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog SYS_umount2 SYS_unshare
    ]),
    ("CAP_BPF", numbers![SYS_bpf]),
    ("CAP_DAC_READ_SEARCH", numbers![SYS_open_by_handle_at]),
    ("CAP_PERFMON", numbers![SYS_perf_event_open]),
    ("CAP_SYS_BOOT", numbers![SYS_reboot]),
    ("CAP_SYS_MODULE", numbers![SYS_delete_module SYS_finit_module SYS_init_module]),
    ("CAP_SYS_NICE", numbers![SYS_get_mempolicy SYS_mbind SYS_set_mempolicy SYS_set_mempolicy_home_node]),
    ("CAP_SYS_PACCT", numbers![SYS_acct]),
    ("CAP_SYS_PTRACE", numbers![SYS_kcmp SYS_pidfd_getfd SYS_process_madvise]),
    ("CAP_SYS_TIME", numbers![SYS_clock_settime SYS_settimeofday]),
    ("CAP_SYS_TTY_CONFIG", numbers![SYS_vhangup]),
    ("CAP_SYSLOG", numbers![SYS_syslog]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, on one call.
    fn decide(arch: u32, number: u32, argument: u32) -> u32 {
        run(&program(&[]), arch, number, argument)
    }

    fn run(program: &[sock_filter], arch: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0_usize, 0_u32);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            let taken = match code & !(libc::BPF_JMP | libc::BPF_K) {
                _ if code & 0x07 == libc::BPF_RET => return step.k,
                _ if code & 0x07 == libc::BPF_LD => {
                    accumulator = match step.k {
                        NUMBER => number,
                        ARCH => arch,
                        FIRST_ARGUMENT => argument,
                        offset => panic!("offset {offset}"),
                    };
                    continue;
                }
                JEQ => accumulator == step.k,
                JGE => accumulator >= step.k,
                JGT => accumulator > step.k,
                JSET => accumulator & step.k != 0,
                test => panic!("test {test}"),
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
    }

    fn decide_here(number: libc::c_long, argument: u32) -> u32 {
        decide(AUDIT_ARCH, number as u32, argument)
    }

    #[test]
    fn every_call_is_decided_as_the_list_says() {
        for number in 0..600 {
            let listed = allowed(&[]).any(|(_, allowed)| allowed == number);
            let special = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_socket, libc::SYS_personality];
            if !special.contains(&number) {
                assert_eq!(decide_here(number, 0) == ALLOW, listed, "call {number}");
            }
        }
        assert!(program(&[]).len() < 4096);
    }

    #[test]
    fn what_could_break_out_is_refused() {
        for number in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_kexec_load,
            libc::SYS_reboot,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_init_module,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_open_by_handle_at,
            libc::SYS_pivot_root,
        ] {
            assert_eq!(decide_here(number, 0), DENY, "call {number}");
        }
        assert_eq!(decide_here(libc::SYS_clone, libc::SIGCHLD as u32), ALLOW);
        assert_eq!(decide_here(libc::SYS_clone, libc::CLONE_NEWUSER as u32), DENY);
        assert_eq!(decide_here(libc::SYS_clone3, 0), UNKNOWN);
        assert_eq!(decide_here(libc::SYS_socket, libc::AF_INET as u32), ALLOW);
        assert_eq!(decide_here(libc::SYS_socket, libc::AF_VSOCK as u32), DENY);
        assert_eq!(decide_here(libc::SYS_personality, 0), ALLOW);
        assert_eq!(decide_here(libc::SYS_personality, 0x0004_0000), DENY);
        assert_eq!(decide_here(1000, 0), UNKNOWN);
        assert_eq!(decide(AUDIT_ARCH, X32_BIT | libc::SYS_mount as u32, 0), UNKNOWN);
        assert_eq!(decide(0x4000_0003, libc::SYS_read as u32, 0), KILL);
    }

    #[test]
    fn capabilities_widen_the_list() {
        let admin = program(&["CAP_SYS_ADMIN".to_owned()]);
        for number in [libc::SYS_mount, libc::SYS_clone3, libc::SYS_setns] {
            assert_eq!(run(&admin, AUDIT_ARCH, number as u32, 0), ALLOW, "call {number}");
        }
        assert_eq!(run(&admin, AUDIT_ARCH, libc::SYS_clone as u32, libc::CLONE_NEWUSER as u32), ALLOW);
        assert_eq!(run(&admin, AUDIT_ARCH, libc::SYS_kexec_load as u32, 0), DENY);
    }

    #[test]
    fn the_profile_names_what_the_program_allows() {
        let profile = profile(&[]);
        let names = profile["syscalls"][0]["names"].as_array().unwrap();
        assert!(
            names.len() > 200 && names.iter().any(|name| name == "openat") && !names.iter().any(|name| name == "mount")
        );
    }
}
