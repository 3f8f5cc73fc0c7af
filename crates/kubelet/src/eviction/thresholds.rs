//! Signals, and the thresholds that are set for them: pure. Upstream: `pkg/kubelet/eviction/api` and `helpers.go`.

use std::time::Duration;

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

/// What pods are asked to give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    EphemeralStorage,
    Inodes,
    Pids,
}

/// The node condition that a signal makes true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    Memory,
    Disk,
    Pid,
}

const SIGNALS: [(Signal, &str, Resource, Pressure); 6] = [
    (Signal::MemoryAvailable, "memory.available", Resource::Memory, Pressure::Memory),
    (Signal::NodeFsAvailable, "nodefs.available", Resource::EphemeralStorage, Pressure::Disk),
    (Signal::NodeFsInodesFree, "nodefs.inodesFree", Resource::Inodes, Pressure::Disk),
    (Signal::ImageFsAvailable, "imagefs.available", Resource::EphemeralStorage, Pressure::Disk),
    (Signal::ImageFsInodesFree, "imagefs.inodesFree", Resource::Inodes, Pressure::Disk),
    (Signal::PidAvailable, "pid.available", Resource::Pids, Pressure::Pid),
];

impl Signal {
    fn row(self) -> &'static (Signal, &'static str, Resource, Pressure) {
        SIGNALS.iter().find(|row| row.0 == self).unwrap_or(&SIGNALS[0])
    }

    pub(crate) fn name(self) -> &'static str {
        self.row().1
    }

    pub(crate) fn resource(self) -> Resource {
        self.row().2
    }

    pub(crate) fn pressure(self) -> Pressure {
        self.row().3
    }

    pub(crate) fn is_of_images(self) -> bool {
        matches!(self, Signal::ImageFsAvailable | Signal::ImageFsInodesFree)
    }
}

impl Resource {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::EphemeralStorage => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }
}

impl Pressure {
    pub(crate) fn condition(self) -> &'static str {
        match self {
            Pressure::Memory => "MemoryPressure",
            Pressure::Disk => "DiskPressure",
            Pressure::Pid => "PIDPressure",
        }
    }
}

/// How much must be left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    Absolute(i64),
    /// Of the capacity.
    Percent(f64),
}

impl Amount {
    /// In the signal's unit.
    pub(crate) fn of(self, capacity: i64) -> i64 {
        match self {
            Amount::Absolute(amount) => amount,
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }
}

/// When to act.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub least: Amount,
    /// How long it may be crossed; a hard threshold may not be at all.
    pub grace: Option<Duration>,
    /// How much more must be free before it counts as over.
    pub reclaim: Option<Amount>,
}

fn amount(text: &str) -> Result<Amount, String> {
    let wrong = || format!("invalid eviction threshold value {text:?}");
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
            (0.0..=100.0).contains(&percent).then_some(Amount::Percent(percent)).ok_or_else(wrong)
        }
        None => {
            let quantity: apimachinery::quantity::Quantity = text.parse().map_err(|_| wrong())?;
            Ok(Amount::Absolute(quantity.value()))
        }
    }
}

/// Thresholds as flags have them: pairs of a signal and an amount; soft ones with their grace periods.
pub(crate) fn parse(
    hard: &[(String, String)],
    soft: &[(String, String)],
    grace: &[(String, Duration)],
    reclaim: &[(String, String)],
) -> Result<Vec<Threshold>, String> {
    let signal = |name: &str| {
        let found = SIGNALS.iter().find(|row| row.1 == name);
        found.map(|row| row.0).ok_or_else(|| format!("unsupported eviction signal {name}"))
    };
    let back = |name: &str| {
        reclaim.iter().find(|(known, _)| known == name).map(|(_, text)| amount(text)).transpose()
    };
    let mut out = Vec::new();
    for (name, text) in hard {
        out.push(Threshold {
            signal: signal(name)?,
            least: amount(text)?,
            grace: None,
            reclaim: back(name)?,
        });
    }
    for (name, text) in soft {
        let period = grace.iter().find(|(known, _)| known == name).map(|(_, period)| *period);
        let period = period.ok_or_else(|| {
            format!("grace period must be specified for the soft eviction threshold {name}")
        })?;
        let (signal, least) = (signal(name)?, amount(text)?);
        out.push(Threshold { signal, least, grace: Some(period), reclaim: back(name)? });
    }
    // A threshold of nothing is none.
    out.retain(|one| !matches!(one.least, Amount::Absolute(0) | Amount::Percent(0.0)));
    Ok(out)
}

/// Thresholds of `--eviction-hard`: `memory.available<100Mi,nodefs.available<10%`; nothing for none.
pub fn parse_hard(text: &str) -> Result<Vec<Threshold>, String> {
    let pairs = text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(|one| {
        let (signal, least) = one.split_once('<').ok_or_else(|| {
            format!("invalid eviction threshold syntax {one:?}, expected <signal><operator><value>")
        })?;
        Ok((signal.to_owned(), least.to_owned()))
    });
    parse(&pairs.collect::<Result<Vec<_>, String>>()?, &[], &[], &[])
}

/// Upstream's hard thresholds.
pub(crate) fn default_hard() -> Vec<(String, String)> {
    [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ]
    .map(|(signal, least)| (signal.to_owned(), least.to_owned()))
    .to_vec()
}
