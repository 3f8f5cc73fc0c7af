//! What each request does. Most are answered at once; those that wait for a process are answered from `lifecycle`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::pipe::{PipeFlags, pipe_with};
use shim::protocol::{
    ContainerSpec, ExecSpec, Exit, Failure, FailureKind, OLDEST, PidMode, Reply, Request, SHIM_FILE,
    SandboxSpec, Status, VERSION,
};

use crate::launch;
use crate::logs::Log;
use crate::shim::{Caller, Container, Exec, Launch, Shim, Source, Who};
use crate::stdio::{Follower, Input, Output, Stream, Typing};
use crate::sys::{self, At, Outcome, failed};
use crate::{create, exec, exit, lifecycle, sandbox, start};

type Answer = (Result<Reply, Failure>, Vec<OwnedFd>);

fn not_found(what: &str, id: &str) -> Failure {
    Failure { kind: FailureKind::NotFound, message: format!("{what} {id:?} not found") }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::InvalidState, message: message.into() }
}

impl Shim {
    /// None: the answer comes later.
    pub(crate) fn handle(&mut self, caller: Caller, request: Request, fds: Vec<OwnedFd>) -> Option<Answer> {
        let Some(Source::Conn(conn)) = self.sources.get_mut(&caller.conn) else { return None };
        if !conn.greeted && !matches!(request, Request::Hello { .. }) {
            let message = "the first request must be Hello".into();
            return Some((Err(Failure { kind: FailureKind::Version, message }), Vec::new()));
        }
        let later = |result: Outcome<()>| result.err().map(|failure| (Err(failure), Vec::new()));
        let done = |result: Outcome<()>| Some((result.map(|()| Reply::Done), Vec::new()));
        match request {
            Request::Hello { version } => {
                let result = hello(version);
                conn.greeted = result.is_ok();
                Some((result, Vec::new()))
            }
            Request::CreateSandbox(spec) => done(self.create_sandbox(spec)),
            Request::Create(spec) => later(self.create(caller, &spec, &fds)),
            Request::Start { container } => later(self.start(caller, &container)),
            Request::Signal { container, signal, all } => done(self.signal(&container, signal, all)),
            Request::Wait { container } => match self.containers.get_mut(&container) {
                None => Some((Err(not_found("container", &container)), Vec::new())),
                Some(Container { exit: Some(exit), .. }) => {
                    Some((Ok(Reply::Exited(exit.clone())), Vec::new()))
                }
                Some(waited) => {
                    waited.waiters.push(caller);
                    None
                }
            },
            Request::Exec(spec) => later(self.exec(caller, &spec, fds)),
            Request::ExecWait { exec } => self.exec_wait(caller, &exec),
            Request::ExecSignal { exec, signal } => done(self.exec_signal(&exec, signal)),
            Request::Attach { container, stdin, stdout, stderr } => {
                done(self.attach(&container, stdin, stdout, stderr, fds))
            }
            Request::Resize { container, width, height } => done(self.resize(&container, width, height)),
            Request::CloseStdin { container } => done(self.container(&container).map(drop).map(|()| {
                self.close_input(&container);
            })),
            Request::ReopenLog { container } => done(self.reopen_log(&container)),
            Request::Delete { container } => done(self.delete(&container)),
            Request::State => Some((Ok(Reply::State(self.state())), Vec::new())),
            Request::Subscribe => {
                conn.subscribed = true;
                Some((Ok(Reply::State(self.state())), Vec::new()))
            }
            Request::Shutdown => {
                self.begin_shutdown(caller);
                None
            }
        }
    }

    fn container(&self, id: &str) -> Outcome<&Container> {
        self.containers.get(id).ok_or_else(|| not_found("container", id))
    }

    fn create_sandbox(&mut self, spec: SandboxSpec) -> Outcome<()> {
        if let Some(sandbox) = &self.sandbox {
            if sandbox.spec.id == spec.id {
                return Ok(());
            }
            let message = format!("this shim serves sandbox {:?}", sandbox.spec.id);
            return Err(Failure { kind: FailureKind::AlreadyExists, message });
        }
        let sandbox = sandbox::create(spec, &self.dir)?;
        let file = shim::protocol::ShimFile { sandbox: Some(sandbox.spec.clone()), ..start::file() };
        self.sandbox = Some(sandbox);
        exit::note(&self.dir, SHIM_FILE, &file).at("recording the sandbox")
    }

