//! What of a decision takes how long: laps at upstream's extension points, and how often each plugin had its say at them.

use crate::plugins::PLUGINS;
use std::time::{Duration, Instant};

/// Where plugins have their say. Upstream: extension points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    PreBind,
    Bind,
}

impl Point {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Point::PreFilter => "PreFilter",
            Point::Filter => "Filter",
            Point::PostFilter => "PostFilter",
            Point::PreScore => "PreScore",
            Point::Score => "Score",
            Point::Reserve => "Reserve",
            Point::PreBind => "PreBind",
            Point::Bind => "Bind",
        }
    }
}

/// The points at which it is counted how often plugins have their say.
const COUNTED: [Point; 4] = [Point::PreFilter, Point::Filter, Point::PreScore, Point::Score];

/// What came of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Success,
    Unschedulable,
    UnschedulableAndUnresolvable,
    Error,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Success => "Success",
            Status::Unschedulable => "Unschedulable",
            Status::UnschedulableAndUnresolvable => "UnschedulableAndUnresolvable",
            Status::Error => "Error",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lap {
    pub point: Point,
    pub status: Status,
    pub took: Duration,
}

/// Runs through one decision.
#[derive(Debug)]
pub struct Stopwatch {
    began: Instant,
    since: Instant,
    laps: Vec<Lap>,
    evaluations: [Vec<u64>; COUNTED.len()],
}

impl Default for Stopwatch {
    fn default() -> Self {
        let now = Instant::now();
        let evaluations = std::array::from_fn(|_| vec![0; PLUGINS.len()]);
        Stopwatch { began: now, since: now, laps: Vec::with_capacity(6), evaluations }
    }
}

impl Stopwatch {
    /// All since the last lap belongs to this point, which is over.
    pub(crate) fn lap(&mut self, point: Point, status: Status) {
        let now = Instant::now();
        self.laps.push(Lap { point, status, took: now - self.since });
        self.since = now;
    }

    /// All since the last lap is added to this point, where there is one of it already.
    pub(crate) fn more(&mut self, point: Point) {
        let now = Instant::now();
        let took = now - self.since;
        self.since = now;
        match self.laps.iter_mut().find(|lap| lap.point == point) {
            Some(lap) => lap.took += took,
            None => self.laps.push(Lap { point, status: Status::Success, took }),
        }
    }

    /// A plugin had its say at a point, so many times.
    pub(crate) fn count(&mut self, point: Point, plugin: usize, times: u64) {
        if let Some(at) = COUNTED.iter().position(|counted| *counted == point) {
            self.evaluations[at][plugin] += times;
        }
    }

    /// The time since it was started.
    pub(crate) fn whole(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn laps(&self) -> &[Lap] {
        &self.laps
    }

    /// How often plugins, by their place in the list, had their say.
    pub fn evaluations(&self) -> impl Iterator<Item = (Point, usize, u64)> + '_ {
        COUNTED.iter().zip(&self.evaluations).flat_map(|(point, times)| {
            let counted = times.iter().enumerate().filter(|(_, times)| **times > 0);
            counted.map(|(plugin, times)| (*point, plugin, *times))
        })
    }
}
