//! D-Bus messages as bytes: the basic types and variants of them, which is all that logind and systemd say to us. The
//! specification is the Freedesktop one, protocol version 1.

use std::collections::HashMap;

/// No message of logind is larger; the protocol's own limit is 128 MiB.
const MAX_MESSAGE: usize = 1 << 20;

pub const METHOD_CALL: u8 = 1;
pub const METHOD_RETURN: u8 = 2;
pub const ERROR: u8 = 3;
pub const SIGNAL: u8 = 4;

/// A header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    Path = 1,
    Interface = 2,
    Member = 3,
    ErrorName = 4,
    ReplySerial = 5,
    Destination = 6,
    Sender = 7,
    Signature = 8,
    UnixFds = 9,
}

const FIELDS: [Field; 9] = [
    Field::Path,
    Field::Interface,
    Field::Member,
    Field::ErrorName,
    Field::ReplySerial,
    Field::Destination,
    Field::Sender,
    Field::Signature,
    Field::UnixFds,
];

/// A value of a basic type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I32(i32),
    U32(u32),
    U64(u64),
    Text(String),
    ObjectPath(String),
    Signature(String),
    /// Which of the message's descriptors.
    Descriptor(u32),
    Variant(Box<Value>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Byte(_) => "y",
            Value::Bool(_) => "b",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::U64(_) => "t",
            Value::Text(_) => "s",
            Value::ObjectPath(_) => "o",
            Value::Signature(_) => "g",
            Value::Descriptor(_) => "h",
            Value::Variant(_) => "v",
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Value::Text(text) | Value::ObjectPath(text) | Value::Signature(text) => text,
            _ => "",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub serial: u32,
    pub fields: HashMap<Field, Value>,
    pub body: Vec<Value>,
}

impl Message {
    /// A call of a method.
    pub fn call(destination: &str, path: &str, interface: &str, member: &str, body: Vec<Value>) -> Self {
        let fields = HashMap::from([
            (Field::Path, Value::ObjectPath(path.into())),
            (Field::Interface, interface.into()),
            (Field::Member, member.into()),
            (Field::Destination, destination.into()),
        ]);
        Message { kind: METHOD_CALL, serial: 0, fields, body }
    }

    /// A header field that is text.
    pub fn text(&self, field: Field) -> &str {
        self.fields.get(&field).map_or("", Value::text)
    }

    pub fn number(&self, field: Field) -> u32 {
        match self.fields.get(&field) {
            Some(Value::U32(number)) => *number,
            _ => 0,
        }
    }

