//! PID 1 of a pod that shares its PID namespace: it reaps what containers leave behind and outlives their restarts.
//! It was given an empty root, no capabilities and no descriptors before it was executed (see `sandbox`).

use rustix::process::{WaitOptions, wait};

/// Sleeps until a child ends; ends on SIGTERM or SIGINT.
pub(crate) fn run() -> i32 {
    // SAFETY: the sets are initialised by sigemptyset before use, and live on this stack.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr(), 0, 0, 0);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        loop {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let mut signal = 0;
            if libc::sigwait(&raw const set, &raw mut signal) == 0 && signal != libc::SIGCHLD {
                return 0;
            }
        }
    }
}
