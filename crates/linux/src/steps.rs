//! The steps of what changes the machine, for tests that kill the process at each of them: with `TIPHYS_DIE_AT_STEP=17`
//! a debug build ends by SIGKILL at its seventeenth step. A release build has nothing of it.

/// Here one change is done and the next not begun.
#[cfg(debug_assertions)]
pub fn step(next: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: LazyLock<u64> = LazyLock::new(|| {
        std::env::var("TIPHYS_DIE_AT_STEP").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    });
    static DONE: AtomicU64 = AtomicU64::new(0);
    if *LAST != 0 && DONE.fetch_add(1, Ordering::SeqCst) + 1 == *LAST {
        eprintln!("dying before: {next}");
        let own = rustix::process::getpid();
        // Nothing runs after it, not even a destructor.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn step(_: &str) {}
