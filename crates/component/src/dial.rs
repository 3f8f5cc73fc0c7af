//! What Go's `net` package says of addresses and of connections that fail: users and tests know its words.

use std::io;

/// `host:port`, with brackets around an IPv6 address.
pub fn join_host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The error of a failed connection to an address, as `net.OpError` prints it:
/// `dial tcp 10.0.0.1:443: connect: connection refused`. What is no error of a socket is a proxy's, and says it all.
pub fn failed(network: &str, address: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        _ => format!("dial {network} {address}: {}", words(error)),
    }
}

/// As [`failed`], to a host's TCP port.
pub fn tcp_failed(host: &str, port: u16, error: &io::Error) -> String {
    failed("tcp", &join_host_port(host, port), error)
}

fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none() {
        return "i/o timeout".to_owned();
    }
    let text = error.to_string();
    match error.raw_os_error() {
        Some(_) => {
            format!("connect: {}", text.split(" (os error").next().unwrap_or_default().to_lowercase())
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn errors_are_in_gos_words() {
        let refused = TcpStream::connect("127.0.0.1:1").unwrap_err();
        assert_eq!(tcp_failed("::1", 1, &refused), "dial tcp [::1]:1: connect: connection refused");
        let late = io::ErrorKind::TimedOut.into();
        assert_eq!(tcp_failed("127.0.0.1", 1, &late), "dial tcp 127.0.0.1:1: i/o timeout");
        let absent = io::Error::from(rustix::io::Errno::NOENT);
        assert_eq!(failed("unix", "/s", &absent), "dial unix /s: connect: no such file or directory");
        let other = io::Error::other("proxy error");
        assert_eq!(tcp_failed("a", 1, &other), "proxy error");
    }
}
