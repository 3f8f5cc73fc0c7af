//! The paths of the server, and what a caller must be allowed to do for each: subresources of `nodes`.

/// A container of a pod; the uid may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub namespace: String,
    pub pod: String,
    pub container: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// All checks, or the one of this name.
    Healthz(&'static str),
    Pods,
    Configz,
    StatsSummary,
    Metrics,
    MetricsResource,
    MetricsCadvisor,
    MetricsProbes,
    MetricsSlis,
    ContainerLogs {
        namespace: String,
        pod: String,
        container: String,
    },
    Exec(Target),
    Attach(Target),
    Run(Target),
    PortForward {
        namespace: String,
        pod: String,
    },
    Checkpoint(Target),
    /// A file or directory of the node's logs.
    Logs(String),
}

impl Route {
    /// The route of a path; `None` when there is nothing.
    pub(super) fn of(path: &str) -> Option<Self> {
        // What is beneath is looked up where it cannot lead elsewhere.
        if let Some(rest) = path.strip_prefix("/logs").filter(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            return Some(Route::Logs(rest.trim_start_matches('/').to_owned()));
        }
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // Names hold neither escapes nor dots alone, so nothing here can lead elsewhere.
        let plain = |s: &str| !s.is_empty() && s != "." && s != ".." && !s.contains('%');
        if !parts.iter().all(|part| plain(part)) {
            return None;
        }
        let target = |rest: &[&str]| match rest {
            [namespace, pod, container] | [namespace, pod, _, container] => Some(Target {
                namespace: (*namespace).into(),
                pod: (*pod).into(),
                container: (*container).into(),
            }),
            _ => None,
        };
        Some(match parts.as_slice() {
            ["healthz"] => Route::Healthz(""),
            ["healthz", check] => {
                Route::Healthz(["ping", "log", "syncloop"].into_iter().find(|known| known == check)?)
            }
            ["pods"] | ["runningpods"] => Route::Pods,
            ["configz"] => Route::Configz,
            ["stats", "summary"] => Route::StatsSummary,
            ["metrics"] => Route::Metrics,
            ["metrics", "resource"] => Route::MetricsResource,
            ["metrics", "cadvisor"] => Route::MetricsCadvisor,
            ["metrics", "probes"] => Route::MetricsProbes,
            ["metrics", "slis"] => Route::MetricsSlis,
            ["containerLogs", namespace, pod, container] => Route::ContainerLogs {
                namespace: (*namespace).into(),
                pod: (*pod).into(),
                container: (*container).into(),
            },
            ["exec", rest @ ..] => Route::Exec(target(rest)?),
            ["attach", rest @ ..] => Route::Attach(target(rest)?),
            ["run", rest @ ..] => Route::Run(target(rest)?),
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                Route::PortForward { namespace: (*namespace).into(), pod: (*pod).into() }
            }
            ["checkpoint", namespace, pod, container] => {
                Route::Checkpoint(target(&[namespace, pod, container])?)
            }
            _ => return None,
        })
    }

    /// Whether it is for looking into things, which may be turned off. Upstream: `InstallDebuggingHandlers`.
    pub(super) fn is_debugging(&self) -> bool {
        self.needs_create() || matches!(self, Route::ContainerLogs { .. } | Route::Logs(_))
    }

    /// Whether it lets the caller do something in a container.
    pub(super) fn needs_create(&self) -> bool {
        matches!(self, Route::Exec(_) | Route::Attach(_) | Route::Run(_) | Route::PortForward { .. })
    }

    /// The subresources of which one must be allowed. Upstream: `NodeRequestAttributesGetter`.
    pub(super) fn subresources(&self) -> &'static [&'static str] {
        match self {
            Route::StatsSummary => &["stats"],
            Route::Metrics
            | Route::MetricsResource
            | Route::MetricsCadvisor
            | Route::MetricsProbes
            | Route::MetricsSlis => &["metrics"],
            Route::Logs(_) => &["log"],
            Route::Checkpoint(_) => &["checkpoint"],
            Route::Healthz(_) => &["healthz", "proxy"],
            Route::Pods => &["pods", "proxy"],
            Route::Configz => &["configz", "proxy"],
            _ => &["proxy"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let target = || Target { namespace: "n".into(), pod: "p".into(), container: "c".into() };
        for (path, want) in [
            ("/pods", Some(Route::Pods)),
            ("/healthz/syncloop", Some(Route::Healthz("syncloop"))),
            ("/healthz/else", None),
            ("/exec/n/p/c", Some(Route::Exec(target()))),
            ("/exec/n/p/uid/c", Some(Route::Exec(target()))),
            ("/exec/n/p", None),
            ("/portForward/n/p", Some(Route::PortForward { namespace: "n".into(), pod: "p".into() })),
            ("/containerLogs/n/../c", None),
            ("/containerLogs/n/%2e%2e/c", None),
            ("/checkpoint/n/p/c", Some(Route::Checkpoint(target()))),
            ("/checkpoint/n/p", None),
            ("/logs/", Some(Route::Logs(String::new()))),
            ("/logs/a/b.log", Some(Route::Logs("a/b.log".into()))),
            ("/logsx", None),
            ("/debug/pprof", None),
            ("/", None),
        ] {
            assert_eq!(Route::of(path), want, "{path}");
        }
        assert!(Route::Exec(target()).needs_create());
    }
}
