//! Sockets that are held while nobody serves: what was asked meanwhile is there for the successor.

use shim::held::{Held, Place, end};
use shim::spawn::Program;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Another socket has the address.
fn is_taken(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_err()
}

#[test]
fn root_sockets_outlive_their_server() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place { socket: dir.path().join("held.sock"), patience: 60, cgroups: Vec::new() };
    let program = Program::new(runtime::SHIM).unwrap();
    assert!(Held::take(&place, "a").is_none());
    let first = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap();
    let held = Held::keep(&program, &place, "a", &[first.as_fd()]).unwrap();
    drop((held, first));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(address).unwrap();
    client.send(b"anybody?").unwrap();
    let (held, fds) = Held::take(&place, "a").unwrap();
    let [fd] = <[OwnedFd; 1]>::try_from(fds).unwrap();
    let second = UdpSocket::from(fd);
    let mut buffer = [0; 16];
    let (length, from) = second.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"anybody?");
    second.send_to(b"late", from).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    drop((held, second));
    // Who listens elsewhere has no use for it.
    assert!(is_taken(address) && Held::take(&place, "b").is_none());
    assert!(!place.socket.exists());
    // A process that another test forks has all sockets until it becomes a program.
    let late = Instant::now() + Duration::from_secs(10);
    while is_taken(address) {
        assert!(Instant::now() < late, "somebody holds {address}");
    }

    // Nobody comes back: it does not wait for ever.
    let third = UdpSocket::bind(address).unwrap();
    let short = Place { patience: 1, ..place.clone() };
    drop(Held::keep(&program, &short, "a", &[third.as_fd()]).unwrap());
    drop(third);
    let begun = std::time::Instant::now();
    while is_taken(address) {
        assert!(begun.elapsed() < Duration::from_secs(20), "still held");
        std::thread::yield_now();
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "it waited a while");
    let third = UdpSocket::bind(address).unwrap();
    drop(Held::keep(&program, &place, "a", &[third.as_fd()]).unwrap());
    drop(third);
    end(&place.socket);
    assert!(!is_taken(address));
}
