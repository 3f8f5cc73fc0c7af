//! From the forks to the last breath: steps of processes being set up, children that end, memory that runs out.
//! An exit is recorded durably before anyone is told.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use shim::protocol::{Cgroup, EXIT_FILE, EventKind, Exit, Failure, FailureKind, Reply, Status};

use crate::launch::{self, Step};
use crate::shim::{Launch, Shim, Source, Who};
use crate::stdio::{Output, Stream};
use crate::{exit, sandbox, sys};

/// A descriptor that becomes readable when a child ends.
pub(crate) fn children() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the new descriptor is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        sys::check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let fd =
            sys::check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

impl Shim {
    /// Reaps every child that has ended.
    pub(crate) fn reap(&mut self, signals: BorrowedFd<'_>) {
        while rustix::io::read(signals, &mut [0; 128 * 8]).is_ok() {}
        // A child may have ended before we have read what it is.
        for token in self.tokens(|source| matches!(source, Source::Launch(_))) {
            if let Some(Source::Launch(mut launch)) = self.sources.remove(&token) {
                let goes_on = self.progress(token, &mut launch);
                self.sources.insert(token, Source::Launch(launch));
                if !goes_on {
                    self.remove(token);
                }
            }
        }
        loop {
            let mut status = 0;
            // SAFETY: an integer on this stack.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid <= 0 {
                break;
            }
            self.ended(pid, status);
        }
        if self.tokens(|source| matches!(source, Source::Launch(_))).is_empty() {
            self.unclaimed.clear();
        }
    }

    fn ended(&mut self, pid: i32, status: i32) {
        if let Some(id) =
            self.containers.iter().find(|(_, c)| c.pid == pid && c.exit.is_none()).map(|(id, _)| id.clone())
        {
            self.container_ended(&id, exit::from_status(pid, status));
        } else if let Some(id) =
            self.execs.iter().find(|(_, e)| e.pid == pid && e.exit.is_none()).map(|(id, _)| id.clone())
        {
            self.exec_ended(&id, exit::from_status(pid, status));
        } else if self.sandbox.as_ref().is_some_and(|sandbox| sandbox.init_pid == pid) {
            if let Some(sandbox) = &mut self.sandbox {
                sandbox.ready = false;
                sandbox.pid = None;
            }
            self.event("", EventKind::SandboxExited);
        } else {
            self.unclaimed.insert(pid, status);
        }
    }

    /// Hears a process being set up; false when it has become its program, or nothing.
    pub(crate) fn progress(&mut self, token: u64, launch: &mut Launch) -> bool {
        loop {
            match launch::hear(launch.line.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    self.failed(launch, sys::failed(error.to_string()));
                    return false;
                }
                Ok(Some((Step::Pid(pid), _))) => launch.pid = pid,
                Ok(Some((Step::Terminal, fds))) => {
                    let master = fds.into_iter().next();
                    match &launch.who {
                        Who::Container(id) => self.terminal(&id.clone(), master),
                        Who::Exec(_) => launch.terminal = master,
                    }
                }
                Ok(Some((Step::Ready, _))) => launch.ready = true,
                Ok(Some((Step::Failed(failure), _))) => {
                    self.failed(launch, failure);
                    return false;
                }
                Ok(None) => {
                    match launch.ready {
                        true => self.executed(launch),
                        false => {
                            self.failed(launch, sys::failed("the process that sets up the container died"))
                        }
                    }
                    return false;
                }
            }
            if launch.ready && launch.pid != 0 {
                self.prepared(token, launch);
            }
        }
    }

    /// A container has a terminal: its output comes from there, its input goes there.
    fn terminal(&mut self, id: &str, master: Option<OwnedFd>) {
        let Some(master) = master else { return };
        let _ = rustix::io::ioctl_fionbio(&master, true);
        let Ok(output) = master.try_clone() else { return };
        let (container, lines) = (id.to_owned(), Default::default());
        let _ = self.add(Source::Output(Output { fd: output, container, stream: Stream::Stdout, lines }));
        if let Some(container) = self.containers.get_mut(id) {
            container.terminal = Some(master);
        }
        self.open_input(id);
    }

    /// All is set up. A container now waits for `Start`; an exec'd process goes on at once.
    fn prepared(&mut self, token: u64, launch: &mut Launch) {
        let pid = launch.pid;
        match launch.who.clone() {
            Who::Container(id) => {
                let Some(container) = self.containers.get_mut(&id) else { return };
                if container.pid == 0 {
                    (container.pid, container.launch) = (pid, Some(token));
                    container.created_at = sys::now();
                    if let Some(caller) = launch.caller.take() {
                        self.answer(caller, Ok(Reply::Created { pid }), Vec::new());
                    }
                    self.event(&id, EventKind::Created);
                }
            }
            Who::Exec(id) => {
                let Some(exec) = self.execs.get_mut(&id) else { return };
                if exec.pid == 0 {
                    (exec.pid, exec.started_at) = (pid, sys::now());
                    let _ = launch::go(launch.line.as_fd());
                }
            }
        }
        match self.unclaimed.remove(&pid) {
            Some(status) => self.ended(pid, status),
            // All were killed that there were when the pod was told to end; this one came after.
            None if self.shutdown.is_some() => drop(sys::kill(pid, libc::SIGKILL)),
            None => {}
        }
    }

    /// The line was closed by execve: the program runs.
    fn executed(&mut self, launch: &mut Launch) {
        let (pid, at) = (launch.pid, sys::now());
        match launch.who.clone() {
            Who::Container(id) => {
                let Some(container) = self.containers.get_mut(&id) else { return };
                container.launch = None;
                if container.status != Status::Created {
                    return;
                }
                (container.status, container.started_at) = (Status::Running, at);
                if let Some(caller) = launch.caller.take() {
                    self.answer(caller, Ok(Reply::Started { pid, at }), Vec::new());
                }
                self.event(&id, EventKind::Started);
            }
            Who::Exec(_) => {
                if let Some(caller) = launch.caller.take() {
                    let terminal = launch.terminal.take().into_iter().collect();
                    self.answer(caller, Ok(Reply::ExecStarted { pid }), terminal);
                }
            }
        }
    }

    fn failed(&mut self, launch: &mut Launch, failure: Failure) {
        match launch.who.clone() {
            Who::Container(id) => match self.containers.get_mut(&id) {
                // It was ready: what failed is the start, and that is an exit.
                Some(container) if launch.ready => {
                    container.launch = None;
                    let now = sys::now();
                    let message = failure.message.clone();
                    let code = 128;
                    let pid = container.pid;
                    self.container_ended(
                        &id,
                        Exit { code, pid, finished_at: now, message, ..Exit::default() },
                    );
                }
                _ => {
                    bury(launch);
                    self.forget(&id);
                }
            },
            Who::Exec(id) => drop(self.execs.remove(&id)),
        }
        if let Some(caller) = launch.caller.take() {
            self.answer(caller, Err(failure), Vec::new());
        }
    }

    fn container_ended(&mut self, id: &str, mut exit: Exit) {
        let Some(container) = self.containers.get(id) else { return };
        if !container.own_pids {
            kill_all(&container.cgroup, libc::SIGKILL);
        }
        self.check_oom(id);
        self.drain_all(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        exit.started_at = container.started_at;
        exit.oom_killed = container.ooms > 0;
        // Nothing can be done about a disk that refuses; the daemon still hears it from us.
        let _ = exit::record(&container.dir, EXIT_FILE, &exit);
        container.status = Status::Exited;
        container.exit = Some(exit.clone());
        container.terminal = None;
        let launch = container.launch.take();
        let waiters = std::mem::take(&mut container.waiters);
        if let Some(token) = launch
            && let Some(Source::Launch(mut launch)) = self.sources.remove(&token)
        {
            if let Some(caller) = launch.caller.take() {
                let message = format!("container {id} was killed before it was started");
                self.answer(caller, Err(Failure { kind: FailureKind::InvalidState, message }), Vec::new());
            }
            self.sources.insert(token, Source::Launch(launch));
            self.remove(token);
        }
        for caller in waiters {
            self.answer(caller, Ok(Reply::Exited(exit.clone())), Vec::new());
        }
        self.event(id, EventKind::Exited(exit));
    }

    fn exec_ended(&mut self, id: &str, mut exit: Exit) {
        let Some(exec) = self.execs.get_mut(id) else { return };
        exit.started_at = exec.started_at;
        match exec.waiter.take() {
            Some(caller) => {
                self.execs.remove(id);
                self.answer(caller, Ok(Reply::Exited(exit)), Vec::new());
            }
            None => exec.exit = Some(exit),
        }
        // Results that nobody fetches must not gather for ever.
        const KEPT: usize = 256;
        while self.execs.values().filter(|exec| exec.exit.is_some()).count() > KEPT {
            let oldest = self.execs.iter().filter(|(_, exec)| exec.exit.is_some());
            let oldest = oldest.min_by_key(|(_, exec)| exec.started_at).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            self.execs.remove(&oldest);
        }
    }

    /// Removes every trace of a container that is not running.
    pub(crate) fn forget(&mut self, id: &str) {
        for token in self.tokens(|source| match source {
            Source::Output(output) => output.container == id,
            Source::Input(input) => input.container == id,
            Source::Follower(follower) => follower.container == id,
            Source::Typing(typing) => typing.container == id,
            Source::Oom(_, container) => container == id,
            _ => false,
        }) {
            self.remove(token);
        }
        self.execs.retain(|_, exec| exec.container != id || exec.exit.is_none());
        self.containers.remove(id);
    }

    /// Whether the kernel has killed in this container's cgroup since we last looked.
    pub(crate) fn check_oom(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let count = oom_kills(&container.cgroup);
        if count > container.ooms {
            container.ooms = count;
            self.event(id, EventKind::Oom);
        }
    }

    pub(crate) fn check_ooms(&mut self) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        ids.iter().for_each(|id| self.check_oom(id));
    }

    /// Once asked to end, and nothing lives any more: unpin, answer, go.
    pub(crate) fn finish_shutdown(&mut self) {
        let Some(caller) = self.shutdown else { return };
        let init_lives = self.sandbox.as_ref().is_some_and(|sandbox| sandbox.init_pid != 0 && sandbox.ready);
        if init_lives || self.containers.values().any(|container| container.exit.is_none()) {
            return;
        }
        if let Some(sandbox) = &mut self.sandbox {
            (sandbox.net, sandbox.ipc, sandbox.uts, sandbox.users) = (None, None, None, None);
            sandbox::unpin(&sandbox.spec, &self.dir);
        }
        let _ = std::fs::remove_file(self.dir.join(shim::protocol::SOCKET));
        self.answer(caller, Ok(Reply::Done), Vec::new());
        sys::quit(0)
    }
}

