//! The shim itself: what it knows, and the loop that sleeps until the kernel has something for it. Everything it listens
//! to is a [`Source`] under a token; a source is taken out of the table while it is served, and put back if it lives on.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{Timespec, epoll};
use shim::protocol::{
    Cgroup, ContainerState, Event, EventKind, Exit, Failure, Message, Reply, SandboxState, State, Status,
    VERSION,
};

use crate::conn::Conn;
use crate::logs::Log;
use crate::sandbox::Sandbox;
use crate::stdio::{Follower, Input, Output, Typing};
use crate::sys;

/// Whom to answer.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) conn: u64,
    pub(crate) call: u64,
}

pub(crate) enum Source {
    Listener(OwnedFd),
    Children(OwnedFd),
    Conn(Conn),
    Output(Output),
    Input(Input),
    /// What an attached client types.
    Typing(Typing),
    /// An attached client's output.
    Follower(Follower),
    Launch(Launch),
    /// The kernel tells of memory running out in this container's cgroup.
    Oom(OwnedFd, String),
}

/// A process on its way to its program.
pub(crate) struct Launch {
    pub(crate) line: OwnedFd,
    pub(crate) who: Who,
    /// The first fork, which ends when it has made the second.
    pub(crate) helper: i32,
    pub(crate) pid: i32,
    pub(crate) ready: bool,
    /// An exec's terminal, for the answer.
    pub(crate) terminal: Option<OwnedFd>,
    /// Who waits for the next step.
    pub(crate) caller: Option<Caller>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Who {
    Container(String),
    Exec(String),
}

pub(crate) struct Container {
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: Cgroup,
    pub(crate) cgroup_namespace: bool,
    pub(crate) cwd: String,
    /// Its first process is PID 1 of a namespace, whose end ends every other process.
    pub(crate) own_pids: bool,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) stdin_once: bool,
    pub(crate) log: Option<Log>,
    pub(crate) status: Status,
    pub(crate) pid: i32,
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) ooms: u64,
    pub(crate) exit: Option<Exit>,
    pub(crate) waiters: Vec<Caller>,
    /// The token of its [`Launch`], until its program is executed.
    pub(crate) launch: Option<u64>,
    pub(crate) input: Option<u64>,
}

pub(crate) struct Exec {
    pub(crate) container: String,
    pub(crate) pid: i32,
    pub(crate) started_at: i64,
    pub(crate) exit: Option<Exit>,
    pub(crate) waiter: Option<Caller>,
}

pub(crate) struct Shim {
    pub(crate) dir: PathBuf,
    epoll: OwnedFd,
    pub(crate) sources: BTreeMap<u64, Source>,
    next_token: u64,
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) containers: BTreeMap<String, Container>,
    pub(crate) execs: BTreeMap<String, Exec>,
    /// Children that ended before we knew what they were.
    pub(crate) unclaimed: BTreeMap<i32, i32>,
    /// Memory ran out somewhere: the kernel tells before it kills, so the counters are read again shortly.
    pub(crate) recheck_oom: bool,
    pub(crate) shutdown: Option<Caller>,
    pub(crate) buffer: Vec<u8>,
}

impl Shim {
    pub(crate) fn new(dir: PathBuf, listener: OwnedFd) -> io::Result<Shim> {
        let mut shim = Shim {
            dir,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sources: BTreeMap::new(),
            next_token: 0,
            sandbox: None,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            unclaimed: BTreeMap::new(),
            recheck_oom: false,
            shutdown: None,
            buffer: vec![0; 32 << 10],
        };
        shim.add(Source::Listener(listener))?;
        shim.add(Source::Children(crate::lifecycle::children()?))?;
        Ok(shim)
    }

