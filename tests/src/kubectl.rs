//! kubectl, as one types it: arguments are a shell's words, the namespace and the cluster are given.

use crate::net::Net;
use crate::patience;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// One version of kubectl, one user's kubeconfig, one namespace.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub net: Net,
    pub version: String,
    pub program: PathBuf,
    pub kubeconfig: PathBuf,
    /// Where kubectl keeps its caches, and where its commands run.
    pub home: PathBuf,
    pub namespace: String,
}

/// A client by the name of its script, such as `helm` of a version, installed when it is not there.
pub fn client(name: &str, arguments: &[&str]) -> PathBuf {
    let output = Command::new(crate::root().join("scripts").join(name)).args(arguments).output().unwrap();
    assert!(output.status.success(), "scripts/{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

impl Kubectl {
    pub fn in_namespace(&self, namespace: &str) -> Kubectl {
        Kubectl { namespace: namespace.into(), ..self.clone() }
    }

    /// A shell in which `kubectl` is this one, and `$PATIENCE` a time-out; `$LONG` is one for what takes several steps.
    fn shell(&self, script: &str) -> Command {
        let mut command = self.net.command("sh");
        let mut path = std::ffi::OsString::from(self.program.parent().unwrap());
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .args(["-c", script])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env("TERM", "xterm")
            .env("PATIENCE", format!("{}s", patience().as_secs()))
            .env("LONG", format!("{}s", 2 * patience().as_secs()))
            .env("PATH", path)
            .current_dir(&self.home);
        command
    }

    /// A command without its output being judged.
    pub fn output(&self, arguments: &str) -> Output {
        self.script(&format!("exec kubectl -n {} {arguments}", self.namespace), "")
    }

    /// A shell script with kubectl in it; `$NS` is the namespace.
    pub fn script(&self, script: &str, input: &str) -> Output {
        let mut command = self.shell(script);
        command.env("NS", &self.namespace).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        let mut child = command.spawn().unwrap();
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).unwrap();
        }
        child.wait_with_output().unwrap()
    }

    /// What a command prints. It must succeed.
    #[track_caller]
    pub fn run(&self, arguments: &str) -> String {
        succeed(arguments, self.output(arguments))
    }

    /// What a script prints. It must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        succeed(script, self.script(script, ""))
    }

    /// What a command that must fail says.
    #[track_caller]
    pub fn refused(&self, arguments: &str) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "kubectl {arguments} succeeded: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Applies manifests.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        self.feed("apply -f -", manifests)
    }

    /// A command with input.
    #[track_caller]
    pub fn feed(&self, arguments: &str, input: &str) -> String {
        let script = format!("exec kubectl -n {} {arguments}", self.namespace);
        succeed(arguments, self.script(&script, input))
    }

    /// An object.
    #[track_caller]
    pub fn json(&self, object: &str) -> Value {
        serde_json::from_str(&self.run(&format!("get {object} -o json"))).unwrap()
    }

    /// A field of an object.
    #[track_caller]
    pub fn field(&self, object: &str, path: &str) -> String {
        self.run(&format!("get {object} -o 'jsonpath={{{path}}}'"))
    }

    /// A command that goes on.
    pub fn start(&self, arguments: &str) -> Stream {
        Stream::of(self.shell(&format!("exec kubectl -n {} {arguments}", self.namespace)), arguments)
    }

    /// A script that goes on.
    pub fn start_sh(&self, script: &str) -> Stream {
        Stream::of(self.shell(script), script)
    }

    /// Follows objects, such as `pods -l app=a` or `pod/a`, until one is as wanted.
    #[track_caller]
    pub fn until<T>(&self, objects: &str, what: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        // Of a single object kubectl does not show the first event, even if the object changed since it was read.
        let selected = match objects.split_once('/') {
            Some((kind, name)) if !objects.contains(' ') => {
                format!("{kind} --field-selector metadata.name={name}")
            }
            _ => objects.to_owned(),
        };
        let arguments = format!("get {selected} --watch -o json");
        let mut command = self.shell(&format!("exec kubectl -n {} {arguments}", self.namespace));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let watch = Ended(child);
        let (sender, seen) = channel();
        std::thread::spawn(move || {
            for value in serde_json::Deserializer::from_reader(stdout).into_iter::<Value>() {
                if value.is_err() || value.is_ok_and(|value| sender.send(value).is_err()) {
                    return;
                }
            }
        });
        let deadline = Instant::now() + patience();
        let mut last = Value::Null;
        while let Ok(value) = seen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some(found) = wanted(&value) {
                return found;
            }
            last = value;
        }
        drop(watch);
        panic!(
            "{objects} never came to be: {what}; last seen {}",
            serde_json::to_string(&last["status"]).unwrap()
        )
    }

    /// The message of an event about an object, waited for.
    #[track_caller]
    pub fn event(&self, name: &str, reason: &str) -> String {
        let selector = format!("events --field-selector involvedObject.name={name},reason={reason}");
        self.until(&selector, "recorded", |event| event["message"].as_str().map(str::to_owned))
    }

    /// The same of one that begins so, whatever else was recorded for that reason.
    #[track_caller]
    pub fn event_that_begins(&self, name: &str, reason: &str, words: &str) -> String {
        let selector = format!("events --field-selector involvedObject.name={name},reason={reason}");
        let what = format!("recorded: {words}");
        self.until(&selector, &what, |event| {
            event["message"].as_str().filter(|message| message.starts_with(words)).map(str::to_owned)
        })
    }

    /// Waits as `kubectl wait` does.
    #[track_caller]
    pub fn wait(&self, condition: &str, object: &str) {
        self.run(&format!("wait --for={condition} {object} --timeout={}s", patience().as_secs()));
    }

    /// Waits until one may do something (the words of `kubectl auth can-i`): a grant counts once the authorizer's own
    /// watch has brought it.
    #[track_caller]
    pub fn granted(&self, what: &str) {
        let end = Instant::now() + patience();
        while !self.output(&format!("auth can-i {what}")).status.success() {
            assert!(Instant::now() < end, "never granted: {what}");
        }
    }

    /// The IP of a pod, which is waited for.
    #[track_caller]
    pub fn pod_ip(&self, pod: &str) -> String {
        self.until(&format!("pod/{pod}"), "given an address", |pod| {
            pod["status"]["podIP"].as_str().map(str::to_owned)
        })
    }

    /// Writes a file where commands run.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn home(&self) -> &Path {
        &self.home
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[track_caller]
fn succeed(command: &str, output: Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "kubectl {command}: {}\n{out}\n{err}", output.status);
    // Warnings and the like are for the eyes of the user, and tests of them see them.
    if err.is_empty() { out } else { format!("{out}\n{err}").trim_start().to_owned() }
}

