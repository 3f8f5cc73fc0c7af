//! A connection to a message bus: calls, and the signals that were asked for. Written here because what is needed of D-Bus
//! is a page, and every crate for it brings dozens more, with a code generator.

pub mod wire;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;
use wire::{ERROR, Field, METHOD_RETURN, Message, SIGNAL, Value};

const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";
/// Where the system's bus is when the environment does not say.
const SYSTEM_BUS: &str = "unix:path=/var/run/dbus/system_bus_socket";
/// Logind sends one at a time.
const MAX_FDS: usize = 8;

/// Connected, and known to the bus by a name.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    serial: u32,
    /// Signals and calls that came while an answer was waited for.
    waiting: VecDeque<Message>,
}

/// What a call was answered with.
#[derive(Debug, Default)]
pub struct Answer {
    pub body: Vec<Value>,
    pub descriptors: Vec<OwnedFd>,
}

/// Where the system's bus is: `DBUS_SYSTEM_BUS_ADDRESS`, or the usual place.
pub fn system_bus_address() -> String {
    std::env::var("DBUS_SYSTEM_BUS_ADDRESS").ok().filter(|told| !told.is_empty()).unwrap_or(SYSTEM_BUS.into())
}

/// `%2f` and the like.
fn unescape(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = (*first == b'%').then(|| std::str::from_utf8(tail.get(..2)?).ok()).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Connects to the first of several addresses that answers.
async fn open(addresses: &str) -> io::Result<UnixStream> {
    let mut last =
        io::Error::new(io::ErrorKind::InvalidInput, format!("no address in {addresses:?} is known"));
    for address in addresses.split(';').filter_map(|one| one.strip_prefix("unix:")) {
        for (key, value) in address.split(',').filter_map(|pair| pair.split_once('=')) {
            let connected = match key {
                "path" => UnixStream::connect(PathBuf::from(unescape(value))).await,
                "abstract" => std::os::unix::net::SocketAddr::from_abstract_name(unescape(value))
                    .and_then(|address| std::os::unix::net::UnixStream::connect_addr(&address))
                    .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
                    .and_then(UnixStream::from_std),
                _ => continue,
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

impl Connection {
    /// Connects, says who it is, and gets a name.
    pub async fn open(addresses: &str) -> io::Result<Self> {
        let mut stream = open(addresses).await?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).await?;
        for (wanted, next) in [("OK ", "NEGOTIATE_UNIX_FD\r\n"), ("AGREE_UNIX_FD", "BEGIN\r\n")] {
            let line = line(&mut stream).await?;
            if !line.starts_with(wanted) {
                return Err(io::Error::other(format!("the bus said {line:?} for {wanted:?}")));
            }
            stream.write_all(next.as_bytes()).await?;
        }
        let mut connection = Connection {
            stream,
            bytes: Vec::new(),
            descriptors: VecDeque::new(),
            serial: 0,
            waiting: VecDeque::new(),
        };
        connection.call(BUS, BUS_PATH, BUS, "Hello", vec![]).await?;
        Ok(connection)
    }

    /// Asks the bus for signals that fit a rule.
    pub async fn add_match(&mut self, rule: &str) -> io::Result<()> {
        self.call(BUS, BUS_PATH, BUS, "AddMatch", vec![rule.into()]).await.map(drop)
    }

    /// Calls a method and waits for its answer; an error is told as the other side tells it.
    pub async fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> io::Result<Answer> {
        let serial = self.send(Message::call(destination, path, interface, member, body)).await?;
        loop {
            let (message, descriptors) = self.receive().await?;
            let answers = message.number(Field::ReplySerial) == serial;
            match message.kind {
                METHOD_RETURN if answers => return Ok(Answer { body: message.body, descriptors }),
                ERROR if answers => {
                    let (name, why) =
                        (message.text(Field::ErrorName), message.body.first().map_or("", Value::text));
                    return Err(io::Error::other(if why.is_empty() {
                        name.to_owned()
                    } else {
                        why.to_owned()
                    }));
                }
                _ => self.waiting.push_back(message),
            }
        }
    }

    /// Sends a message under a serial of its own.
    pub async fn send(&mut self, mut message: Message) -> io::Result<u32> {
        self.serial += 1;
        message.serial = self.serial;
        self.stream.write_all(&message.encode()).await?;
        Ok(self.serial)
    }

    /// The next signal.
    pub async fn signal(&mut self) -> io::Result<Message> {
        loop {
            let message = match self.waiting.pop_front() {
                Some(message) => message,
                None => self.receive().await?.0,
            };
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    /// The next message, whatever it is, and its descriptors.
    pub async fn receive(&mut self) -> io::Result<(Message, Vec<OwnedFd>)> {
        loop {
            let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
            if let Some(message) = Message::decode(&mut self.bytes).map_err(invalid)? {
                let count = message.number(Field::UnixFds) as usize;
                let descriptors = self.descriptors.drain(..count.min(self.descriptors.len())).collect();
                return Ok((message, descriptors));
            }
            self.stream.readable().await?;
            let mut buffer = [0; 4096];
            let stream = &self.stream;
            let received = stream.try_io(Interest::READABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut into = [IoSliceMut::new(&mut buffer)];
                let message = recvmsg(stream.as_fd(), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                let mut descriptors = Vec::new();
                for part in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = part {
                        descriptors.extend(rights);
                    }
                }
                Ok((message.bytes, descriptors))
            });
            match received {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((count, descriptors)) => {
                    self.bytes.extend(&buffer[..count]);
                    self.descriptors.extend(descriptors);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What goes over it, for those who send descriptors.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// One line of the talk before messages.
async fn line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await?);
        if line.len() > 512 {
            return Err(io::Error::other("the bus says too much"));
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_the_bus_is() {
        let none = Connection::open("tcp:host=x").await.unwrap_err().to_string();
        assert!(none.contains("no address"), "{none}");
        let dir = tempfile::tempdir().unwrap();
        let absent = format!("unix:path={}/a%62c,guid=1", dir.path().display());
        assert_eq!(Connection::open(&absent).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(unescape("/a%2fb%zz%"), "/a/b%zz%");
    }
}
