//! Becoming a daemon: into the given cgroups, two forks, a session of its own, nothing inherited; the first process
//! ends when the last one listens, so that its caller can connect at once.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};
use shim::protocol::{Cgroup, SHIM_FILE, SOCKET, ShimFile, VERSION};

use crate::shim::Shim;
use crate::{create, exit, process, sys};

pub(crate) fn run(dir: &str, cgroups: &[String]) -> i32 {
    match begin(dir, cgroups) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            1
        }
    }
}

fn begin(dir: &str, cgroups: &[String]) -> io::Result<()> {
    let other = |failure: shim::protocol::Failure| io::Error::other(failure.message);
    // Before the forks: what is forked is born in the cgroup, and none of the shim's memory is charged elsewhere.
    create::join(&Cgroup { dirs: cgroups.to_vec(), v2: false }).map_err(other)?;
    in_background(|| daemonize(dir), |shim| shim.run())
}

/// Runs in a process of its own that belongs to nobody; returns when it has prepared.
pub(crate) fn in_background<T>(
    prepare: impl FnOnce() -> io::Result<T>,
    run: impl FnOnce(T),
) -> io::Result<()> {
    let (ready, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    if sys::clone(0, None)?.is_some() {
        drop(tell);
        let mut answer = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(ready), &mut answer)?;
        return match answer.strip_prefix("ready") {
            Some(_) => Ok(()),
            None if answer.is_empty() => Err(io::Error::other("the process died while it started")),
            None => Err(io::Error::other(answer)),
        };
    }
    drop(ready);
    let _ = rustix::process::setsid();
    match sys::clone(0, None) {
        Ok(None) => {}
        _ => sys::quit(0),
    }
    let mut tell = std::fs::File::from(tell);
    match detach(&tell).and_then(|()| prepare()) {
        Ok(prepared) => {
            let _ = tell.write_all(b"ready");
            drop(tell);
            run(prepared);
            sys::quit(0)
        }
        Err(error) => {
            let _ = write!(tell, "{error}");
            sys::quit(1)
        }
    }
}

/// Lets go of all that was inherited.
fn detach(tell: &std::fs::File) -> io::Result<()> {
    sys::close_all_but(&[std::os::fd::AsRawFd::as_raw_fd(tell)]);
    // A shim that forks children must not be near the first to be killed for memory; without CAP_SYS_RESOURCE it is as
    // likely as its starter.
    if let Ok(proc) = process::host_proc() {
        let _ = process::set_oom_score(proc.as_fd(), -998);
    }
    // SAFETY: a C string; and ignoring signals of this process.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"tiphys-shim".as_ptr(), 0, 0, 0);
        for signal in [libc::SIGPIPE, libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGTTOU]
        {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for number in 0..3 {
        // SAFETY: both are descriptors of this process; what 0 to 2 were before belongs to nobody.
        sys::check(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), number) }.into())?;
    }
    Ok(())
}

fn daemonize(dir: &str) -> io::Result<Shim> {
    // SAFETY: takes integers only.
    sys::check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into())?;
    let listener = listener(dir)?;
    let dir = PathBuf::from(dir);
    exit::note(&dir, SHIM_FILE, &file())?;
    Shim::new(dir, listener)
}

/// What `shim.json` says of this process.
pub(crate) fn file() -> ShimFile {
    let pid = std::process::id() as i32;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may hold anything; what follows its last parenthesis is numbers, the first of them field 3.
    let start_time =
        stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(20)).and_then(|text| text.parse().ok());
    ShimFile { version: VERSION, pid, start_time: start_time.unwrap_or(0), sandbox: None }
}

/// Bound by a relative path: a socket's path has room for 107 bytes, a directory's for more.
fn listener(dir: &str) -> io::Result<OwnedFd> {
    rustix::process::chdir(dir)?;
    match rustix::fs::unlinkat(CWD, SOCKET, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    bind(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    rustix::process::umask(before);
    listen(&socket, 128)?;
    rustix::process::chdir("/")?;
    Ok(socket)
}
