//! Processes by descriptor: a name that is never reused, becomes readable when the process ends, and can be signalled.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process, or what was one.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Takes hold of the process that has this number now.
    pub fn open(pid: i32) -> io::Result<Process> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        // Non-blocking is for waitid; polling works either way.
        Ok(Process(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// As [`Process::open`], if the process started at `start_time` (see [`start_time`]): the number may be another's by now.
    pub fn open_started(pid: i32, start: u64) -> io::Result<Process> {
        let process = Process::open(pid)?;
        match start_time(pid)? == start {
            true => Ok(process),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Sends a signal; a process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether it still runs (a zombie does not).
    pub fn alive(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut fds, Some(&now))? == 0)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Process> for OwnedFd {
    fn from(process: Process) -> OwnedFd {
        process.0
    }
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything; numbers follow its last parenthesis, the first of them field 3.
    let field = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(20));
    field.and_then(|text| text.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_held_by_descriptor() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let process = Process::open_started(pid, start_time(pid).unwrap()).unwrap();
        assert!(Process::open_started(pid, 1).is_err());
        assert!(process.alive().unwrap());
        process.signal(Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(!process.alive().unwrap());
        process.signal(Signal::KILL).unwrap();
    }
}
