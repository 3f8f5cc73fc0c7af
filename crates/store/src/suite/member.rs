//! Real etcd processes on ports of their own.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const FIRST_PORT: u16 = 15_000;
/// The first port that Linux gives to those who connect.
const EPHEMERAL: u16 = 32_768;

/// Where and how a member runs.
#[derive(Debug)]
pub struct Member {
    /// Where clients reach it.
    pub url: String,
    /// Where other members reach it.
    peer: u16,
    child: Option<Child>,
    arguments: Vec<String>,
    /// The user that it runs as, by whom the kernel can tell it from the others.
    user: Option<u32>,
}

/// A port that nobody listens at, and that this process was not given before: a member binds its ports later, and again
/// when it is restarted. So it is none of those that the kernel gives to whoever connects.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    // Not where another process looks first.
    let from = FIRST_PORT + (std::process::id() % 10_000) as u16;
    let mut given = GIVEN.lock();
    let free = |port: &u16| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (from..EPHEMERAL).chain(FIRST_PORT..from).find(free).unwrap();
    given.insert(port);
    port
}

/// The program, if it is installed; without it the test has nothing to run against.
fn program() -> Option<String> {
    let name = std::env::var("ETCD").unwrap_or_else(|_| "etcd".into());
    match Command::new(&name).arg("--version").output() {
        Ok(output) if output.status.success() => Some(name),
        _ if std::env::var_os("CI").is_some() => panic!("{name} is not installed"),
        _ => {
            println!("skipped: {name} is not installed (Debian: etcd-server)");
            None
        }
    }
}

/// Starts a cluster of `count` members beneath `home`; nothing when etcd is not installed.
pub fn cluster(home: &std::path::Path, count: usize) -> Option<Vec<Member>> {
    let mut members = prepared(home, count)?;
    members.iter_mut().for_each(Member::spawn);
    members.iter_mut().for_each(Member::until_ready);
    Some(members)
}

/// The members of a cluster, not started yet.
fn prepared(home: &std::path::Path, count: usize) -> Option<Vec<Member>> {
    let program = program()?;
    let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
    let peers: Vec<String> =
        ports.iter().enumerate().map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}")).collect();
    let members: Vec<Member> = ports
        .iter()
        .enumerate()
        .map(|(index, (client, peer_port))| {
            let url = format!("http://127.0.0.1:{client}");
            let peer = format!("http://127.0.0.1:{peer_port}");
            let data = home.join(format!("m{index}"));
            let words = [
                "--name",
                &format!("m{index}"),
                "--data-dir",
                data.to_str().unwrap(),
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--initial-cluster",
                &peers.join(","),
                "--heartbeat-interval",
                "100",
                "--election-timeout",
                "1000",
                // Or a member may be replaced only when all have known each other for five seconds.
                "--strict-reconfig-check=false",
            ];
            let mut arguments = vec![program.clone()];
            arguments.extend(words.map(str::to_owned));
            Member { url, peer: *peer_port, child: None, arguments, user: None }
        })
        .collect();
    Some(members)
}

/// One member on the data of another, at ports of its own.
pub fn on(data: &std::path::Path) -> Option<Member> {
    let url = format!("http://127.0.0.1:{}", free_port());
    let peer_port = free_port();
    let peer = format!("http://127.0.0.1:{peer_port}");
    let words = ["--name", "m0", "--data-dir", data.to_str().unwrap(), "--listen-client-urls", &url];
    let more = ["--advertise-client-urls", &url, "--listen-peer-urls", &peer, "--force-new-cluster"];
    let mut arguments = vec![program()?];
    arguments.extend(words.into_iter().chain(more).map(str::to_owned));
    let mut member = Member { url, peer: peer_port, child: None, arguments, user: None };
    member.spawn();
    member.until_ready();
    Some(member)
}

