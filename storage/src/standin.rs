//! A stand-in for a cluster: an engine in another process of this machine, behind a Unix socket, so that many real hubs
//! can be tested on one store without FoundationDB. Only with the feature `standin`, which no release has.
//!
//! Owns the few messages between the two. Everything is judged by the engine that is served. A connection asks for one
//! snapshot, which lives as long as the connection, or for one commit. It is no cluster: nothing here tries again, and
//! who loses the server in the middle of a commit is not told what became of it.

use std::io::{self, Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::{Batch, Condition, Expect, Write, check_key};
use crate::engine::{Commit, CommitError, Engine, Entry, KeyRange, ReadError, Snapshot};

/// What a message may weigh. *Units*: bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// Serves an engine to whoever connects, until the listener fails.
pub fn serve(listener: &UnixListener, engine: &Arc<dyn Engine>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        let engine = engine.clone();
        // An error is the end of whoever asked.
        std::thread::spawn(move || drop(answer(stream, &*engine)));
    }
}

fn answer(mut stream: UnixStream, engine: &dyn Engine) -> io::Result<()> {
    let asked = receive(&mut stream)?;
    match asked.split_first() {
        Some((b'C', batches)) => {
            let outcomes = engine.commit_all(Message(batches).batches()?);
            let mut said = Vec::new();
            outcomes.iter().for_each(|outcome| put_outcome(&mut said, outcome));
            send(&mut stream, &said)
        }
        Some((b'S', _)) => {
            let snapshot = engine.snapshot().map_err(io::Error::other)?;
            send(&mut stream, &[])?;
            loop {
                let asked = receive(&mut stream)?;
                send(&mut stream, &read(&*snapshot, &asked)?)?;
            }
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read(snapshot: &dyn Snapshot, asked: &[u8]) -> io::Result<Vec<u8>> {
    let (tag, rest) = asked.split_first().ok_or(io::ErrorKind::InvalidData)?;
    let (mut said, mut rest) = (Vec::new(), Message(rest));
    match tag {
        b'G' => put_found(&mut said, snapshot.get(&rest.bytes()?).map_err(io::Error::other)?.as_deref()),
        _ => {
            let (start, end, limit) = (rest.bytes()?, rest.bytes()?, rest.number()?);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let entries = snapshot.range(&KeyRange::new(start, end), limit).map_err(io::Error::other)?;
            for Entry { key, value } in entries {
                put(&mut said, &key);
                put(&mut said, &value);
            }
        }
    }
    Ok(said)
}

/// The engine behind a socket.
#[derive(Clone, Debug)]
pub struct StandIn {
    socket: PathBuf,
}

impl StandIn {
    /// The one behind this socket, whether somebody serves it or not.
    pub fn new(socket: &Path) -> StandIn {
        StandIn { socket: socket.to_owned() }
    }

    fn ask(&self, asked: &[u8]) -> io::Result<(UnixStream, Vec<u8>)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        send(&mut stream, asked)?;
        let said = receive(&mut stream)?;
        Ok((stream, said))
    }
}

impl Engine for StandIn {
    fn name(&self) -> &'static str {
        "stand-in"
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, ReadError> {
        let (stream, _) = self.ask(b"S").map_err(|_| ReadError::Interrupted)?;
        Ok(Box::new(Reading(Mutex::new(stream))))
    }

    fn commit_all(&self, batches: Vec<Batch>) -> Vec<Result<Commit, CommitError>> {
        let mut asked = vec![b'C'];
        let checks: Vec<_> = batches.iter().map(Batch::check).collect();
        for (batch, _) in batches.iter().zip(&checks).filter(|(_, check)| check.is_ok()) {
            put_batch(&mut asked, batch);
        }
        let said = self.ask(&asked).map(|(_, said)| said).unwrap_or_default();
        let mut said = Message(&said);
        let outcome = |check: Result<(), _>| {
            check?;
            said.outcome().unwrap_or(Err(CommitError::Interrupted))
        };
        checks.into_iter().map(outcome).collect()
    }
}

struct Reading(Mutex<UnixStream>);

impl Reading {
    fn ask(&self, asked: &[u8]) -> Result<Vec<u8>, ReadError> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = send(&mut stream, asked).and_then(|()| receive(&mut stream));
        said.map_err(|_| ReadError::Interrupted)
    }
}

impl Snapshot for Reading {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        check_key(key)?;
        let mut asked = vec![b'G'];
        put(&mut asked, key);
        Message(&self.ask(&asked)?).found().map_err(|_| ReadError::Interrupted)
    }

    fn range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        range.check()?;
        let mut asked = vec![b'R'];
        put(&mut asked, &range.start);
        put(&mut asked, &range.end);
        asked.extend((limit as u64).to_be_bytes());
        let said = self.ask(&asked)?;
        let (mut rest, mut entries) = (Message(&said), Vec::new());
        while !rest.0.is_empty() {
            let entry = rest.bytes().and_then(|key| Ok(Entry { key, value: rest.bytes()? }));
            entries.push(entry.map_err(|_| ReadError::Interrupted)?);
        }
        Ok(entries)
    }
}

