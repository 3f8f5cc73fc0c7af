//! What a group uses, read from whichever layout there is; what cannot be read is absent.

use super::Cgroup;
use std::fs;
use std::path::Path;

/// A reading of everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// CPU time.
    pub cpu: Option<Cpu>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Waiting for input and output (v2).
    pub io_pressure: Option<[Pressure; 2]>,
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// Nanoseconds since the group was made.
    pub usage: u64,
    /// Some, full (v2).
    pub pressure: Option<[Pressure; 2]>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// All of it.
    pub usage: u64,
    /// Less what the kernel can drop at once: `total_inactive_file`.
    pub working_set: u64,
    /// The limit, if there is one.
    pub limit: Option<u64>,
    /// Anonymous memory.
    pub rss: u64,
    /// Since the group was made.
    pub page_faults: u64,
    /// Since the group was made.
    pub major_page_faults: u64,
    /// Swap in use.
    pub swap: Option<u64>,
    /// Swap that may be used, if limited.
    pub swap_limit: Option<u64>,
    /// Some, full (v2).
    pub pressure: Option<[Pressure; 2]>,
}

/// One line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Microseconds.
    pub total: u64,
    /// Percent over ten seconds.
    pub avg10: f64,
    /// Percent over a minute.
    pub avg60: f64,
    /// Percent over five minutes.
    pub avg300: f64,
}

/// v1 shows "no limit" as the largest multiple of a page.
pub(super) const UNLIMITED: u64 = 1 << 62;

impl Cgroup {
    /// Reads usage.
    pub fn stats(&self) -> Stats {
        match self.is_v2() {
            true => self.stats_v2(),
            false => self.stats_v1(),
        }
    }

    fn stats_v1(&self) -> Stats {
        let cpu = self.v1_dir("cpuacct").and_then(|dir| number(dir, "cpuacct.usage"));
        Stats {
            cpu: cpu.map(|usage| Cpu { usage, pressure: None }),
            memory: self.v1_dir("memory").and_then(memory_v1),
            pids: self.v1_dir("pids").and_then(|dir| number(dir, "pids.current")),
            io_pressure: None,
        }
    }

    fn stats_v2(&self) -> Stats {
        let Some(dir) = self.unified.as_deref() else { return Stats::default() };
        let cpu = fs::read_to_string(dir.join("cpu.stat")).ok().and_then(|text| field(&text, "usage_usec"));
        Stats {
            cpu: cpu.map(|micros| Cpu { usage: micros * 1000, pressure: pressure(dir, "cpu.pressure") }),
            memory: memory_v2(dir),
            pids: number(dir, "pids.current"),
            io_pressure: pressure(dir, "io.pressure"),
        }
    }
}

fn memory_v1(dir: &Path) -> Option<Memory> {
    let usage = number(dir, "memory.usage_in_bytes")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).ok()?;
    let get = |name| field(&stat, name).unwrap_or(0);
    let limit = number(dir, "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED);
    let both = number(dir, "memory.memsw.usage_in_bytes");
    let both_limit = number(dir, "memory.memsw.limit_in_bytes").filter(|limit| *limit < UNLIMITED);
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(get("total_inactive_file")),
        limit,
        rss: get("total_rss"),
        page_faults: get("total_pgfault"),
        major_page_faults: get("total_pgmajfault"),
        swap: both.map(|both| both.saturating_sub(usage)),
        swap_limit: both_limit.zip(limit).map(|(both, memory)| both.saturating_sub(memory)),
        pressure: None,
    })
}

fn memory_v2(dir: &Path) -> Option<Memory> {
    let usage = number(dir, "memory.current")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).ok()?;
    let get = |name| field(&stat, name).unwrap_or(0);
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(get("inactive_file")),
        // `max` is not a number.
        limit: number(dir, "memory.max"),
        rss: get("anon"),
        page_faults: get("pgfault"),
        major_page_faults: get("pgmajfault"),
        swap: number(dir, "memory.swap.current"),
        swap_limit: number(dir, "memory.swap.max"),
        pressure: pressure(dir, "memory.pressure"),
    })
}

pub(super) fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn pressure(dir: &Path, file: &str) -> Option<[Pressure; 2]> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    Some(["some", "full"].map(|kind| {
        let line = text.lines().find(|line| line.starts_with(kind)).unwrap_or("");
        let get = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let average = |name| get(name).and_then(|value| value.parse().ok()).unwrap_or(0.0);
        let total = get("total").and_then(|value| value.parse().ok()).unwrap_or(0);
        Pressure { total, avg10: average("avg10"), avg60: average("avg60"), avg300: average("avg300") }
    }))
}
