//! The last steps of a process on its way into a container, the same for its first process and for exec: limits,
//! working directory, user, capabilities, seccomp, and execve. The process is already inside every namespace.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use shim::protocol::{Capabilities, Failure, FailureKind, Process, Rlimit, Seccomp, User};

use crate::sys::{At, Outcome, check, cstring, failed};

/// Puts the three descriptors in place and, with a terminal, makes it the controlling one of a new session.
pub(crate) fn take_stdio(stdio: &[OwnedFd; 3], terminal: bool) -> Outcome<()> {
    rustix::process::setsid().at("setsid")?;
    for (number, fd) in stdio.iter().enumerate() {
        // SAFETY: both are descriptors of this process; what 0 to 2 were before belongs to nobody.
        check(unsafe { libc::dup2(fd.as_raw_fd(), number as i32) }.into()).at("dup2")?;
    }
    if terminal {
        // SAFETY: takes no pointer.
        check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }.into()).at("controlling terminal")?;
    }
    Ok(())
}

/// Gives pipes and the terminal to the user, so that it may open /dev/stdout; /dev/null stays the host's.
pub(crate) fn own_stdio(stdio: &[OwnedFd; 3], uid: u32) {
    for fd in stdio {
        let null = rustix::fs::fstat(fd).is_ok_and(|stat| is_null(&stat));
        if !null {
            let _ = rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

pub(crate) fn is_null(stat: &rustix::fs::Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3)
}

/// Writes oom_score_adj through a procfs that is known to be one. Lowering needs CAP_SYS_RESOURCE: without it the
/// value stays, as the design has it.
pub(crate) fn set_oom_score(proc: BorrowedFd<'_>, value: i32) -> Outcome<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, "self/oom_score_adj", flags, Mode::empty()).at("oom_score_adj")?;
    match rustix::io::write(&file, value.to_string().as_bytes()) {
        Ok(_) | Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(()),
        Err(error) => Err(failed(format!("oom_score_adj: {error}"))),
    }
}

/// Has this process, and what it forks, enter an AppArmor profile with the next program.
pub(crate) fn confine(proc: BorrowedFd<'_>, profile: &str) -> Outcome<()> {
    if profile.is_empty() {
        return Ok(());
    }
    let at = || format!("apparmor profile {profile}");
    let open = |path| rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    // Kernels before 5.8 have no place of AppArmor's own.
    let file = open("self/attr/apparmor/exec").or_else(|_| open("self/attr/exec")).at(at())?;
    rustix::io::write(&file, format!("exec {profile}").as_bytes()).map(drop).at(at())
}

/// The host's procfs, verified, to be opened before the mount namespace is left.
pub(crate) fn host_proc() -> Outcome<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).at("/proc")?;
    if rustix::fs::fstatfs(&proc).at("/proc")?.f_type as i64 != libc::PROC_SUPER_MAGIC {
        return Err(failed("/proc is no procfs"));
    }
    Ok(proc)
}

/// What [`Prepared::execute`] needs once it may allocate no more doubts: all lookups are done.
pub(crate) struct Prepared {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    seccomp: Option<Seccomp>,
}

/// Does everything up to execve. The program is looked up as the container's user would find it.
/// No descriptor but 0 to 2 and `keep` may be open any more: the working directory could be one of them (CVE-2024-21626).
pub(crate) fn prepare(process: &Process, cwd: &str, keep: BorrowedFd<'_>) -> Outcome<Prepared> {
    crate::sys::close_all_but(&[keep.as_raw_fd()]);
    for limit in &process.rlimits {
        set_limit(limit)?;
    }
    if let Some(umask) = process.umask {
        rustix::process::umask(Mode::from_raw_mode(umask));
    }
    let env = environment(process)?;
    // Without no_new_privs a filter can be loaded only while CAP_SYS_ADMIN is there.
    let mut seccomp = process.seccomp.clone();
    if !process.no_new_privileges
        && let Some(filter) = seccomp.take()
    {
        load(&filter)?;
    }
    // As root first: the directory need not be open to the user.
    let moved = enter(cwd);
    become_user(&process.user, &process.capabilities)?;
    if moved.is_err() {
        enter(cwd)?;
    }
    if process.no_new_privileges {
        // SAFETY: takes integers only.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).at("no_new_privs")?;
    }
    let path = find(process.args.first().map_or("", String::as_str), &env)?;
    let args = process.args.iter().map(|arg| cstring(arg)).collect::<Outcome<_>>()?;
    let env = env.iter().map(|variable| cstring(variable)).collect::<Outcome<_>>()?;
    Ok(Prepared { path, args, env, seccomp })
}

impl Prepared {
    /// Executes the program; comes back only if that failed.
    pub(crate) fn execute(self) -> Failure {
        if let Some(filter) = &self.seccomp
            && let Err(failure) = load(filter)
        {
            return failure;
        }
        if let Err(failure) = default_signals() {
            return failure;
        }
        let _ = crate::sys::close_on_exec_from(3);
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        // SAFETY: NUL-terminated strings in NULL-terminated arrays, alive until the call is over.
        unsafe { libc::execve(self.path.as_ptr(), args.as_ptr(), env.as_ptr()) };
        let error = io::Error::last_os_error();
        exec_failed(format!("exec {}: {}", self.path.to_string_lossy(), plain(&error)))
    }
}

fn exec_failed(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::ExecFailed, message: message.into() }
}