/// A process that is ended with its group.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that goes on, and its lines.
pub struct Stream {
    child: Ended,
    lines: Receiver<String>,
    seen: Vec<String>,
    command: String,
}

impl Stream {
    pub(crate) fn of(mut command: Command, name: &str) -> Stream {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let forward = |from: Box<dyn std::io::Read + Send>| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(from).lines() {
                    if line.is_err() || line.is_ok_and(|line| sender.send(line).is_err()) {
                        return;
                    }
                }
            });
        };
        forward(Box::new(child.stdout.take().unwrap()));
        forward(Box::new(child.stderr.take().unwrap()));
        Stream { child: Ended(child), lines, seen: Vec::new(), command: name.to_owned() }
    }

    /// The next line with something in it.
    #[track_caller]
    pub fn line(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + patience();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(wanted) {
                        return line;
                    }
                }
                Err(_) => panic!("`{}` did not say {wanted:?}: {:#?}", self.command, self.seen),
            }
        }
    }

    /// The next line, whatever it says, if there is one before patience ends.
    pub(crate) fn next(&mut self) -> Option<String> {
        let line = self.lines.recv_timeout(patience()).ok()?;
        self.seen.push(line.clone());
        Some(line)
    }

    /// Types into it.
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.child.0.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Closes its input and waits for its end: whether it succeeded, and all it said.
    #[track_caller]
    pub fn finish(mut self) -> (bool, String) {
        drop(self.child.0.stdin.take());
        let deadline = Instant::now() + patience();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(_) => panic!("`{}` does not end: {:#?}", self.command, self.seen),
            }
        }
        let status = self.child.0.wait().unwrap();
        (status.success(), self.seen.join("\n"))
    }

    /// Ends it: every line that it said.
    pub fn end(self) -> Vec<String> {
        drop(self.child);
        let mut seen = self.seen;
        seen.extend(self.lines);
        seen
    }
}
