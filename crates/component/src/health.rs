//! Health endpoints: named checks in order, the answers of /healthz, /livez, /readyz and of `/readyz/<check>`, in
//! upstream's texts (apiserver/pkg/server/healthz). Checks are quick and never wait: they look at what is known.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;
use std::time::{Duration, Instant};

use crate::metrics::{CounterVec, GaugeVec, Opts, Registry, Stability};

type CheckFn = dyn Fn() -> Result<(), String> + Send + Sync;

#[derive(Clone)]
struct Check {
    name: String,
    group: Option<String>,
    run: Arc<CheckFn>,
}

/// The checks of one endpoint. Clones share them.
#[derive(Clone)]
pub struct Checks(Arc<Inner>);

struct Inner {
    /// `healthz`, `livez` or `readyz`.
    endpoint: String,
    checks: RwLock<Vec<Check>>,
    metrics: Option<(GaugeVec, CounterVec)>,
}

/// An answer: status, plain text, to be sent with `X-Content-Type-Options: nosniff`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// What failed and why: for the log, not for the caller.
    pub reasons: Vec<String>,
}

/// The media type of every answer.
pub const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

impl Checks {
    /// An endpoint with upstream's first check, `ping`. With a registry, results are counted there.
    pub fn new(endpoint: &str, registry: Option<&Registry>) -> Checks {
        let metrics = registry.map(|r| {
            let opts = |name, help| Opts { name, help, stability: Stability::Stable };
            (
                r.gauge_vec(
                    opts("kubernetes_healthcheck", "This metric records the result of a single healthcheck."),
                    &["name", "type"],
                ),
                r.counter_vec(
                    opts(
                        "kubernetes_healthchecks_total",
                        "This metric records the results of all healthcheck.",
                    ),
                    &["name", "type", "status"],
                ),
            )
        });
        let checks =
            Checks(Arc::new(Inner { endpoint: endpoint.to_owned(), checks: RwLock::default(), metrics }));
        checks.add("ping", || Ok(()));
        checks
    }

    /// Adds a check; its error text is logged and shown at its own path only.
    pub fn add(&self, name: &str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.push(name, None, Arc::new(check));
    }

    /// Adds a check that `?exclude=<group>` leaves out together with its group.
    pub fn add_grouped(
        &self,
        name: &str,
        group: &str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.push(name, Some(group.to_owned()), Arc::new(check));
    }

    /// Adds a check that fails with `not finished` until the latch is closed, as for `poststarthook/…`; while `grace`
    /// lasts it is taken for closed.
    pub fn add_latch(&self, name: &str, latch: &Latch, grace: Duration) {
        let (latch, began) = (latch.clone(), Instant::now());
        self.add(name, move || match latch.is_done() || began.elapsed() < grace {
            true => Ok(()),
            false => Err("not finished".into()),
        });
    }

    fn push(&self, name: &str, group: Option<String>, run: Arc<CheckFn>) {
        self.0.checks.write().push(Check { name: name.to_owned(), group, run });
    }

    pub fn names(&self) -> Vec<String> {
        self.0.checks.read().iter().map(|c| c.name.clone()).collect()
    }