/// The kernel's words without Rust's "(os error 2)", in upstream's lower case.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

fn enter(cwd: &str) -> Outcome<()> {
    rustix::process::chdir(cwd).map_err(|error| {
        exec_failed(format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", plain(&error.into())))
    })?;
    // The kernel marks a directory outside the root with "(unreachable)".
    let now = rustix::process::getcwd(Vec::new()).at("getcwd")?;
    if now.as_bytes().first() == Some(&b'/') {
        return Ok(());
    }
    Err(exec_failed(
        "current working directory is outside of container mount namespace root -- possible container breakout detected",
    ))
}

fn set_limit(limit: &Rlimit) -> Outcome<()> {
    let set = |soft: u64, hard: u64| {
        let value = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
        // SAFETY: a struct on this stack.
        check(unsafe { libc::setrlimit64(limit.resource as _, &raw const value) }.into())
    };
    match set(limit.soft, limit.hard) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            // Raising the hard limit needs CAP_SYS_RESOURCE: do what is allowed.
            let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: a struct on this stack.
            check(unsafe { libc::getrlimit64(limit.resource as _, &raw mut now) }.into()).at("getrlimit")?;
            set(limit.soft.min(now.rlim_max), limit.hard.min(now.rlim_max)).map(drop).at("setrlimit")
        }
        other => other.map(drop).at("setrlimit"),
    }
}

/// The environment with HOME, which programs expect, from the container's /etc/passwd.
fn environment(process: &Process) -> Outcome<Vec<String>> {
    let mut env = process.env.clone();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", home(process.user.uid).unwrap_or_else(|| "/".into())));
    }
    Ok(env)
}

fn home(uid: u32) -> Option<String> {
    use std::io::Read;
    // The root is the container's already; a FIFO or an endless file must not hold us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, "/etc/passwd", flags, Mode::empty()).ok()?;
    let regular = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
    if regular != rustix::fs::FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    std::fs::File::from(file).take(1 << 20).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let id = fields.nth(2)?;
        let home = fields.nth(2)?;
        (id.parse() == Ok(uid) && !home.is_empty()).then(|| home.to_owned())
    })
}

fn find(program: &str, env: &[String]) -> Outcome<CString> {
    let executable = |path: &str| -> io::Result<()> {
        let stat = rustix::fs::stat(path)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
    };
    if program.is_empty() {
        return Err(exec_failed("no command specified"));
    }
    if program.contains('/') {
        return match executable(program) {
            Ok(()) => cstring(program),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(exec_failed(format!("exec: {program:?}: permission denied")))
            }
            Err(error) => Err(exec_failed(format!("exec: {program:?}: stat {program}: {}", plain(&error)))),
        };
    }
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let mut denied = false;
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{program}");
        match executable(&candidate) {
            Ok(()) => return cstring(&candidate),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    let why = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(exec_failed(format!("exec: {program:?}: {why}")))
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAP_VERSION_3: u32 = 0x2008_0522;

/// The capabilities this process may use.
fn permitted() -> io::Result<u64> {
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 writes two structs.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, &raw mut data) })?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

pub(crate) fn become_user(user: &User, wanted: &Capabilities) -> Outcome<()> {
    let mine = permitted().at("capget")?;
    for capability in 0..64 {
        if wanted.bounding & (1 << capability) == 0 {
            // SAFETY: takes integers only. Beyond the last capability the kernel knows this is EINVAL.
            let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            if dropped < 0 {
                match io::Error::last_os_error() {
                    error if error.raw_os_error() == Some(libc::EINVAL) => break,
                    error => return Err(failed(format!("dropping bounding capability: {error}"))),
                }
            }
        }
    }
    // SAFETY: takes integers only.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.into()).at("keepcaps")?;
    // Raw calls: glibc's would look for other threads.
    // SAFETY: a slice and its length; then integers only.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr())).at("setgroups")?;
        check(libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid)).at("setgid")?;
        check(libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid)).at("setuid")?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0).into()).at("keepcaps")?;
    }
    let permitted = wanted.permitted & mine;
    let (effective, ambient) = (wanted.effective & permitted, wanted.ambient & permitted);
    let half = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (ambient >> shift) as u32,
    };
    let header = CapHeader { version: CAP_VERSION_3, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two structs.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const data) }).at("capset")?;
    for capability in (0..64).filter(|capability| ambient & (1 << capability) != 0) {
        // SAFETY: takes integers only.
        let raised =
            unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
        check(raised.into()).at("raising ambient capability")?;
    }
    Ok(())
}

fn load(seccomp: &Seccomp) -> Outcome<()> {
    let filter: Vec<libc::sock_filter> = seccomp
        .filter
        .iter()
        .map(|packed| libc::sock_filter {
            code: (packed >> 48) as u16,
            jt: (packed >> 40) as u8,
            jf: (packed >> 32) as u8,
            k: *packed as u32,
        })
        .collect();
    let length = u16::try_from(filter.len()).at("seccomp filter")?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points at `length` instructions; the kernel copies them.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, seccomp.flags, &raw const program)
    })
    .map(drop)
    .at("loading the seccomp filter")
}

/// The shim blocks and ignores signals; programs start with none blocked and all at their default.
pub(crate) fn default_signals() -> Outcome<()> {
    // SAFETY: the set is initialised before use; resetting handlers of this process, which has one thread.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()).into())
            .at("signals")?;
    }
    Ok(())
}