impl Member {
    fn spawn(&mut self) {
        let mut command = Command::new(&self.arguments[0]);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let child =
            command.args(&self.arguments[1..]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
    }

    /// Waits for the line that says that it serves, and reads its log from then on, so that it never blocks.
    fn until_ready(&mut self) {
        let mut lines = BufReader::new(self.child.as_mut().unwrap().stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("etcd ended: {seen:#?}")).unwrap();
            let ready = line.contains("ready to serve client requests");
            seen.push(line);
            if ready {
                break;
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// Starts it again on its data.
    pub fn restart(&mut self) {
        self.spawn();
        self.until_ready();
    }

    fn option(&self, name: &str) -> String {
        let at = self.arguments.iter().position(|argument| argument == name).unwrap();
        self.arguments[at + 1].clone()
    }

    fn set(&mut self, name: &str, value: &str) {
        let at = self.arguments.iter().position(|argument| argument == name).unwrap();
        self.arguments[at + 1] = value.to_owned();
    }

    /// Kills it, throws its data away, and puts a new member in its place, at ports of its own; the others, one of which
    /// is at `through`, are told.
    pub fn replace(&mut self, through: &str) {
        self.kill();
        let (name, data, id) = (self.option("--name"), self.option("--data-dir"), self.id(through));
        etcdctl(through, &["member", "remove", &id]);
        std::fs::remove_dir_all(&data).unwrap();
        (self.peer, self.url) = (free_port(), format!("http://127.0.0.1:{}", free_port()));
        let (name, peer) = (format!("{name}x"), format!("http://127.0.0.1:{}", self.peer));
        let added = etcdctl(through, &["member", "add", &name, &format!("--peer-urls={peer}")]);
        let cluster = added.lines().find_map(|line| line.strip_prefix("ETCD_INITIAL_CLUSTER=")).unwrap();
        let (url, cluster) = (self.url.clone(), cluster.trim_matches('"').to_owned());
        for (option, value) in [
            ("--name", name.as_str()),
            ("--listen-client-urls", url.as_str()),
            ("--advertise-client-urls", url.as_str()),
            ("--listen-peer-urls", peer.as_str()),
            ("--initial-advertise-peer-urls", peer.as_str()),
            ("--initial-cluster", cluster.as_str()),
        ] {
            self.set(option, value);
        }
        if !self.arguments.iter().any(|argument| argument == "--initial-cluster-state") {
            self.arguments.extend(["--initial-cluster-state".to_owned(), "existing".to_owned()]);
        }
        self.restart();
    }

    /// How etcd numbers it, as another member says.
    fn id(&self, through: &str) -> String {
        let (name, listed) = (self.option("--name"), etcdctl(through, &["member", "list"]));
        let own = listed.lines().find(|line| line.contains(&format!(" {name},")));
        own.unwrap_or_else(|| panic!("{name} is not listed: {listed}")).split(',').next().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    /// Stops it where it is.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How often a question is asked again that a cluster between two leaders cannot answer.
const PATIENCE: usize = 50;

/// The index of the member that leads.
pub fn leader(members: &[Member]) -> usize {
    let found = (0..PATIENCE).find_map(|_| leads(members));
    found.expect("a member leads")
}

fn leads(members: &[Member]) -> Option<usize> {
    // A member that is frozen or dead does not answer, and does not lead.
    members.iter().position(|member| {
        let output = command(&member.url, &["endpoint", "status", "-w", "json"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let field = |name: &str| {
            let at = text.find(&format!("\"{name}\":"))? + name.len() + 3;
            text[at..].split([',', '}']).next().map(str::to_owned)
        };
        field("member_id").is_some() && field("member_id") == field("leader")
    })
}

/// Lets a member lead.
pub fn lead(members: &[Member], wanted: usize) {
    for _ in 0..PATIENCE {
        let Some(now) = leads(members) else { continue };
        if now == wanted {
            return;
        }
        // The one that leads may have changed again: then this fails, and the next attempt asks the right one.
        let id = members[wanted].id(&members[now].url);
        let _ = command(&members[now].url, &["move-leader", &id]).output().unwrap();
    }
    panic!("member {wanted} does not come to lead");
}

fn command(endpoint: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", endpoint, "--command-timeout", "2s"])
        .args(arguments);
    command
}

/// What etcdctl prints.
pub fn etcdctl(endpoint: &str, arguments: &[&str]) -> String {
    // A cluster that has just lost a member may be between two leaders.
    let mut output = command(endpoint, arguments).output().unwrap();
    for _ in 0..PATIENCE {
        if output.status.success() {
            break;
        }
        output = command(endpoint, arguments).output().unwrap();
    }
    assert!(output.status.success(), "etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts three members as users of their own, so that the kernel can cut one off. The first user is `user`.
pub fn separable(home: &std::path::Path, user: u32) -> Option<Vec<Member>> {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut members = prepared(home, 3)?;
    for (index, member) in members.iter_mut().enumerate() {
        let own = user + index as u32;
        let data = member.option("--data-dir");
        std::fs::create_dir(&data).unwrap();
        chown(&data, Some(own), Some(own)).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        member.user = Some(own);
    }
    members.iter_mut().for_each(Member::spawn);
    members.iter_mut().for_each(Member::until_ready);
    Some(members)
}

/// A member that no other hears and that hears no other, while its clients still reach it. It ends with this.
#[derive(Debug)]
pub struct Partition(String);

impl Partition {
    /// Cuts one of them off.
    pub fn of(members: &[Member], cut: usize) -> Self {
        let table = format!("store_test_{}", std::process::id());
        let (user, own) = (members[cut].user.unwrap(), members[cut].peer);
        let peers: Vec<String> = members.iter().map(|member| member.peer.to_string()).collect();
        let peers = peers.join(", ");
        let rules = format!(
            "table inet {table} {{ chain cut {{ type filter hook output priority 0; policy accept;
                meta skuid {user} tcp dport {{ {peers} }} drop;
                meta skuid {user} tcp sport {{ {peers} }} drop;
                tcp dport {own} drop;
            }}; }}\n"
        );
        nft(&rules);
        Partition(table)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        nft(&format!("delete table inet {}", self.0));
    }
}

fn nft(rules: &str) {
    use std::io::Write as _;
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft: {rules}");
}