/// Waits for the end of what was to become a container, so that the daemon can remove its cgroup at once. Both processes
/// are at their last call already, or are killed.
fn bury(launch: &mut Launch) {
    // SAFETY: waits for our own children, whose status nobody needs; those reaped before are an error.
    let reap = |pid: i32| unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    reap(launch.helper);
    while let Ok(Some((step, _))) = launch::hear(launch.line.as_fd()) {
        if let Step::Pid(pid) = step {
            launch.pid = pid;
        }
    }
    if launch.pid != 0 {
        let _ = sys::kill(launch.pid, libc::SIGKILL);
        reap(launch.pid);
    }
}

/// The v1 memory directory's, or v2's, count of processes killed for memory.
fn oom_kills(cgroup: &Cgroup) -> u64 {
    let Some(file) = oom_file(cgroup) else { return 0 };
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

fn oom_file(cgroup: &Cgroup) -> Option<PathBuf> {
    let name = if cgroup.v2 { "memory.events" } else { "memory.oom_control" };
    cgroup.dirs.iter().map(|dir| Path::new(dir).join(name)).find(|file| file.exists())
}

/// A descriptor that becomes readable when memory has run out. The count is from now on.
pub(crate) fn watch_oom(cgroup: &Cgroup) -> Option<(OwnedFd, u64)> {
    let file = oom_file(cgroup)?;
    let before = oom_kills(cgroup);
    if cgroup.v2 {
        use rustix::fs::inotify;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
        inotify::add_watch(&fd, &file, inotify::WatchFlags::MODIFY).ok()?;
        return Some((fd, before));
    }
    use rustix::event::{EventfdFlags, eventfd};
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
    let control = std::fs::File::open(&file).ok()?;
    let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
    std::fs::write(file.with_file_name("cgroup.event_control"), line).ok()?;
    Some((fd, before))
}

/// Signals every process of a cgroup. Its processes need not be our children, so each is held by a pidfd and looked up
/// again before it is signalled; new ones that appear meanwhile get another round.
pub(crate) fn kill_all(cgroup: &Cgroup, signal: i32) {
    let Some(dir) = cgroup.dirs.first() else { return };
    if cgroup.v2 && signal == libc::SIGKILL && std::fs::write(format!("{dir}/cgroup.kill"), "1").is_ok() {
        return;
    }
    let members = || -> Vec<i32> {
        let text = std::fs::read_to_string(format!("{dir}/cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    };
    let mut done: Vec<i32> = Vec::new();
    for _ in 0..8 {
        let held: Vec<(i32, OwnedFd)> = members()
            .into_iter()
            .filter(|pid| !done.contains(pid))
            .filter_map(|pid| Some((pid, sys::pidfd_open(pid).ok()?)))
            .collect();
        if held.is_empty() {
            return;
        }
        let still = members();
        for (pid, fd) in held {
            if still.contains(&pid) {
                // SAFETY: no pointer is used.
                unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, 0, 0) };
            }
            done.push(pid);
        }
    }
}