    fn create(&mut self, caller: Caller, spec: &ContainerSpec, fds: &[OwnedFd]) -> Outcome<()> {
        if self.containers.contains_key(&spec.id) {
            let message = format!("container {:?} exists", spec.id);
            return Err(Failure { kind: FailureKind::AlreadyExists, message });
        }
        if self.shutdown.is_some() {
            return Err(invalid("the sandbox is being stopped"));
        }
        let sandbox = self.sandbox.as_ref().ok_or_else(|| invalid("the sandbox has not been created"))?;
        if !sandbox.ready {
            return Err(invalid("the sandbox is not ready"));
        }
        let own_pids = sandbox.spec.pid == PidMode::Container && spec.pid_from.is_none();
        let target = match &spec.pid_from {
            None => None,
            Some(id) => match self.container(id)? {
                target if target.status == Status::Running => Some(sys::pidfd_open(target.pid).at("target")?),
                _ => return Err(invalid(format!("container {id:?} is not running"))),
            },
        };
        let log = match &spec.stdio.log {
            Some((dir, path)) => Some(Log::open(dir, path).at(format!("log {dir}/{path}"))?),
            None => None,
        };
        let mut ours = Vec::new();
        let mut input = None;
        let stdio = match spec.stdio.terminal {
            true => None,
            false => {
                let (out, stdout) = pipe_with(PipeFlags::CLOEXEC).at("pipe")?;
                let (err, stderr) = pipe_with(PipeFlags::CLOEXEC).at("pipe")?;
                ours.extend([(out, Stream::Stdout), (err, Stream::Stderr)]);
                let stdin = match spec.stdio.stdin {
                    true => {
                        let (stdin, feed) = pipe_with(PipeFlags::CLOEXEC).at("pipe")?;
                        rustix::io::ioctl_fionbio(&feed, true).at("pipe")?;
                        input = Some(feed);
                        stdin
                    }
                    false => null()?,
                };
                Some([stdin, stdout, stderr])
            }
        };
        let (line, theirs) = launch::pair().at("socketpair")?;
        let job = create::Job { spec, fds, sandbox, target, stdio };
        let Some(helper) = sys::clone(0, None).at("fork")? else {
            launch::stage(theirs, |line| create::begin(job, line));
        };
        drop((job, theirs));
        let container = Container {
            dir: PathBuf::from(&spec.dir),
            cgroup: spec.cgroup.clone(),
            cgroup_namespace: spec.cgroup_namespace,
            cwd: spec.process.cwd.clone(),
            own_pids,
            terminal: None,
            stdin_once: spec.stdio.stdin_once,
            log,
            status: Status::Created,
            pid: 0,
            created_at: sys::now(),
            started_at: 0,
            ooms: 0,
            exit: None,
            waiters: Vec::new(),
            launch: None,
            input: None,
        };
        let id = spec.id.clone();
        self.containers.insert(id.clone(), container);
        for (fd, stream) in ours {
            rustix::io::ioctl_fionbio(&fd, true).at("pipe")?;
            let (container, lines) = (id.clone(), Default::default());
            self.add(Source::Output(Output { fd, container, stream, lines })).at("epoll")?;
        }
        if let Some(fd) = input {
            self.add_input(&id, fd)?;
        }
        // A directory of an earlier container may have been killed in before.
        if let Some((fd, _)) = lifecycle::watch_oom(&spec.cgroup) {
            self.add(Source::Oom(fd, id.clone())).at("epoll")?;
        }
        let caller = Some(caller);
        let launch =
            Launch { line, who: Who::Container(id), helper, pid: 0, ready: false, terminal: None, caller };
        self.add(Source::Launch(launch)).at("epoll").map(drop)
    }

