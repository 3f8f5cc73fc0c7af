//! `apiserver_admission_*`: how long each plugin, and all of them together, took to judge a request.

use super::Operation;
use super::when::{PLACES, Step, place};
use component::metrics::{Histogram, HistogramVec, Opts, Registry, Stability};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const BOUNDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];

/// What is asked for often is looked up once.
type Cells = Vec<[OnceLock<Histogram>; PLACES]>;

/// See the module.
pub(super) struct Measures {
    names: Vec<&'static str>,
    controllers: HistogramVec,
    steps: HistogramVec,
    /// By plugin, the whole chain last; then by step and operation, of those that let pass.
    cells: Cells,
}

impl Measures {
    pub(super) fn new(names: Vec<&'static str>, registry: &Registry) -> Self {
        let opts = |name, help| Opts { name, help, stability: Stability::Stable };
        Measures {
            cells: (0..=names.len()).map(|_| Default::default()).collect(),
            names,
            controllers: registry.histogram_vec(
                opts(
                    "apiserver_admission_controller_admission_duration_seconds",
                    "Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                ),
                &["name", "type", "operation", "rejected"],
                &BOUNDS,
            ),
            steps: registry.histogram_vec(
                opts(
                    "apiserver_admission_step_admission_duration_seconds",
                    "Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
                ),
                &["type", "operation", "rejected"],
                &BOUNDS,
            ),
        }
    }

    /// A plugin's answer; the whole chain's, behind the last one.
    fn took(&self, plugin: usize, step: Step, operation: Operation, passed: bool, time: Duration) {
        let of = |rejected: &str| match self.names.get(plugin) {
            Some(name) => self.controllers.with(&[name, step.name(), operation.name(), rejected]),
            None => self.steps.with(&[step.name(), operation.name(), rejected]),
        };
        let seconds = time.as_secs_f64();
        match self.cells.get(plugin) {
            Some(cells) if passed => {
                cells[place(step, operation)].get_or_init(|| of("false")).observe(seconds);
            }
            _ => of("true").observe(seconds),
        }
    }
}

/// Measures one step: each plugin, then all of them.
pub(super) struct Stopwatch<'a> {
    measures: Option<&'a Measures>,
    step: Step,
    operation: Operation,
    began: Instant,
    last: Instant,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn start(measures: Option<&'a Measures>, step: Step, operation: Operation) -> Self {
        let now = Instant::now();
        Stopwatch { measures, step, operation, began: now, last: now }
    }

    /// A plugin is done; where it refused, so is the step.
    pub(super) fn lap(&mut self, plugin: usize, passed: bool) {
        let Some(measures) = self.measures else { return };
        let now = Instant::now();
        let time = now.saturating_duration_since(std::mem::replace(&mut self.last, now));
        measures.took(plugin, self.step, self.operation, passed, time);
        if !passed {
            self.took(measures, false);
        }
    }

    pub(super) fn stop(self) {
        if let Some(measures) = self.measures {
            self.took(measures, true);
        }
    }

    fn took(&self, measures: &Measures, passed: bool) {
        let time = self.last.saturating_duration_since(self.began);
        measures.took(measures.names.len(), self.step, self.operation, passed, time);
    }
}
