//! Three servers over three members of etcd, while one after the other is killed, frozen or cut off, and clients write
//! and controllers work throughout. `HA_ROUNDS` says how often; `make torture` sets it.
//!
//! Nothing acknowledged is lost, nobody is kept waiting for more than five seconds, and what controllers do is done once,
//! whoever leads: at no revision has a ReplicaSet more pods than it asks for, and no Job ever has more than it may.
#![allow(clippy::unwrap_used)]

mod plane;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::resources::Resources;
use apiserver::storage::{UpstreamForm, prefixes};
use http::Method;
use plane::{Door, Server};
use schema::encode::Body;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::etcd::{Etcd, Options, split_by};
use store::suite::link::Link;
use store::suite::member::{self, Member};
use store::{EventKind, History, Key, Revision, Store, Transform};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PODS: &str = "/registry/pods/";
const LEASES: &str = "/registry/leases/";
/// What a ReplicaSet and a Job of the test ask for.
const WANTED: usize = 3;
/// Writes between one piece of work and the next.
const PACE: usize = 40;
/// The longest that nobody may be answered, for all but one in a hundred.
const WINDOW: Duration = Duration::from_secs(5);

/// What clients saw.
#[derive(Default)]
struct Seen {
    /// The name and identity of what was acknowledged.
    acknowledged: BTreeMap<String, String>,
    /// How long each waited who met a failure.
    windows: Vec<Duration>,
}

/// Clients that write until they are told to stop.
struct Clients {
    tasks: Vec<JoinHandle<Seen>>,
    count: watch::Sender<usize>,
    stop: CancellationToken,
}

/// Waits for so many more writes.
async fn more(count: &watch::Sender<usize>, writes: usize) {
    let mut now = count.subscribe();
    let goal = *now.borrow_and_update() + writes;
    let reached = now.wait_for(|now| *now >= goal);
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("writes go on").unwrap();
}

impl Clients {
    fn start(doors: &[Door]) -> Self {
        let (count, stop) = (watch::Sender::new(0), CancellationToken::new());
        let tasks = doors.iter().enumerate().map(|(index, door)| {
            let (door, count, stop) = (door.clone(), count.clone(), stop.clone());
            tokio::spawn(async move {
                let mut seen = Seen::default();
                let path = "/api/v1/namespaces/default/configmaps";
                for round in 0.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let name = format!("w-{index}-{round}");
                    let object = json!({"metadata": {"name": name}, "data": {"round": round.to_string()}});
                    let (code, made, window) = door.insist(Method::POST, path, &object).await;
                    seen.windows.extend(window);
                    match code {
                        201 => {
                            let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
                            seen.acknowledged.insert(name, uid);
                        }
                        // An attempt that was not answered had come through.
                        409 if window.is_some() => {}
                        _ => panic!("{name}: {code} {made}"),
                    }
                    count.send_modify(|count| *count += 1);
                }
                seen
            })
        });
        Clients { tasks: tasks.collect(), count, stop }
    }

    async fn more(&self, writes: usize) {
        more(&self.count, writes).await;
    }

    async fn stopped(self) -> Seen {
        self.stop.cancel();
        let mut all = Seen::default();
        for task in self.tasks {
            let seen = task.await.unwrap();
            all.acknowledged.extend(seen.acknowledged);
            all.windows.extend(seen.windows);
        }
        all
    }
}

/// Somebody who has controllers work all the time.
struct Work {
    task: JoinHandle<usize>,
    stop: CancellationToken,
}

fn pod_template() -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "nothing"}]}})
}

