//! A node that joined a cluster: the real binary, in a network namespace and with a data directory of its own.

use crate::cluster::{Cluster, binary, images, succeed, tee};
use crate::leaks::Traces;
use crate::net::Net;
use crate::patience;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// A node beside the cluster's own.
#[derive(Debug)]
pub struct Agent {
    pub name: &'static str,
    pub net: Net,
    base: PathBuf,
    process: Mutex<Option<Child>>,
    before: Traces,
}

impl Agent {
    /// Its network and its directory; it is not started yet.
    pub fn make(cluster: &Cluster, name: &'static str, address: &str) -> Agent {
        let base = cluster.base().join(name);
        std::fs::create_dir_all(&base).unwrap();
        let net = Net::make_at(&format!("tiphys-{name}-{}", std::process::id()), address);
        let before = Traces::of(&net, &base);
        Agent { name, net, base, process: Mutex::default(), before }
    }

    fn tiphys(&self, arguments: &[&str]) -> Command {
        let mut command = self.net.command(binary());
        command.args(arguments).arg("--data-dir").arg(self.base.join("data")).stdin(Stdio::null());
        command
    }

    fn agent(&self, address: &str, flags: &[&str]) -> Command {
        let mut command = self.tiphys(&["agent", "--node-name", self.name, "--node-ip", address]);
        // Whatever the machine is short of.
        command.args(["--eviction-hard", "", "--image-gc-high-threshold", "100"]).args(flags);
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        command
    }

    /// Starts it with the flags of a join command; returns when it is part of the cluster.
    pub fn start(&self, address: &str, flags: &[&str]) {
        let mut agent = self.agent(address, flags).spawn().unwrap();
        let said = tee(agent.stderr.take().unwrap(), &self.log());
        *self.process.lock().unwrap() = Some(agent);
        while let Ok(line) = said.recv_timeout(patience()) {
            if line.contains("the node is part of the cluster") {
                return;
            }
        }
        panic!("{} does not join:\n{}", self.name, std::fs::read_to_string(self.log()).unwrap_or_default());
    }

    /// What it says that ends by itself.
    pub fn refused(&self, address: &str, flags: &[&str]) -> String {
        let output = self.agent(address, flags).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    fn log(&self) -> PathBuf {
        self.base.join("agent.log")
    }

    /// Gives it the images that the cluster's own node has.
    pub fn import_images(&self) {
        for archive in images(&["busybox", "nginx"]) {
            succeed(self.tiphys(&["image", "import"]).arg(&archive).output().unwrap());
        }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        let mut agent = self.process.lock().unwrap().take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Stops it as an administrator does.
    pub fn stop(&self) {
        let mut agent = self.process.lock().unwrap().take().unwrap();
        let pid = rustix::process::Pid::from_child(&agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = agent.wait().unwrap();
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Ends it and says what it left behind.
    pub fn end(&self) -> Vec<String> {
        self.stop();
        let reset = self.tiphys(&["reset", "--remove-data"]).output().unwrap();
        let mut left = self.before.new_ones(&Traces::of(&self.net, &self.base));
        if !reset.status.success() {
            left.push(format!("tiphys reset failed: {}", String::from_utf8_lossy(&reset.stderr)));
        }
        left
    }
}

impl Drop for Agent {
    /// Whatever became of the tests, nothing goes on running.
    fn drop(&mut self) {
        if let Some(mut agent) = self.process.lock().ok().and_then(|mut process| process.take()) {
            let _ = agent.kill();
            let _ = agent.wait();
            let _ = self.tiphys(&["reset", "--remove-data"]).output();
        }
        self.net.remove();
    }
}
