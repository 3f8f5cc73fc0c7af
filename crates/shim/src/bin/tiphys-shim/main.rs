//! `tiphys-shim`: one small, static, single-threaded program with three roles: `shim` (one per pod; creator and exec helper
//! are forks of it, never executed), `hold` (keeps sockets while the daemon is away), and, by the name it is executed
//! under, init (PID 1 of a shared PID namespace).

mod conn;
mod create;
mod exec;
mod exit;
mod hold;
mod image;
mod init;
mod inroot;
mod launch;
mod lifecycle;
mod logs;
mod mounts;
mod probe;
mod process;
mod requests;
mod rootfs;
mod sandbox;
mod shim;
mod start;
mod stdio;
mod sys;

fn main() {
    let mut args = std::env::args();
    if args.next().as_deref() == Some(sandbox::INIT_NAME) {
        std::process::exit(init::run());
    }
    let code = match args.next().as_deref() {
        Some("shim") => match args.next() {
            Some(dir) => start::run(&dir, &args.collect::<Vec<_>>()),
            None => usage(),
        },
        Some("hold") => match (args.next(), args.next()) {
            (Some(socket), Some(seconds)) => hold::run(&socket, &seconds, &args.collect::<Vec<_>>()),
            _ => usage(),
        },
        Some("probe-idmap") => args.next().map_or_else(usage, |dir| probe::idmap(&dir)),
        _ => usage(),
    };
    std::process::exit(code);
}

fn usage() -> i32 {
    eprintln!("usage: tiphys-shim shim DIR [CGROUP]... | hold SOCKET SECONDS [CGROUP]... | probe-idmap DIR");
    2
}
