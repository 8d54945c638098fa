//! Thrift's binary protocol, as far as a Hive metastore is asked in it.
//!
//! ```text
//!   call   80 01 00 01 · name · number · arguments        a struct: (kind · id · value)… 00
//!   reply  80 01 00 02 · name · number · result           field 0 is the answer, others are exceptions
//! ```
//!
//! Values are what they are called by number, without generated types: what a server says of a table beside what is known
//! here goes back to it as it came.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use crate::{Error, ErrorKind, Result};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that wait for the next call.
const IDLE_MAX: usize = 8;
/// Bytes that one text may have.
const TEXT_MAX: usize = 256 << 20;
/// Values within values.
const DEPTH_MAX: usize = 64;
/// The first bytes of a message in the only version there is, without its kind.
const VERSION: u32 = 0x8001_0000;

/// A struct: its fields by their numbers.
pub(super) type Fields = BTreeMap<i16, Value>;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Byte(i8),
    Double(f64),
    Short(i16),
    Int(i32),
    Long(i64),
    Text(Vec<u8>),
    Struct(Fields),
    /// The kind of its elements, which an empty one has too, and whether it is a set.
    List(u8, Vec<Value>, bool),
    /// The kinds of keys and values.
    Map(u8, u8, Vec<(Value, Value)>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    pub(super) fn list(all: Vec<Fields>) -> Self {
        Self::List(12, all.into_iter().map(Self::Struct).collect(), false)
    }

    /// A map of texts.
    pub(super) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter().map(|(key, value)| (Self::text(key), Self::text(value)));
        Self::Map(11, 11, pairs.collect())
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn as_fields(&self) -> Option<&Fields> {
        match self {
            Self::Struct(fields) => Some(fields),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> &[Self] {
        match self {
            Self::List(_, all, _) => all,
            _ => &[],
        }
    }

    /// A map of texts.
    pub(super) fn as_pairs(&self) -> BTreeMap<String, String> {
        let Self::Map(_, _, pairs) = self else { return BTreeMap::new() };
        let pair = |(key, value): &(Self, Self)| {
            Some((key.as_text()?.to_owned(), value.as_text()?.to_owned()))
        };
        pairs.iter().filter_map(pair).collect()
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Bool(_) => 2,
            Self::Byte(_) => 3,
            Self::Double(_) => 4,
            Self::Short(_) => 6,
            Self::Int(_) => 8,
            Self::Long(_) => 10,
            Self::Text(_) => 11,
            Self::Struct(_) => 12,
            Self::Map(..) => 13,
            Self::List(_, _, true) => 14,
            Self::List(_, _, false) => 15,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(it) => out.push(u8::from(*it)),
            Self::Byte(it) => out.extend(it.to_be_bytes()),
            Self::Double(it) => out.extend(it.to_be_bytes()),
            Self::Short(it) => out.extend(it.to_be_bytes()),
            Self::Int(it) => out.extend(it.to_be_bytes()),
            Self::Long(it) => out.extend(it.to_be_bytes()),
            Self::Text(it) => put_bytes(it, out),
            Self::Struct(fields) => put_fields(fields, out),
            Self::List(kind, all, _) => {
                out.push(*kind);
                put_length(all.len(), out);
                all.iter().for_each(|it| it.put(out));
            }
            Self::Map(key, value, pairs) => {
                out.extend([*key, *value]);
                put_length(pairs.len(), out);
                for (key, value) in pairs {
                    key.put(out);
                    value.put(out);
                }
            }
        }
    }
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend(i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_fields(fields: &Fields, out: &mut Vec<u8>) {
    for (id, value) in fields {
        out.push(value.kind());
        out.extend(id.to_be_bytes());
        value.put(out);
    }
    out.push(0);
}

/// Reads values from what comes.
struct Incoming<'a>(&'a mut BufStream<TcpStream>);

fn damaged(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

impl Incoming<'_> {
    async fn length(&mut self) -> std::io::Result<usize> {
        usize::try_from(self.0.read_i32().await?).map_err(|_| damaged("a length below zero"))
    }

    async fn bytes(&mut self) -> std::io::Result<Vec<u8>> {
        let length = self.length().await?;
        if length > TEXT_MAX {
            return Err(damaged("a text that is too long"));
        }
        let mut bytes = Vec::new();
        // Bytes that do not come take no memory.
        let read = (&mut *self.0).take(length as u64).read_to_end(&mut bytes).await?;
        match read == length {
            true => Ok(bytes),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn fields(&mut self, depth: usize) -> std::io::Result<Fields> {
        let mut fields = Fields::new();
        loop {
            let kind = self.0.read_u8().await?;
            if kind == 0 {
                return Ok(fields);
            }
            let id = self.0.read_i16().await?;
            fields.insert(id, Box::pin(self.value(kind, depth + 1)).await?);
        }
    }

    async fn value(&mut self, kind: u8, depth: usize) -> std::io::Result<Value> {
        if depth > DEPTH_MAX {
            return Err(damaged("values too deep in one another"));
        }
        Ok(match kind {
            2 => Value::Bool(self.0.read_u8().await? != 0),
            3 => Value::Byte(self.0.read_i8().await?),
            4 => Value::Double(self.0.read_f64().await?),
            6 => Value::Short(self.0.read_i16().await?),
            8 => Value::Int(self.0.read_i32().await?),
            10 => Value::Long(self.0.read_i64().await?),
            11 => Value::Text(self.bytes().await?),
            12 => Value::Struct(self.fields(depth).await?),
            13 => {
                let (key, value) = (self.0.read_u8().await?, self.0.read_u8().await?);
                let mut pairs = Vec::new();
                for _ in 0..self.length().await? {
                    let one = Box::pin(self.value(key, depth + 1)).await?;
                    pairs.push((one, Box::pin(self.value(value, depth + 1)).await?));
                }
                Value::Map(key, value, pairs)
            }
            14 | 15 => {
                let of = self.0.read_u8().await?;
                let mut all = Vec::new();
                for _ in 0..self.length().await? {
                    all.push(Box::pin(self.value(of, depth + 1)).await?);
                }
                Value::List(of, all, kind == 14)
            }
            _ => return Err(damaged("a value of no known kind")),
        })
    }
}

/// How a call ended, if not with its answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// With an exception, which is in this field of the result.
    Thrown(i16, Fields),
    /// Whether it was heard is not known.
    Unheard(Error),
}

/// A server that speaks it.
pub(super) struct Server {
    /// `HOST:PORT`.
    address: String,
    idle: Mutex<Vec<BufStream<TcpStream>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Thrift at {}", self.address)
    }
}

impl Server {
    pub(super) fn new(address: String) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// Calls `name`; gives field 0 of its result, if it has one.
    pub(super) async fn call(
        &self,
        name: &str,
        arguments: Fields,
    ) -> std::result::Result<Option<Value>, Refused> {
        let unheard = |what: &dyn std::fmt::Display| {
            let message = format!("the server at {} does not answer: {what}", self.address);
            Refused::Unheard(Error::new(ErrorKind::Unexpected, message).with_retryable(true))
        };
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // One that waited may have been closed: then nothing was heard of the call.
        let mut stream = match idle.filter(is_open) {
            Some(stream) => stream,
            None => self.connect().await.map_err(Refused::Unheard)?,
        };
        let talk = async {
            let mut out = Vec::new();
            out.extend((VERSION | 1).to_be_bytes());
            put_bytes(name.as_bytes(), &mut out);
            out.extend(0_i32.to_be_bytes());
            put_fields(&arguments, &mut out);
            stream.write_all(&out).await?;
            stream.flush().await?;
            let mut incoming = Incoming(&mut stream);
            let version = incoming.0.read_u32().await?;
            if version & 0xffff_0000 != VERSION {
                return Err(damaged("it does not speak Thrift's binary protocol"));
            }
            incoming.bytes().await?;
            incoming.0.read_i32().await?;
            Ok((version & 0xff, incoming.fields(0).await?))
        };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, talk).await;
        let (kind, mut fields) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(unheard(&error)),
            Err(_) => return Err(unheard(&"it takes too long")),
        };
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(stream);
            }
        }
        if kind != 2 {
            // An exception of the protocol: the server does not know the call, or broke off.
            return Err(Refused::Thrown(-1, fields));
        }
        match fields.remove(&0) {
            Some(value) => Ok(Some(value)),
            None => match fields.pop_first() {
                None => Ok(None),
                Some((id, Value::Struct(thrown))) => Err(Refused::Thrown(id, thrown)),
                Some((id, _)) => Err(Refused::Thrown(id, Fields::new())),
            },
        }
    }

    async fn connect(&self) -> Result<BufStream<TcpStream>> {
        let failed = |what: &dyn std::fmt::Display| {
            let message = format!("cannot reach the server at {}: {what}", self.address);
            Error::new(ErrorKind::Unexpected, message)
                .with_retryable(true)
                .with_context("hint", "see that it runs, and that the address is its own")
        };
        let connecting = TcpStream::connect(&self.address);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                Ok(BufStream::new(stream))
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"it takes too long")),
        }
    }
}