    fn add_input(&mut self, id: &str, fd: OwnedFd) -> Outcome<()> {
        let input = Input { fd, container: id.into(), pending: Vec::new(), closing: false };
        let token = self.add(Source::Input(input)).at("epoll")?;
        if let Some(container) = self.containers.get_mut(id) {
            container.input = Some(token);
        }
        Ok(())
    }

    /// The terminal takes what clients type.
    pub(crate) fn open_input(&mut self, id: &str) {
        let master = self.containers.get(id).and_then(|container| container.terminal.as_ref());
        if let Some(Ok(fd)) = master.map(OwnedFd::try_clone) {
            let _ = self.add_input(id, fd);
        }
    }

    fn start(&mut self, caller: Caller, id: &str) -> Outcome<()> {
        let container = self.container(id)?;
        let token = match (container.status, container.launch) {
            (Status::Created, Some(token)) => token,
            (Status::Created, None) => {
                return Err(invalid(format!("container {id:?} is still being created")));
            }
            (status, _) => return Err(invalid(format!("container {id:?} is {status:?}"))),
        };
        match self.sources.get_mut(&token) {
            Some(Source::Launch(launch)) if launch.caller.is_none() => {
                launch.caller = Some(caller);
                launch::go(launch.line.as_fd()).at("starting")
            }
            _ => Err(invalid(format!("container {id:?} is being started"))),
        }
    }

    fn signal(&mut self, id: &str, signal: i32, all: bool) -> Outcome<()> {
        let container = self.container(id)?;
        if all {
            lifecycle::kill_all(&container.cgroup, signal);
        }
        if container.exit.is_some() || (all && !container.own_pids) {
            return Ok(());
        }
        match container.pid {
            0 => Err(invalid(format!("container {id:?} is still being created"))),
            pid => sys::kill(pid, signal).at(format!("signal {signal}")),
        }
    }

    fn exec(&mut self, caller: Caller, spec: &ExecSpec, fds: Vec<OwnedFd>) -> Outcome<()> {
        if self.execs.contains_key(&spec.id) {
            let message = format!("exec {:?} exists", spec.id);
            return Err(Failure { kind: FailureKind::AlreadyExists, message });
        }
        let sandbox = self.sandbox.as_ref().ok_or_else(|| invalid("the sandbox has not been created"))?;
        let container = self.container(&spec.container)?;
        if container.status != Status::Running {
            return Err(invalid(format!("container {:?} is not running", spec.container)));
        }
        let mut given = fds.into_iter();
        let mut end = |wanted: bool| match wanted && !spec.terminal {
            true => given.next().ok_or_else(|| failed("a descriptor is missing")),
            false => null(),
        };
        let stdio = [end(spec.stdin)?, end(spec.stdout)?, end(spec.stderr)?];
        // Not yet reaped, so the number is still its own.
        let target = sys::pidfd_open(container.pid).at("container")?;
        let (line, theirs) = launch::pair().at("socketpair")?;
        let job = exec::Job {
            spec,
            sandbox,
            cgroup: &container.cgroup,
            cgroup_namespace: container.cgroup_namespace,
            cwd: &container.cwd,
            target,
            stdio,
        };
        let Some(helper) = sys::clone(0, None).at("fork")? else {
            launch::stage(theirs, |line| exec::begin(job, line));
        };
        drop((job, theirs));
        let exec =
            Exec { container: spec.container.clone(), pid: 0, started_at: 0, exit: None, waiter: None };
        self.execs.insert(spec.id.clone(), exec);
        let (who, caller) = (Who::Exec(spec.id.clone()), Some(caller));
        let launch = Launch { line, who, helper, pid: 0, ready: false, terminal: None, caller };
        self.add(Source::Launch(launch)).at("epoll").map(drop)
    }

    fn exec_wait(&mut self, caller: Caller, id: &str) -> Option<Answer> {
        match self.execs.get_mut(id) {
            None => Some((Err(not_found("exec", id)), Vec::new())),
            Some(Exec { exit: Some(_), .. }) => {
                let exit: Exit = self.execs.remove(id).and_then(|exec| exec.exit).unwrap_or_default();
                Some((Ok(Reply::Exited(exit)), Vec::new()))
            }
            Some(exec) => {
                exec.waiter = Some(caller);
                None
            }
        }
    }

