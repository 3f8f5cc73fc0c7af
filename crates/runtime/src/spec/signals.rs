//! Signals as images name them (`SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`) and as CRI numbers them.

use cri::v1::Signal;

const NAMES: [(&str, i32); 36] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGIOT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGPOLL),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// The number of a signal in an image's config.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (base, offset) = match name.find(['+', '-']) {
        Some(at) => (&name[..at], name[at..].parse::<i32>().ok()?),
        None => (name, 0),
    };
    if offset != 0 && !base.starts_with("RT") {
        return None;
    }
    let number = NAMES.iter().find(|(known, _)| *known == base)?.1 + offset;
    (1..=64).contains(&number).then_some(number)
}

/// The number of CRI's signal; `None` for the runtime's default.
pub(crate) fn from_cri(signal: Signal) -> Option<i32> {
    // `SIGRTMINPLUS3` and `SIGRTMAXMINUS2`.
    let name = signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-");
    parse(&name)
}

/// CRI's signal of a number, for the status.
pub(crate) fn to_cri(number: i32) -> Signal {
    let all = (0..=65).filter_map(|value| Signal::try_from(value).ok());
    let mut all = all.filter(|signal| from_cri(*signal) == Some(number));
    // Of two names the first: SIGCHLD before SIGCLD.
    all.next().unwrap_or_default()
}
