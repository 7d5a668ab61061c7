//! What a container uses: processor time, memory, processes, network.
//!
//! Input: the files of its cgroups, v1 or v2, and `/proc/<pid>/net/dev`. Output: [`Stats`], the kernel's own counters;
//! what a host does not count is 0 or `None`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;

/// Nanoseconds in one tick of `cpuacct.stat`: `USER_HZ` is 100 on all Linux platforms.
const TICK_NS: u64 = 10_000_000;

/// Most block devices that are told of.
const BLOCKS_MAX: usize = 64;

/// Above this, a v1 memory limit means none.
const NO_LIMIT: u64 = i64::MAX as u64 / 2;

/// What a container has used since its start, or uses now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// When it was read, milliseconds since the Unix epoch.
    pub read_at_ms: u64,
    /// Processor time in nanoseconds, over all processors.
    pub cpu_ns: u64,
    /// Of that, in user mode.
    pub cpu_user_ns: u64,
    /// Of that, in the kernel.
    pub cpu_system_ns: u64,
    /// Scheduling periods in which its CPU limit was looked at.
    pub cpu_periods: u64,
    /// Of those, in which it was held back.
    pub cpu_throttled_periods: u64,
    /// How long it was held back, in nanoseconds.
    pub cpu_throttled_ns: u64,
    /// Memory in bytes, page cache included.
    pub memory_bytes: u64,
    /// Of that, page cache that the kernel would give back first; Docker shows memory without it.
    pub memory_inactive_file_bytes: u64,
    /// The most it has had.
    pub memory_peak_bytes: u64,
    /// Its limit, if it has one.
    pub memory_limit_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory.
    pub oom_kills: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Their limit, if there is one.
    pub pids_limit: Option<u64>,
    /// Links of its network but `lo`, by name.
    pub networks: Vec<NetworkStats>,
    /// Block devices that it read or wrote, by number.
    pub blocks: Vec<BlockStats>,
}

/// Traffic with one block device. What is only in the page cache yet does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStats {
    /// Numbers of the device.
    pub device: (u64, u64),
    /// Bytes and requests read.
    pub read: [u64; 2],
    /// Bytes and requests written.
    pub written: [u64; 2],
}

/// Traffic over one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// Name inside the container.
    pub name: String,
    /// Received bytes, packets, errors, drops.
    pub received: [u64; 4],
    /// Sent bytes, packets, errors, drops.
    pub sent: [u64; 4],
}

/// One process of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerProcess {
    /// Number on the host.
    pub pid: i32,
    /// Its parent's, on the host.
    pub parent: i32,
    /// User id on the host.
    pub uid: u32,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
    /// Command line; the name in brackets if it has none.
    pub command: String,
}

/// Reads what a container uses. `pid` is its first process.
pub(super) fn read(cgroup: &Cgroup, pid: i32, read_at_ms: u64) -> Stats {
    let mut stats = Stats { read_at_ms, oom_kills: cgroup.oom_kills(), ..Stats::default() };
    let group = |controller: &str| cgroup.group_with(controller).unwrap_or_else(|| PathBuf::from("/nonexistent"));
    if cgroup.has_v1() {
        read_v1(&mut stats, &group("cpu"), &group("cpuacct"), &group("memory"));
        let blkio = group("blkio");
        let of = |file: &str| text(&blkio, &format!("blkio.throttle.{file}_recursive"));
        stats.blocks = blocks_v1(&of("io_service_bytes"), &of("io_serviced"));
    } else {
        read_v2(&mut stats, &cgroup.any_group().unwrap_or_default());
    }
    let pids = group("pids");
    stats.pids = number(&pids, "pids.current").unwrap_or(0);
    stats.pids_limit = number(&pids, "pids.max");
    stats.networks = networks(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default());
    stats
}

fn read_v1(stats: &mut Stats, cpu: &Path, cpuacct: &Path, memory: &Path) {
    stats.cpu_ns = number(cpuacct, "cpuacct.usage").unwrap_or(0);
    let modes = text(cpuacct, "cpuacct.stat");
    stats.cpu_user_ns = field(&modes, "user") * TICK_NS;
    stats.cpu_system_ns = field(&modes, "system") * TICK_NS;
    let throttling = text(cpu, "cpu.stat");
    stats.cpu_periods = field(&throttling, "nr_periods");
    stats.cpu_throttled_periods = field(&throttling, "nr_throttled");
    stats.cpu_throttled_ns = field(&throttling, "throttled_time");
    stats.memory_bytes = number(memory, "memory.usage_in_bytes").unwrap_or(0);
    stats.memory_inactive_file_bytes = field(&text(memory, "memory.stat"), "total_inactive_file");
    stats.memory_peak_bytes = number(memory, "memory.max_usage_in_bytes").unwrap_or(0);
    stats.memory_limit_bytes = number(memory, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
}

fn read_v2(stats: &mut Stats, group: &Path) {
    let cpu = text(group, "cpu.stat");
    let ns = |name| field(&cpu, name).saturating_mul(1000);
    stats.cpu_ns = ns("usage_usec");
    stats.cpu_user_ns = ns("user_usec");
    stats.cpu_system_ns = ns("system_usec");
    stats.cpu_periods = field(&cpu, "nr_periods");
    stats.cpu_throttled_periods = field(&cpu, "nr_throttled");
    stats.cpu_throttled_ns = ns("throttled_usec");
    stats.memory_bytes = number(group, "memory.current").unwrap_or(0);
    stats.memory_inactive_file_bytes = field(&text(group, "memory.stat"), "inactive_file");
    stats.memory_peak_bytes = number(group, "memory.peak").unwrap_or(0);
    stats.memory_limit_bytes = number(group, "memory.max");
    stats.blocks = blocks_v2(&text(group, "io.stat"));
}

/// Parses the two files of `blkio.throttle`: lines `MAJOR:MINOR Read|Write N`, and others.
fn blocks_v1(bytes: &str, requests: &str) -> Vec<BlockStats> {
    let mut blocks = BTreeMap::new();
    for (index, text) in [bytes, requests].into_iter().enumerate() {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(device), Some(what), Some(Ok(value))) =
                (words.next().and_then(device), words.next(), words.next().map(str::parse))
            else {
                continue;
            };
            let block: &mut BlockStats = blocks.entry(device).or_default();
            match what {
                "Read" => block.read[index] = value,
                "Write" => block.written[index] = value,
                _ => {}
            }
        }
    }
    in_order(blocks)
}

