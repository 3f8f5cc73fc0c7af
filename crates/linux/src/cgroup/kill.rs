//! Ending every process of a group, whatever its state: by `cgroup.kill` where there is a v2 tree with it (5.14), else by
//! pidfd, so that no signal can reach a process that took over a number.

use super::{Cgroup, children, read_processes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl Cgroup {
    /// Kills all processes of this group and of those below, and waits until they are gone, at most `patience`.
    /// `Ok(false)`: some are still there (in uninterruptible sleep, say). Blocks.
    pub fn kill(&self, patience: Duration) -> io::Result<bool> {
        crate::steps::step("killing a cgroup");
        let until = Instant::now() + patience;
        loop {
            if let Some(unified) = &self.unified {
                // Absent before 5.14.
                let _ = std::fs::write(unified.join("cgroup.kill"), "1");
            }
            let dirs = self.dirs();
            let mut living = Vec::new();
            for dir in dirs.iter().flat_map(|dir| subtree(dir)) {
                for pid in read_processes(&dir)? {
                    living.extend(kill_member(&dir, pid)?);
                }
            }
            if living.is_empty() {
                return Ok(true);
            }
            for process in living {
                let left = until.saturating_duration_since(Instant::now());
                let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left))? == 0 {
                    return Ok(false);
                }
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }
}

fn subtree(dir: &Path) -> Vec<PathBuf> {
    let below = children(dir).into_iter().flat_map(|child| subtree(&child));
    below.chain([dir.to_owned()]).collect()
}

/// Kills a process if it is still in the group once its descriptor is held.
fn kill_member(dir: &Path, pid: i32) -> io::Result<Option<OwnedFd>> {
    let Some(process) = Pid::from_raw(pid) else { return Ok(None) };
    let Ok(fd) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(None) };
    if !read_processes(dir)?.contains(&pid) {
        return Ok(None);
    }
    match pidfd_send_signal(&fd, Signal::KILL) {
        Ok(()) => Ok(Some(fd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
