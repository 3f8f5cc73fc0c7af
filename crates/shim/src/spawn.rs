//! Starting the program: its bytes go into a sealed memfd, so that what a container sees as `/proc/self/exe` of a
//! process about to become it is no file of the host and can never be written (CVE-2019-5736).

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// The program in a sealed memfd. One per daemon: all its shims share the pages.
#[derive(Debug)]
pub struct Program {
    memfd: OwnedFd,
}

/// What a shim is started with.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The pod's state directory; the socket is bound in it.
    pub dir: &'a Path,
    /// Cgroup directories the shim moves itself into: outside the daemon's and outside the pod's.
    pub cgroups: &'a [std::path::PathBuf],
}

impl Program {
    /// Copies the program's bytes (`runtime::SHIM`) into a memfd and seals it.
    pub fn new(bytes: &[u8]) -> io::Result<Program> {
        let memfd = memfd_create(c"tiphys-shim", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = std::fs::File::from(memfd);
        file.write_all(bytes)?;
        let memfd = OwnedFd::from(file);
        fcntl_add_seals(&memfd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        Ok(Program { memfd })
    }

    /// Whether mounts of the directory can be mapped into a user namespace; if not, why. Blocks for a few milliseconds.
    pub fn probe_idmap(&self, dir: &Path) -> io::Result<()> {
        let mut command = self.command();
        command.arg("probe-idmap").arg(dir);
        succeed("probing idmapped mounts", command)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()));
        command
            .arg0("tiphys-shim")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a holder of sockets and returns when it listens.
    pub fn hold(&self, place: &crate::held::Place) -> io::Result<()> {
        let mut command = self.command();
        command.arg("hold").arg(&place.socket).arg(place.patience.to_string()).args(&place.cgroups);
        succeed("starting the holder of sockets", command)
    }

    /// Starts a shim and returns when it listens. Blocks for a few milliseconds: two forks and a bind.
    pub fn start(&self, options: &Options<'_>) -> io::Result<()> {
        let mut command = self.command();
        command.arg("shim").arg(options.dir);
        for dir in options.cgroups {
            command.arg(OsStr::new(dir));
        }
        succeed("starting shim", command)
    }
}

fn succeed(what: &str, mut command: Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{what}: {}: {}", output.status, message.trim())))
}