impl Work {
    /// New work with every few writes of the clients.
    fn start(door: Door, clients: &Clients) -> Self {
        let stop = CancellationToken::new();
        let (stopped, pace) = (stop.clone(), clients.count.clone());
        let task = tokio::spawn(async move {
            let mut count = 0;
            while !stopped.is_cancelled() {
                let name = format!("work-{count}");
                let mut template = pod_template();
                template["metadata"]["labels"] = json!({"app": name});
                let set = json!({
                    "metadata": {"name": name},
                    "spec": {"replicas": WANTED, "selector": {"matchLabels": {"app": name}}, "template": template},
                });
                door.create("/apis/apps/v1/namespaces/default/replicasets", set).await;
                let mut template = pod_template();
                template["spec"]["restartPolicy"] = "Never".into();
                let job = json!({
                    "metadata": {"name": name},
                    "spec": {"parallelism": WANTED, "completions": WANTED, "template": template},
                });
                door.create("/apis/batch/v1/namespaces/default/jobs", job).await;
                count += 1;
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = more(&pace, PACE) => {}
                }
            }
            count
        });
        Work { task, stop }
    }

    /// How many ReplicaSets and Jobs there are.
    async fn stopped(self) -> usize {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// The history of pods as etcd has it, whoever wrote it.
struct Witness {
    store: Arc<Etcd>,
    begin: Revision,
}

impl Witness {
    async fn open(members: &[Member]) -> Self {
        let resources = Resources::new(api::table(), &[]);
        let form: Arc<dyn Transform> = Arc::new(UpstreamForm::new(&resources));
        let store = Etcd::open(Options {
            servers: members.iter().map(|member| member.url.clone()).collect(),
            split: split_by(prefixes(&resources)),
            transform: form,
            compaction: Duration::ZERO,
            history: History { events: 1_000_000, bytes: 1 << 30, age: Duration::from_secs(86_400) },
            ..Options::default()
        });
        let store = store.await.unwrap();
        Witness { begin: store.revision(), store }
    }

    /// Waits until every owner has its pods, then looks at every revision that led there.
    async fn judge(&self, owners: usize) {
        let mut watch = self.store.watch(PODS, self.store.revision()).unwrap();
        let settled = async {
            while self.owned().len() < 2 * owners || self.owned().values().any(|pods| *pods != WANTED) {
                watch.next_batch().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(90), settled).await.is_err() {
            let off: Vec<_> = self.owned().into_iter().filter(|(_, pods)| *pods != WANTED).collect();
            panic!("of {} owners {} have pods, and not {WANTED}: {off:?}", 2 * owners, self.owned().len());
        }
        let mut watch = self.store.watch(PODS, self.begin).unwrap();
        let (mut living, mut ever) = (HashMap::<String, HashSet<String>>::new(), HashMap::new());
        loop {
            let events = watch.try_next_batch().unwrap();
            if events.is_empty() {
                break;
            }
            for event in events {
                let pod = object(&event.entry.value);
                let (owner, name) = (owner(&pod), event.entry.name.to_string());
                let alive = event.kind == EventKind::Put && pod["metadata"]["deletionTimestamp"].is_null();
                let pods = living.entry(owner.clone()).or_default();
                match alive {
                    true => pods.insert(name),
                    false => pods.remove(&name),
                };
                assert!(pods.len() <= WANTED, "{owner} has {pods:?} at {}", event.revision);
                if event.is_create() {
                    *ever.entry(owner).or_insert(0) += 1;
                }
            }
        }
        let doubled: Vec<_> = ever.iter().filter(|(_, count)| **count != WANTED).collect();
        assert!(doubled.is_empty(), "what nobody deletes is made once: {doubled:?}");
        println!("{} owners, {} pods, each made once", ever.len(), ever.values().sum::<usize>());
    }

    /// How many pods each owner has.
    fn owned(&self) -> BTreeMap<String, usize> {
        let mut owned = BTreeMap::new();
        for entry in self.store.snapshot(PODS).range("", "") {
            *owned.entry(owner(&object(&entry.value))).or_insert(0) += 1;
        }
        owned
    }
}

fn object(value: &bytes::Bytes) -> Value {
    serde_json::from_slice(Body::from_stored(&value[..]).unwrap().json()).unwrap()
}

fn owner(pod: &Value) -> String {
    let owner = &pod["metadata"]["ownerReferences"][0];
    format!("{}/{}", owner["kind"].as_str().unwrap(), owner["name"].as_str().unwrap())
}

impl Witness {
    /// Who holds the controllers' lease.
    fn holder(&self) -> String {
        let lease = Key::new(LEASES, "kube-system/kube-controller-manager");
        let lease = self.store.get(&lease).map(|entry| object(&entry.value)).unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until one of these servers leads that is not `before`; which one. Identities are the servers' own: each
    /// logs the one that it took the lease with.
    async fn leader(&self, servers: &[Server], before: Option<usize>) -> usize {
        let mut watch = self.store.watch(LEASES, self.store.revision()).unwrap();
        let leads = async {
            loop {
                let holder = self.holder();
                let found = servers.iter().position(|server| !holder.is_empty() && server.said(&holder));
                match found.filter(|leads| Some(*leads) != before) {
                    Some(leads) => return leads,
                    None => watch.next_batch().await.unwrap(),
                };
            }
        };
        match tokio::time::timeout(Duration::from_secs(40), leads).await {
            Ok(leads) => leads,
            Err(_) => {
                let logs: Vec<String> = servers.iter().map(Server::log).collect();
                panic!(
                    "after {before:?} nobody takes over from {}:\n{}",
                    self.holder(),
                    logs.join("\n---\n")
                );
            }
        }
    }
}

struct Stage {
    _home: tempfile::TempDir,
    members: Vec<Member>,
    /// Each server's ways to etcd.
    links: Vec<Vec<Link>>,
    servers: Vec<Server>,
}

impl Stage {
    /// `count` servers over three members; nothing without etcd.
    async fn set(count: usize) -> Option<Self> {
        pki::tls::install_provider();
        let home = tempfile::tempdir().unwrap();
        let members = member::cluster(&home.path().join("etcd-home"), 3)?;
        let (mut links, mut servers) = (Vec::new(), Vec::<Server>::new());
        for index in 0..count {
            let data = home.path().join(format!("server-{index}"));
            if let Some(first) = servers.first() {
                // One cluster has one set of authorities.
                let copied = std::process::Command::new("cp")
                    .args(["-a", first.data.join("pki").to_str().unwrap()])
                    .arg({
                        std::fs::create_dir(&data).unwrap();
                        &data
                    })
                    .status();
                assert!(copied.unwrap().success());
            }
            let mut own = Vec::new();
            for member in &members {
                own.push(Link::to(&member.url).await);
            }
            let urls: Vec<&str> = own.iter().map(|link| link.url.as_str()).collect();
            let more = ["--store", "etcd", "--etcd-servers", &urls.join(",")].map(str::to_owned);
            let election = [
                "--leader-elect-lease-duration=4s",
                "--leader-elect-renew-deadline=3s",
                "--leader-elect-retry-period=500ms",
            ];
            let more: Vec<&str> = more.iter().map(String::as_str).chain(election).collect();
            links.push(own);
            servers.push(Server::started(&data, &more).await);
        }
        Some(Stage { _home: home, members, links, servers })
    }

    fn doors(&self, count: usize) -> Vec<Door> {
        let urls: Vec<String> = self.servers.iter().map(Server::url).collect();
        let door = |index: usize| {
            let mut urls = urls.clone();
            urls.rotate_left(index % self.servers.len());
            Door::new(&self.servers[0].data, &urls)
        };
        (0..count).map(door).collect()
    }

    async fn disturb(&mut self, clients: &Clients, witness: &Witness) {
        let (servers, members) = (&mut self.servers, &mut self.members);
        // The server that leads is killed.
        let leads = witness.leader(servers, None).await;
        servers[leads].kill();
        clients.more(100).await;
        let next = witness.leader(servers, Some(leads)).await;
        servers[leads].restarted().await;
        // Its successor stands still for longer than its lease, and goes on as if nothing had been.
        servers[next].freeze();
        clients.more(100).await;
        let next = witness.leader(servers, Some(next)).await;
        servers.iter().for_each(Server::thaw);
        clients.more(100).await;
        // The one after that is cut off from etcd.
        self.links[next].iter().for_each(Link::cut);
        clients.more(100).await;
        witness.leader(servers, Some(next)).await;
        self.links[next].iter().for_each(Link::heal);
        clients.more(100).await;
        // etcd's leader is killed, then a minority of it frozen.
        let leads = member::leader(members);
        members[leads].kill();
        clients.more(200).await;
        members[leads].restart();
        members[leads].freeze();
        clients.more(100).await;
        members[leads].thaw();
    }
}

async fn disturbed(count: usize, rounds: usize) {
    let Some(mut stage) = Stage::set(count).await else { return };
    let witness = Witness::open(&stage.members).await;
    let doors = stage.doors(7);
    let clients = Clients::start(&doors[..6]);
    let work = Work::start(doors[6].clone(), &clients);
    clients.more(50).await;
    for _ in 0..rounds {
        stage.disturb(&clients, &witness).await;
    }
    let mut seen = clients.stopped().await;
    let owners = work.stopped().await;
    witness.judge(owners).await;
    // Every server has all that was acknowledged, and what it says is the same.
    for server in &stage.servers {
        let list = server.door().get("/api/v1/namespaces/default/configmaps").await;
        let items = list["items"].as_array().unwrap().iter();
        let found: HashMap<_, _> = items
            .map(|item| {
                (item["metadata"]["name"].as_str().unwrap(), item["metadata"]["uid"].as_str().unwrap())
            })
            .collect();
        for (name, uid) in &seen.acknowledged {
            assert_eq!(found.get(name.as_str()), Some(&uid.as_str()), "{name}");
        }
    }
    seen.windows.sort();
    let worst = seen.windows.last().copied().unwrap_or_default();
    let p99 =
        seen.windows.get((seen.windows.len().saturating_sub(1)) * 99 / 100).copied().unwrap_or_default();
    println!(
        "{rounds} rounds: {} writes acknowledged, {} met a failure; they waited {p99:?} (p99), {worst:?} at most",
        seen.acknowledged.len(),
        seen.windows.len(),
    );
    assert!(p99 <= WINDOW, "p99 {p99:?}: {:?}", seen.windows);
}

fn rounds() -> usize {
    std::env::var("HA_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_servers_over_three_members_lose_nothing_and_do_nothing_twice() {
    disturbed(3, rounds()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_over_three_members_lose_nothing_and_do_nothing_twice() {
    // What one round of three servers shows, two show when there is time.
    if rounds() > 1 {
        disturbed(2, rounds()).await;
    }
}