    /// The endpoint's answer. `verbose` and `excluded` are the query's (`?verbose&exclude=etcd&exclude=log`).
    pub fn answer(&self, verbose: bool, excluded: &[impl AsRef<str>]) -> Answer {
        let excluded: Vec<&str> = excluded.iter().map(AsRef::as_ref).collect();
        let mut unknown = excluded.clone();
        unknown.sort_unstable();
        unknown.dedup();
        let (mut lines, mut reasons) = (String::new(), Vec::new());
        let checks = self.0.checks.read().clone();
        for check in &checks {
            let name = &check.name;
            if excluded.contains(&name.as_str()) {
                unknown.retain(|u| u != name);
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
                continue;
            }
            if let Some(group) = check.group.as_deref().filter(|g| excluded.contains(g)) {
                unknown.retain(|u| *u != group);
                lines.push_str(&format!("[+]{name} excluded with {group}: ok\n"));
                continue;
            }
            let result = (check.run)();
            self.observe(name, result.is_ok());
            match result {
                // The endpoint is public: the reason is for the log.
                Err(reason) => {
                    lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                    reasons.push(format!("[-]{name} failed: {reason}"));
                }
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            }
        }
        if !unknown.is_empty() {
            let quoted: Vec<_> = unknown.iter().map(|u| format!("{u:?}")).collect();
            lines.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {}\n",
                quoted.join(",")
            ));
        }
        let endpoint = &self.0.endpoint;
        if !reasons.is_empty() {
            return Answer { status: 500, body: format!("{lines}{endpoint} check failed\n"), reasons };
        }
        let body = if verbose { format!("{lines}{endpoint} check passed\n") } else { "ok".into() };
        Answer { status: 200, body, reasons }
    }

    /// The answer at `/<endpoint>/<name>`; nothing when there is no such check (404).
    pub fn answer_one(&self, name: &str) -> Option<Answer> {
        let check = self.0.checks.read().iter().find(|c| c.name == name)?.clone();
        Some(match (check.run)() {
            Ok(()) => Answer { status: 200, body: "ok".into(), reasons: Vec::new() },
            Err(reason) => Answer {
                status: 500,
                body: format!("internal server error: {reason}\n"),
                reasons: vec![reason],
            },
        })
    }

    /// Whether everything is well, without an answer.
    pub fn is_ok(&self) -> bool {
        let checks = self.0.checks.read().clone();
        checks.iter().all(|c| (c.run)().is_ok())
    }

    fn observe(&self, name: &str, ok: bool) {
        if let Some((gauge, counter)) = &self.0.metrics {
            gauge.with(&[name, &self.0.endpoint]).set(if ok { 1.0 } else { 0.0 });
            counter.with(&[name, &self.0.endpoint, if ok { "success" } else { "error" }]).inc();
        }
    }
}

/// The check `log`: whether somebody takes what is logged. A pipe that nobody empties blocks the program.
pub fn log() -> Result<(), String> {
    let stderr = std::io::stderr();
    let mut wanted = [rustix::event::PollFd::new(&stderr, rustix::event::PollFlags::OUT)];
    let none = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut wanted, Some(&none)) {
        Ok(0) => Err("logging blocked".into()),
        _ => Ok(()),
    }
}

/// Something that happens once.
#[derive(Clone, Debug, Default)]
pub struct Latch(Arc<AtomicBool>);

impl Latch {
    pub fn done(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn answers() {
        let registry = Registry::new();
        let checks = Checks::new("readyz", Some(&registry));
        let latch = Latch::default();
        checks.add_latch("poststarthook/rbac/bootstrap-roles", &latch, Duration::ZERO);
        checks.add_grouped("etcd-readiness", "etcd", || Ok(()));
        let check = |verbose, excluded: &[&str], want: Expect| {
            let Answer { status, body, reasons } = checks.answer(verbose, excluded);
            want.assert_eq(&format!("{status} {reasons:?}\n{body}"));
        };
        check(
            false,
            &[],
            expect![[r#"
            500 ["[-]poststarthook/rbac/bootstrap-roles failed: not finished"]
            [+]ping ok
            [-]poststarthook/rbac/bootstrap-roles failed: reason withheld
            [+]etcd-readiness ok
            readyz check failed
        "#]],
        );
        check(
            true,
            &["poststarthook/rbac/bootstrap-roles", "etcd", "x"],
            expect![[r#"
            200 []
            [+]ping ok
            [+]poststarthook/rbac/bootstrap-roles excluded: ok
            [+]etcd-readiness excluded with etcd: ok
            warn: some health checks cannot be excluded: no matches for "x"
            readyz check passed
        "#]],
        );
        let one = checks.answer_one("poststarthook/rbac/bootstrap-roles").unwrap();
        assert_eq!(one.body, "internal server error: not finished\n");
        assert!(!checks.is_ok());
        latch.done();
        check(false, &[], expect![["200 []\nok"]]);
        assert_eq!(checks.answer_one("ping").unwrap().body, "ok");
        assert_eq!(checks.answer_one("nobody"), None);
        let text = registry.render();
        assert!(text.contains(r#"kubernetes_healthcheck{name="ping",type="readyz"} 1"#), "{text}");
        let lenient = Checks::new("livez", None);
        lenient.add_latch("poststarthook/slow", &Latch::default(), Duration::from_secs(600));
        assert_eq!(lenient.answer(false, &[] as &[&str]).status, 200, "within its grace");
    }
}