/// Whether the other side has not closed a connection on which nothing is to come.
fn is_open(stream: &BufStream<TcpStream>) -> bool {
    let mut byte = [0];
    let read = stream.get_ref().try_read(&mut byte);
    read.is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that answers one call with these bytes, whatever it is asked.
    async fn answering(answer: Vec<u8>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        });
        Server::new(address)
    }

    fn reply(kind: u32, fields: &Fields) -> Vec<u8> {
        let mut out = (VERSION | kind).to_be_bytes().to_vec();
        put_bytes(b"call", &mut out);
        out.extend([0; 4]);
        put_fields(fields, &mut out);
        out
    }

    #[tokio::test]
    async fn values_come_back_as_they_went() {
        let inner = Fields::from([
            (1, Value::Bool(true)),
            (2, Value::Long(-7)),
            (3, Value::pairs([("a", "b"), ("c", "d")])),
            (4, Value::List(8, vec![Value::Int(1), Value::Int(2)], false)),
            (5, Value::List(11, Vec::new(), true)),
            (6, Value::Double(0.5)),
        ]);
        let answer = Fields::from([(0, Value::Struct(inner.clone()))]);
        let server = answering(reply(2, &answer)).await;
        let found = server.call("call", Fields::new()).await.unwrap();
        assert_eq!(found, Some(Value::Struct(inner)));
    }

    #[tokio::test]
    async fn exceptions_are_told_by_their_field() {
        let thrown = Fields::from([(1, Value::text("why"))]);
        let server = answering(reply(2, &Fields::from([(2, Value::Struct(thrown.clone()))]))).await;
        let found = server.call("call", Fields::new()).await;
        assert!(matches!(found, Err(Refused::Thrown(2, it)) if it == thrown));
    }

    #[tokio::test]
    async fn nonsense_is_no_answer() {
        let mut long = (VERSION | 2).to_be_bytes().to_vec();
        long.extend(i32::MAX.to_be_bytes());
        for answer in [b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), long, Vec::new()] {
            let found = answering(answer).await.call("call", Fields::new()).await;
            assert!(matches!(found, Err(Refused::Unheard(_))), "{found:?}");
        }
    }
}
