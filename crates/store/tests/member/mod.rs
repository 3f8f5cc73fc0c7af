//! Real etcd processes on ports of their own.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Where and how a member runs.
pub(crate) struct Member {
    pub(crate) url: String,
    child: Option<Child>,
    arguments: Vec<String>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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
pub(crate) fn cluster(home: &std::path::Path, count: usize) -> Option<Vec<Member>> {
    let program = program()?;
    let ports: Vec<(u16, u16)> = (0..count).map(|_| (free_port(), free_port())).collect();
    let peers: Vec<String> =
        ports.iter().enumerate().map(|(i, (_, peer))| format!("m{i}=http://127.0.0.1:{peer}")).collect();
    let members: Vec<Member> = ports
        .iter()
        .enumerate()
        .map(|(index, (client, peer))| {
            let url = format!("http://127.0.0.1:{client}");
            let peer = format!("http://127.0.0.1:{peer}");
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
            ];
            let mut arguments = vec![program.clone()];
            arguments.extend(words.map(str::to_owned));
            Member { url, child: None, arguments }
        })
        .collect();
    let mut members = members;
    members.iter_mut().for_each(Member::spawn);
    members.iter_mut().for_each(Member::until_ready);
    Some(members)
}

/// One member on the data of another, at ports of its own.
#[allow(dead_code, reason = "not every test uses it")]
pub(crate) fn on(data: &std::path::Path) -> Option<Member> {
    let url = format!("http://127.0.0.1:{}", free_port());
    let peer = format!("http://127.0.0.1:{}", free_port());
    let words = ["--name", "m0", "--data-dir", data.to_str().unwrap(), "--listen-client-urls", &url];
    let more = ["--advertise-client-urls", &url, "--listen-peer-urls", &peer, "--force-new-cluster"];
    let mut arguments = vec![program()?];
    arguments.extend(words.into_iter().chain(more).map(str::to_owned));
    let mut member = Member { url, child: None, arguments };
    member.spawn();
    member.until_ready();
    Some(member)
}

impl Member {
    fn spawn(&mut self) {
        let child = Command::new(&self.arguments[0])
            .args(&self.arguments[1..])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
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
    #[allow(dead_code, reason = "not every test uses it")]
    pub(crate) fn restart(&mut self) {
        self.spawn();
        self.until_ready();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    #[allow(dead_code, reason = "not every test uses it")]
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    #[allow(dead_code, reason = "not every test uses it")]
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    pub(crate) fn kill(&mut self) {
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