    pub(crate) fn run(mut self) -> ! {
        let mut events = Vec::with_capacity(32);
        loop {
            let shortly = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let timeout = self.recheck_oom.then_some(&shortly);
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // The loop cannot go on without it; containers do, and the daemon finds a dead shim.
                Err(_) => sys::quit(1),
            }
            if events.is_empty() && std::mem::take(&mut self.recheck_oom) {
                self.check_ooms();
            }
            for event in &events {
                let epoll::Event { flags, data } = *event;
                self.serve(data.u64(), flags);
            }
            self.finish_shutdown();
        }
    }

    fn serve(&mut self, token: u64, flags: epoll::EventFlags) {
        // It may have been removed by an earlier event of the same round.
        let Some(mut source) = self.sources.remove(&token) else { return };
        let stays = match &mut source {
            Source::Listener(fd) => {
                self.accept(fd);
                true
            }
            Source::Children(fd) => {
                self.reap(fd.as_fd());
                true
            }
            Source::Conn(conn) => self.listen(conn, flags),
            Source::Output(output) => self.drain(output, 8),
            Source::Input(input) => self.feed(input),
            Source::Typing(typing) => self.typed(typing),
            Source::Follower(follower) => follower.flush(),
            Source::Launch(launch) => self.progress(token, launch),
            Source::Oom(fd, container) => {
                let _ = rustix::io::read(&*fd, &mut [0; 512]);
                let container = container.clone();
                self.check_oom(&container);
                self.recheck_oom = true;
                self.containers.contains_key(&container)
            }
        };
        if stays {
            self.rearm(token, &source);
            self.sources.insert(token, source);
            self.talk(token);
        } else {
            self.discard(source);
        }
    }

    /// Ends a source that is out of the table. Its file may live on in a fork, so the kernel must be told.
    fn discard(&mut self, source: Source) {
        let _ = epoll::delete(&self.epoll, fd_of(&source));
        match source {
            Source::Output(mut output) => self.end_output(&mut output),
            Source::Input(input) => {
                if let Some(container) = self.containers.get_mut(&input.container) {
                    container.input = None;
                }
            }
            _ => {}
        }
    }

    pub(crate) fn add(&mut self, source: Source) -> io::Result<u64> {
        self.next_token += 1;
        let token = self.next_token;
        let flags = interest(&source).unwrap_or(epoll::EventFlags::empty());
        epoll::add(&self.epoll, fd_of(&source), epoll::EventData::new_u64(token), flags)?;
        self.sources.insert(token, source);
        Ok(token)
    }

    pub(crate) fn remove(&mut self, token: u64) {
        if let Some(source) = self.sources.remove(&token) {
            self.discard(source);
        }
    }

    /// Listens for what the source now needs.
    pub(crate) fn rearm(&self, token: u64, source: &Source) {
        let data = epoll::EventData::new_u64(token);
        match interest(source) {
            Some(flags) if epoll::modify(&self.epoll, fd_of(source), data, flags).is_ok() => {}
            Some(flags) => drop(epoll::add(&self.epoll, fd_of(source), data, flags)),
            None => drop(epoll::delete(&self.epoll, fd_of(source))),
        }
    }

    pub(crate) fn rearm_token(&self, token: u64) {
        if let Some(source) = self.sources.get(&token) {
            self.rearm(token, source);
        }
    }

    /// Tokens of the sources that `which` picks.
    pub(crate) fn tokens(&self, which: impl Fn(&Source) -> bool) -> Vec<u64> {
        self.sources.iter().filter(|(_, source)| which(source)).map(|(token, _)| *token).collect()
    }

    fn accept(&mut self, listener: &OwnedFd) {
        use rustix::net::{SocketFlags, accept_with};
        while let Ok(fd) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            let _ = self.add(Source::Conn(Conn::new(fd)));
        }
    }

    /// Reads what a connection has to say; false when it is over.
    fn listen(&mut self, conn: &mut Conn, flags: epoll::EventFlags) -> bool {
        if conn.flush().is_err() {
            return false;
        }
        if !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return true;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let alive = conn.fill(&mut buffer);
        self.buffer = buffer;
        matches!(alive, Ok(true))
    }

    /// Handles the calls that have come in whole.
    fn talk(&mut self, token: u64) {
        while let Some(Source::Conn(conn)) = self.sources.get_mut(&token) {
            match conn.next() {
                Ok(Some((call, fds))) => {
                    let caller = Caller { conn: token, call: call.id };
                    if let Some((result, fds)) = self.handle(caller, call.request, fds) {
                        self.answer(caller, result, fds);
                    }
                }
                Ok(None) => return,
                Err(_) => self.remove(token),
            }
        }
    }

    /// Answers a call, if its connection still is.
    pub(crate) fn answer(&mut self, caller: Caller, result: Result<Reply, Failure>, fds: Vec<OwnedFd>) {
        if let Some(Source::Conn(conn)) = self.sources.get_mut(&caller.conn) {
            match conn.send(&Message::Reply { id: caller.call, result }, fds) {
                Ok(()) => self.rearm_token(caller.conn),
                Err(_) => self.remove(caller.conn),
            }
        }
    }

    /// Tells every subscriber.
    pub(crate) fn event(&mut self, container: &str, what: EventKind) {
        // The same instant that answers and the state give.
        let at = match (&what, self.containers.get(container)) {
            (EventKind::Started, Some(container)) => container.started_at,
            (EventKind::Exited(exit), _) => exit.finished_at,
            _ => sys::now(),
        };
        let event = Event { container: container.into(), at, what };
        for token in self.tokens(|source| matches!(source, Source::Conn(conn) if conn.subscribed)) {
            if let Some(Source::Conn(conn)) = self.sources.get_mut(&token) {
                match conn.send(&Message::Event(event.clone()), Vec::new()) {
                    Ok(()) => self.rearm_token(token),
                    Err(_) => self.remove(token),
                }
            }
        }
    }

    pub(crate) fn state(&self) -> State {
        let containers = self.containers.iter().map(|(id, container)| ContainerState {
            id: id.clone(),
            status: container.status,
            pid: container.pid,
            created_at: container.created_at,
            started_at: container.started_at,
            oom_killed: container.ooms > 0,
            exit: container.exit.clone(),
        });
        State {
            version: VERSION,
            pid: std::process::id() as i32,
            sandbox: self.sandbox.as_ref().map(|sandbox| SandboxState {
                id: sandbox.spec.id.clone(),
                init_pid: sandbox.init_pid,
                ready: sandbox.ready,
                created_at: sandbox.created_at,
            }),
            containers: containers.collect(),
        }
    }
}