/// Parses `io.stat`: lines `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …`.
fn blocks_v2(text: &str) -> Vec<BlockStats> {
    let mut blocks = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next().and_then(device) else { continue };
        let block: &mut BlockStats = blocks.entry(device).or_default();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match name {
                "rbytes" => block.read[0] = value,
                "rios" => block.read[1] = value,
                "wbytes" => block.written[0] = value,
                "wios" => block.written[1] = value,
                _ => {}
            }
        }
    }
    in_order(blocks)
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn in_order(blocks: BTreeMap<(u64, u64), BlockStats>) -> Vec<BlockStats> {
    let used = blocks.into_iter().filter(|(_, block)| block.read != [0, 0] || block.written != [0, 0]);
    used.take(BLOCKS_MAX).map(|(device, block)| BlockStats { device, ..block }).collect()
}

fn text(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).unwrap_or_default()
}

/// Reads a file of one number; `max` is none.
fn number(group: &Path, file: &str) -> Option<u64> {
    text(group, file).trim().parse().ok()
}

fn field(text: &str, name: &str) -> u64 {
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    values.next().unwrap_or(0)
}

/// Parses `/proc/<pid>/net/dev`, see proc(5).
fn networks(text: &str) -> Vec<NetworkStats> {
    let parse = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let (received, sent) = (numbers.get(..4)?.try_into().ok()?, numbers.get(8..12)?.try_into().ok()?);
        Some(NetworkStats { name: name.trim().to_owned(), received, sent })
    };
    text.lines().filter_map(parse).filter(|link| link.name != "lo").collect()
}

/// Reads what is known of a process; `None` if it has ended.
pub(super) fn process(pid: i32) -> Option<ContainerProcess> {
    let directory = PathBuf::from(format!("/proc/{pid}"));
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    // The name is in brackets and may hold any character, so that the last bracket ends it.
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    let line = fs::read(directory.join("cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
    Some(ContainerProcess {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        uid: of("Uid:")?.parse().ok()?,
        cpu_ms: (ticks(11) + ticks(12)) * (TICK_NS / 1_000_000),
        memory_bytes: of("VmRSS:").and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024,
        command: if line.is_empty() { format!("[{name}]") } else { line },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_v2_are_read() {
        let top = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(top.path().join(file), text).unwrap();
        write(
            "cpu.stat",
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 7\nnr_throttled 2\nthrottled_usec 9\n",
        );
        write("memory.current", "4096\n");
        write("memory.max", "max\n");
        write("memory.stat", "anon 1\ninactive_file 2048\n");
        let mut stats = Stats::default();
        read_v2(&mut stats, top.path());
        assert_eq!((stats.cpu_ns, stats.cpu_user_ns, stats.cpu_throttled_ns), (1_500_000, 1_000_000, 9_000));
        assert_eq!(
            (stats.memory_bytes, stats.memory_inactive_file_bytes, stats.memory_limit_bytes),
            (4096, 2048, None)
        );
        assert_eq!((stats.cpu_periods, stats.cpu_throttled_periods), (7, 2));
    }

    #[test]
    fn block_devices_are_read_alike_in_both_versions() {
        let bytes =
            "8:16 Read 4096\n8:16 Write 100\n8:16 Sync 1\n8:16 Total 4196\n254:0 Read 0\n254:0 Write 0\nTotal 4196\n";
        let requests = "8:16 Read 2\n8:16 Write 1\nTotal 3\n";
        let v2 = "8:16 rbytes=4096 wbytes=100 rios=2 wios=1 dbytes=0 dios=0\n254:0 \nnonsense\n7:x rbytes=1\n";
        let block = BlockStats { device: (8, 16), read: [4096, 2], written: [100, 1] };
        assert_eq!(blocks_v1(bytes, requests), blocks_v2(v2));
        assert_eq!(blocks_v2(v2), [block]);
        assert_eq!((blocks_v1("", "\n"), blocks_v2("8:0")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn links_are_read_without_loopback() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 4 0 0 0 0 50 6 7 8 0 0 0 0\n";
        let links = networks(text);
        assert_eq!(links.len(), 1);
        assert_eq!((links[0].received, links[0].sent), ([100, 2, 3, 4], [50, 6, 7, 8]));
    }

    #[test]
    fn this_process_is_described() {
        let own = process(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.command.contains("shoal") && own.memory_bytes > 0 && own.parent > 0);
        assert_eq!(process(-1), None);
    }
}