// --- messages ---------------------------------------------------------------------------------------

fn send(stream: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    stream.write_all(&(message.len() as u64).to_be_bytes())?;
    stream.write_all(message)
}

fn receive(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn put(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend((bytes.len() as u64).to_be_bytes());
    message.extend(bytes);
}

fn put_found(message: &mut Vec<u8>, found: Option<&[u8]>) {
    message.push(u8::from(found.is_some()));
    put(message, found.unwrap_or_default());
}

fn put_batch(message: &mut Vec<u8>, batch: &Batch) {
    message.extend((batch.conditions().len() as u64).to_be_bytes());
    for Condition { key, expect } in batch.conditions() {
        put(message, key);
        match expect {
            Expect::Absent => message.push(b'a'),
            Expect::Exists => message.push(b'e'),
            Expect::Equals(value) => {
                message.push(b'=');
                put(message, value);
            }
        }
    }
    message.extend((batch.writes().len() as u64).to_be_bytes());
    for write in batch.writes() {
        let (tag, first, second) = match write {
            Write::Put { key, value } => (b'p', key, value.clone()),
            Write::Delete { key } => (b'd', key, Vec::new()),
            Write::DeleteRange { range } => (b'r', &range.start, range.end.clone()),
            Write::Add { key, amount } => (b'+', key, amount.to_be_bytes().to_vec()),
        };
        message.push(tag);
        put(message, first);
        put(message, &second);
    }
}

fn put_outcome(message: &mut Vec<u8>, outcome: &Result<Commit, CommitError>) {
    match outcome {
        Ok(Commit::Done) => message.push(b'd'),
        Ok(Commit::Conflict { key, found }) => {
            message.push(b'c');
            put(message, key);
            put_found(message, found.as_deref());
        }
        Err(_) => message.push(b'e'),
    }
}

/// What is left of a message to read.
struct Message<'a>(&'a [u8]);

impl Message<'_> {
    fn byte(&mut self) -> io::Result<u8> {
        let (first, rest) = self.0.split_first().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> io::Result<u64> {
        let (number, rest) = self.0.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*number))
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    fn found(&mut self) -> io::Result<Option<Vec<u8>>> {
        let (is_there, bytes) = (self.byte()? == 1, self.bytes()?);
        Ok(is_there.then_some(bytes))
    }

    fn outcome(&mut self) -> io::Result<Result<Commit, CommitError>> {
        Ok(match self.byte()? {
            b'd' => Ok(Commit::Done),
            b'c' => Ok(Commit::Conflict { key: self.bytes()?, found: self.found()? }),
            _ => Err(CommitError::Interrupted),
        })
    }

    fn batches(&mut self) -> io::Result<Vec<Batch>> {
        let mut batches = Vec::new();
        while !self.0.is_empty() {
            batches.push(self.batch()?);
        }
        Ok(batches)
    }

    fn batch(&mut self) -> io::Result<Batch> {
        let mut batch = Batch::new();
        for _ in 0..self.number()? {
            let key = self.bytes()?;
            let expect = match self.byte()? {
                b'a' => Expect::Absent,
                b'e' => Expect::Exists,
                _ => Expect::Equals(self.bytes()?),
            };
            batch.expect(key, expect);
        }
        for _ in 0..self.number()? {
            let (tag, first, second) = (self.byte()?, self.bytes()?, self.bytes()?);
            match tag {
                b'p' => batch.put(first, second),
                b'd' => batch.delete(first),
                b'r' => batch.delete_range(KeyRange::new(first, second)),
                _ => batch.add(first, Message(&second).number()?),
            };
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, conformance};
    use std::cell::Cell;

    #[test]
    fn it_passes_the_suite_of_all_engines() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Cell::new(0);
        conformance::run(&|| {
            opened.set(opened.get() + 1);
            let socket = folder.path().join(format!("store-{}", opened.get()));
            let listener = UnixListener::bind(&socket).unwrap();
            let engine: Arc<dyn Engine> = Arc::new(Memory::default());
            std::thread::spawn(move || serve(&listener, &engine));
            Box::new(StandIn::new(&socket))
        });
    }
}