fn fd_of(source: &Source) -> BorrowedFd<'_> {
    match source {
        Source::Listener(fd) | Source::Children(fd) | Source::Oom(fd, _) => fd.as_fd(),
        Source::Typing(typing) => typing.fd.as_fd(),
        Source::Conn(conn) => conn.fd.as_fd(),
        Source::Output(output) => output.fd.as_fd(),
        Source::Input(input) => input.fd.as_fd(),
        Source::Follower(follower) => follower.fd.as_fd(),
        Source::Launch(launch) => launch.line.as_fd(),
    }
}

/// What to be woken for; hang-ups come in any case. None: for nothing at all.
fn interest(source: &Source) -> Option<epoll::EventFlags> {
    let read = epoll::EventFlags::IN;
    Some(match source {
        Source::Conn(conn) if conn.wants_to_write() => read | epoll::EventFlags::OUT,
        Source::Input(input) if input.pending.is_empty() => epoll::EventFlags::empty(),
        Source::Follower(follower) if follower.queue.is_empty() => epoll::EventFlags::empty(),
        Source::Input(_) | Source::Follower(_) => epoll::EventFlags::OUT,
        // A client that has typed and hung up would wake us until the container has read it all.
        Source::Typing(typing) if typing.held => return None,
        _ => read,
    })
}
