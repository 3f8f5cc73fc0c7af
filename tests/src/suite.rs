//! Scenarios by name, a few at a time, on one cluster. Each has its own Kubernetes namespace; a failure is told with the
//! namespace's events and pods and the server's last words. The cluster's end is a test of its own, and the last.

use crate::cluster::{KUBECTL, Settings};
use crate::{Cluster, Engine, Kubectl};
use libtest_mimic::{Arguments, Failed, Trial};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;

/// What a scenario has.
#[derive(Debug)]
pub struct Room {
    pub cluster: Arc<Cluster>,
    /// In the scenario's namespace, as administrator.
    pub kubectl: Kubectl,
}

/// A name and what happens.
pub type Scenario = (&'static str, fn(&Room));

/// Scenarios by their functions' names.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn(&$crate::Room))),*] };
}

/// The scenarios of a file.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    pub name: &'static str,
    /// Every scenario is run with each of them.
    pub kubectls: &'static [&'static str],
    pub together: &'static [Scenario],
    /// Those that older kubectls play, too.
    pub old: &'static [Scenario],
    pub old_kubectls: &'static [&'static str],
    /// Those that nobody else could bear.
    pub alone: &'static [Scenario],
    /// Those of both that are played again on a cluster whose node runs its containers with containerd.
    pub on_containerd: &'static [Scenario],
    pub settings: Settings,
}

impl Suite {
    pub const fn new(name: &'static str, together: &'static [Scenario]) -> Suite {
        let settings = Settings { configuration: "", disk_mib: 0, flags: &[] };
        Suite {
            name,
            kubectls: &[KUBECTL],
            together,
            old: &[],
            old_kubectls: &[],
            alone: &[],
            on_containerd: &[],
            settings,
        }
    }

    /// Runs what the command line asks for.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        let all = [Engine::Embedded, Engine::Containerd];
        if arguments.list {
            let trials = all.into_iter().flat_map(|engine| self.trials(engine, None)).flatten().collect();
            return libtest_mimic::run(&arguments, trials).exit_code();
        }
        // They wait most of their time.
        arguments.test_threads.get_or_insert(4);
        let wanted = |engine: &Engine| {
            self.trials(*engine, None).iter().flatten().any(|trial| !arguments.is_filtered_out(trial))
        };
        // All of them, whatever becomes of the first.
        let failed =
            all.into_iter().filter(wanted).filter(|engine| self.fails_on(*engine, &arguments)).count();
        if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn fails_on(self, engine: Engine, arguments: &Arguments) -> bool {
        let cluster = Arc::new(Cluster::start_as(self.name, engine, self.settings));
        let mut failed = false;
        for (i, trials) in self.trials(engine, Some(&cluster)).into_iter().enumerate() {
            let threads = if i == 0 { arguments.test_threads } else { Some(1) };
            let arguments = Arguments { test_threads: threads, ..arguments.clone() };
            failed |= !trials.is_empty() && libtest_mimic::run(&arguments, trials).has_failed();
        }
        let ending = cluster.clone();
        let end = Trial::test(title(engine, "nothing_is_left"), move || match ending.end() {
            left if left.is_empty() => Ok(()),
            left => Err(Failed::from(left.join("\n"))),
        });
        failed |= libtest_mimic::run(&Arguments::default(), vec![end]).has_failed();
        if failed {
            println!("the server's log is in {}", cluster.base().display());
        } else {
            cluster.forget();
        }
        failed
    }

    fn trials(self, engine: Engine, cluster: Option<&Arc<Cluster>>) -> [Vec<Trial>; 2] {
        let trial = |(name, scenario): Scenario, version: &'static str, several: bool| {
            let full = if several { format!("{name}::{version}") } else { name.to_owned() };
            let (namespace, cluster) = (full.replace("::", "-").replace(['_', '.'], "-"), cluster.cloned());
            Trial::test(title(engine, &full), move || match cluster {
                Some(cluster) => attempt(cluster, version, &namespace, scenario),
                None => Ok(()),
            })
        };
        let several = self.kubectls.len() > 1;
        match engine {
            Engine::Embedded => {
                let [mut together, alone] = [self.together, self.alone].map(|scenarios| {
                    let versions = self.kubectls.iter();
                    versions.flat_map(|v| scenarios.iter().map(|s| trial(*s, v, several))).collect::<Vec<_>>()
                });
                let olds = self.old_kubectls.iter();
                together.extend(olds.flat_map(|v| self.old.iter().map(|s| trial(*s, v, true))));
                [together, alone]
            }
            Engine::Containerd => {
                let is_alone = |s: &&Scenario| self.alone.iter().any(|alone| alone.0 == s.0);
                let (alone, together) = self.on_containerd.iter().partition::<Vec<&Scenario>, _>(is_alone);
                [together, alone].map(|scenarios| {
                    scenarios.into_iter().map(|scenario| trial(*scenario, KUBECTL, false)).collect()
                })
            }
        }
    }
}

/// A scenario's name, with what it is played on if that is not the usual.
fn title(engine: Engine, name: &str) -> String {
    match engine {
        Engine::Embedded => name.to_owned(),
        Engine::Containerd => format!("containerd::{name}"),
    }
}

fn attempt(cluster: Arc<Cluster>, version: &str, namespace: &str, scenario: fn(&Room)) -> Result<(), Failed> {
    let kubectl = cluster.kubectl(version).in_namespace(namespace);
    let room = Room { cluster, kubectl };
    let done = catch_unwind(AssertUnwindSafe(|| {
        room.kubectl.run(&format!("create namespace {namespace}"));
        scenario(&room);
    }));
    let Err(panic) = done else {
        // A node bears 110 pods, and all scenarios together have more.
        room.kubectl.run(&format!("delete namespace {namespace} --wait=false"));
        return Ok(());
    };
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let seen = room.kubectl.script(
        "set -x; kubectl -n $NS get all,endpointslices -o wide; kubectl -n $NS get events --sort-by=.lastTimestamp; \
         kubectl -n $NS describe pods; kubectl -n $NS get pods -o jsonpath='{range .items[*]}{.metadata.name} {.status}{\"\\n\"}{end}'",
        "",
    );
    Err(Failed::from(format!(
        "{}\n--- kubectl\n{}{}\n--- the server's last words\n{}",
        message.unwrap_or_default(),
        String::from_utf8_lossy(&seen.stdout),
        String::from_utf8_lossy(&seen.stderr),
        room.cluster.log_tail(40)
    )))
}
