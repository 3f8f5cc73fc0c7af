//! What a process uses: CPU time, context switches, memory, as the kernel counts them.

use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

/// A running process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pid(pub u32);

impl Pid {
    pub(crate) fn own() -> Self {
        Pid(std::process::id())
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| path)
    }

    /// User and system time so far, of threads that have ended too.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The command may hold spaces and parentheses: count from behind it.
        let fields = stat.rsplit_once(')').context("/proc/PID/stat has no command")?.1;
        let mut fields = fields.split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|t| t.parse::<u64>().ok()).context("/proc/PID/stat");
        let ticks = ticks()? + ticks()?;
        Ok(Duration::from_micros(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()))
    }

    /// Context switches so far, of each thread that lives.
    pub(crate) fn switches(self) -> Result<Switches> {
        let mut all = HashMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let task = task?;
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            let count =
                field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
            all.insert(task.file_name(), count);
        }
        Ok(Switches(all))
    }

    /// Resident bytes, and those of them that are no file's.
    pub(crate) fn memory(self) -> Result<(u64, u64)> {
        let status = self.read("status")?;
        Ok((field(&status, "VmRSS:") << 10, field(&status, "RssAnon:") << 10))
    }
}

/// Context switches by thread: one that has ended takes none of the others' away.
#[derive(Debug, Default)]
pub(crate) struct Switches(HashMap<OsString, u64>);

impl Switches {
    pub(crate) fn since(&self, earlier: &Switches) -> u64 {
        self.0.iter().map(|(thread, n)| n - earlier.0.get(thread).copied().unwrap_or(0).min(*n)).sum()
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// CPU time of the server (if it is known which it is) and of this process, from a moment on.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Option<(Pid, Duration)>,
    own: Duration,
}

/// What was used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub server: Option<Duration>,
    pub own: Duration,
}

impl Meter {
    pub(crate) fn start(server: Option<Pid>) -> Result<Self> {
        let server = server.map(|pid| Ok::<_, anyhow::Error>((pid, pid.cpu()?))).transpose()?;
        Ok(Meter { server, own: Pid::own().cpu()? })
    }

    pub(crate) fn stop(self) -> Result<Used> {
        let server = self.server.map(|(pid, before)| Ok::<_, anyhow::Error>(pid.cpu()? - before));
        Ok(Used { server: server.transpose()?, own: Pid::own().cpu()? - self.own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let pid = Pid::own();
        let meter = Meter::start(Some(pid)).unwrap();
        let mut sum = 0_u64;
        while pid.cpu().unwrap() - meter.own < Duration::from_millis(20) {
            sum = (0..100_000).fold(sum, |a, b| a.wrapping_mul(31).wrapping_add(b));
        }
        let used = meter.stop().unwrap();
        assert!(used.own >= Duration::from_millis(20), "{used:?} {sum}");
        assert!(used.server.unwrap() >= Duration::from_millis(20));
        let (rss, anon) = pid.memory().unwrap();
        assert!(rss > anon && anon > 0);
        let of = |all: &[(&str, u64)]| Switches(all.iter().map(|(t, n)| (t.into(), *n)).collect());
        assert_eq!(of(&[("1", 9), ("3", 2)]).since(&of(&[("1", 4), ("2", 100)])), 7);
        assert_eq!(field("a:\t1 kB\nVmRSS:\t  42 kB\n", "VmRSS:"), 42);
    }
}