    /// The bytes, in the byte order of most machines.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.value(value));
        let mut out = Writer(vec![b'l', self.kind, 0, 1]);
        out.u32(body.0.len() as u32);
        out.u32(self.serial);
        let signature: String = self.body.iter().map(Value::signature).collect();
        let mut fields = self.fields.clone();
        if !signature.is_empty() {
            fields.insert(Field::Signature, Value::Signature(signature));
        }
        // The length of the array, known once it is written.
        out.u32(0);
        for field in FIELDS.iter().filter(|field| fields.contains_key(field)) {
            out.align(8);
            out.0.push(*field as u8);
            out.value(&Value::Variant(Box::new(fields[field].clone())));
        }
        let length = (out.0.len() - 16) as u32;
        out.0[12..16].copy_from_slice(&length.to_le_bytes());
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// Takes a whole message off the front of what has come in; `None` while it is not all there.
    pub fn decode(bytes: &mut Vec<u8>) -> Result<Option<Message>, String> {
        if bytes.len() < 16 {
            return Ok(None);
        }
        let big = match bytes[0] {
            b'l' => false,
            b'B' => true,
            other => return Err(format!("byte order {other:#x} is none")),
        };
        let mut reader = Reader { bytes, at: 4, big };
        let (body, serial, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
        let start = (16 + fields).next_multiple_of(8);
        let length = start.saturating_add(body);
        if length > MAX_MESSAGE {
            return Err(format!("a message of {length} bytes"));
        }
        if bytes.len() < length {
            return Ok(None);
        }
        let whole: Vec<u8> = bytes.drain(..length).collect();
        let mut message = Message { kind: whole[1], serial, ..Default::default() };
        let mut reader = Reader { bytes: &whole[..16 + fields], at: 16, big };
        while reader.at < 16 + fields {
            reader.align(8)?;
            let code = reader.byte()?;
            let value = reader.variant(0)?;
            if let Some(field) = FIELDS.iter().find(|field| **field as u8 == code) {
                message.fields.insert(*field, value);
            }
        }
        let mut reader = Reader { bytes: &whole, at: start, big };
        for kind in message.text(Field::Signature).to_owned().bytes() {
            message.body.push(reader.value(kind, 0)?);
        }
        Ok(Some(message))
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn short(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(truth) => self.u32(u32::from(*truth)),
            Value::I32(number) => self.u32(number.cast_unsigned()),
            Value::U32(number) | Value::Descriptor(number) => self.u32(*number),
            Value::U64(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::Text(text) | Value::ObjectPath(text) => {
                self.u32(text.len() as u32);
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Signature(text) => self.short(text),
            Value::Variant(inner) => {
                self.short(inner.signature());
                self.value(inner);
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let taken = end.map(|end| &self.bytes[self.at..end]).ok_or("a message ends too early")?;
        self.at += count;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), String> {
        let skipped = self.at.next_multiple_of(to) - self.at;
        self.take(skipped).map(drop)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.align(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().map_err(|_| "a number that is none")?;
        if self.big {
            bytes.reverse();
        }
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.number()?))
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|error| error.to_string())?;
        self.take(1)?;
        Ok(text)
    }

    fn variant(&mut self, depth: u8) -> Result<Value, String> {
        let length = self.byte()?;
        let signature = self.text(usize::from(length))?;
        match signature.as_bytes() {
            [kind] => self.value(*kind, depth + 1),
            _ => Err(format!("a value of type {signature:?} is not read")),
        }
    }

    fn value(&mut self, kind: u8, depth: u8) -> Result<Value, String> {
        Ok(match kind {
            b'y' => Value::Byte(self.byte()?),
            b'b' => Value::Bool(self.u32()? != 0),
            b'i' => Value::I32(self.u32()?.cast_signed()),
            b'u' => Value::U32(self.u32()?),
            b't' => Value::U64(u64::from_le_bytes(self.number()?)),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if kind == b's' { Value::Text(text) } else { Value::ObjectPath(text) }
            }
            b'g' => {
                let length = self.byte()?;
                Value::Signature(self.text(usize::from(length))?)
            }
            b'h' => Value::Descriptor(self.u32()?),
            b'v' if depth < 8 => Value::Variant(Box::new(self.variant(depth)?)),
            other => return Err(format!("a value of type {:?} is not read", char::from(other))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let body = vec![
            Value::Byte(7),
            Value::from("shutdown"),
            Value::I32(-1),
            Value::U64(1 << 40),
            Value::Bool(true),
            Value::Variant(Box::new(Value::U64(9))),
            Value::Descriptor(0),
            Value::ObjectPath("/a".into()),
        ];
        let mut message = Message::call("a.b", "/o", "a.b.C", "M", body);
        message.serial = 5;
        let bytes = message.encode();
        let mut twice = [bytes.clone(), bytes.clone()].concat();
        for _ in 0..2 {
            let mut read = Message::decode(&mut twice).unwrap().unwrap();
            assert_eq!(read.fields.remove(&Field::Signature), Some(Value::Signature("ysitbvho".into())));
            assert_eq!(read, message);
        }
        assert!(twice.is_empty());
        // Whatever is cut off or changed, it is no panic.
        for end in 0..bytes.len() {
            assert_eq!(Message::decode(&mut bytes[..end].to_vec()), Ok(None));
            for value in [0, 1, 0x7f, 0xff] {
                let mut strange = bytes.clone();
                strange[end] = value;
                let _ = Message::decode(&mut strange);
            }
        }
        assert!(Message::decode(&mut vec![b'l'; 32]).is_err());
    }
}