    fn exec_signal(&mut self, id: &str, signal: i32) -> Outcome<()> {
        let exec = self.execs.get(id).ok_or_else(|| not_found("exec", id))?;
        if exec.exit.is_some() || exec.pid == 0 {
            return Ok(());
        }
        // It leads a session of its own, and with it a group.
        sys::kill(-exec.pid, signal).at(format!("signal {signal}"))?;
        sys::kill(exec.pid, signal).at(format!("signal {signal}"))
    }

    fn attach(
        &mut self,
        id: &str,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        fds: Vec<OwnedFd>,
    ) -> Outcome<()> {
        let container = self.container(id)?;
        if container.exit.is_some() {
            return Err(invalid(format!("container {id:?} is not running")));
        }
        let mut given = fds.into_iter();
        let mut next = || {
            let fd = given.next().ok_or_else(|| failed("a descriptor is missing"))?;
            rustix::io::ioctl_fionbio(&fd, true).at("descriptor")?;
            Ok(fd)
        };
        let typing = if stdin { Some(next()?) } else { None };
        let mut follow = Vec::new();
        for (wanted, stream) in [(stdout, Stream::Stdout), (stderr, Stream::Stderr)] {
            if wanted {
                follow.push((next()?, stream));
            }
        }
        for (fd, stream) in follow {
            let (container, queue) = (id.to_owned(), Default::default());
            self.add(Source::Follower(Follower { fd, container, stream, queue, closing: false }))
                .at("attach")?;
        }
        if let Some(fd) = typing {
            self.add(Source::Typing(Typing { fd, container: id.into(), held: false })).at("attach")?;
        }
        Ok(())
    }

    fn resize(&mut self, id: &str, width: u16, height: u16) -> Outcome<()> {
        match &self.container(id)?.terminal {
            Some(master) => {
                exec::resize(master, width, height);
                Ok(())
            }
            None => Err(invalid(format!("container {id:?} has no terminal"))),
        }
    }

    fn reopen_log(&mut self, id: &str) -> Outcome<()> {
        match self.containers.get_mut(id).ok_or_else(|| not_found("container", id))?.log.as_mut() {
            Some(log) => log.reopen().at("log"),
            None => Ok(()),
        }
    }

    fn delete(&mut self, id: &str) -> Outcome<()> {
        let container = self.container(id)?;
        match container.status {
            Status::Running => return Err(invalid(format!("container {id:?} is running"))),
            Status::Created if container.pid == 0 => {
                return Err(invalid(format!("container {id:?} is still being created")));
            }
            Status::Created => {
                let pid = container.pid;
                let _ = sys::kill(pid, libc::SIGKILL);
                // It waits for our word and nothing else, so this is quick.
                // SAFETY: waits for our own child, whose status nobody needs.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                if let Some(token) = container.launch {
                    self.remove(token);
                }
            }
            Status::Exited => {}
        }
        lifecycle::kill_all(&self.container(id)?.cgroup, libc::SIGKILL);
        self.forget(id);
        self.event(id, shim::protocol::EventKind::Deleted);
        Ok(())
    }

    fn begin_shutdown(&mut self, caller: Caller) {
        self.shutdown = Some(caller);
        for container in self.containers.values().filter(|container| container.exit.is_none()) {
            lifecycle::kill_all(&container.cgroup, libc::SIGKILL);
            if container.pid != 0 {
                let _ = sys::kill(container.pid, libc::SIGKILL);
            }
        }
        if let Some(sandbox) = self.sandbox.as_ref().filter(|sandbox| sandbox.ready && sandbox.init_pid != 0)
        {
            let _ = sys::kill(sandbox.init_pid, libc::SIGKILL);
        }
    }
}

fn hello(version: u32) -> Result<Reply, Failure> {
    if version < OLDEST {
        let message =
            format!("protocol version {version} is older than {OLDEST}, the oldest this shim speaks");
        return Err(Failure { kind: FailureKind::Version, message });
    }
    Ok(Reply::Hello { version: VERSION, pid: std::process::id() as i32 })
}

fn null() -> Outcome<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).at("/dev/null")
}
