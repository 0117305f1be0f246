//! What hub and agent say to each other, and its bytes.
//!
//! A frame on a stream is a `u32` little-endian length, then a body: the version byte
//! [`limits::FRAME_VERSION`], then one rkyv archive. A payload on a stream of its own is a `u32`
//! little-endian length, a header body of the same form, then the payload to the end of the stream.
//! Every archive from outside is validated before it is read.

#![allow(missing_docs, reason = "rkyv derives public types without documentation")]

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use rkyv::api::high::HighSerializer;
use rkyv::rancor::{Failure, Panic, ResultExt};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;

/// Agent → hub on the control stream, which the agent opens.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum AgentControl {
    /// The first frame of a session.
    Hello(Hello),
    /// Still alive; sent every [`Welcome::heartbeat_ms`], a fifth more or less.
    Heartbeat {
        /// Every attempt it holds, running or queued or finished and not yet sent: their leases are
        /// renewed, those of attempts it does not name run out. At most [`limits::BATCH_ITEMS_MAX`].
        holding: Vec<Held>,
    },
    /// Finish what is in flight, send nothing more: the agent is about to leave.
    Leaving,
    /// The GPUs that compute some of its shards; sent once, after the welcome, where there are any. At most
    /// [`limits::GPUS_MAX`].
    Devices(Vec<Gpu>),
}

/// A GPU that an agent offers.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// As its driver calls it.
    pub name: String,
    /// Its memory. *Units*: bytes.
    pub memory_bytes: u64,
    /// Major and minor compute capability.
    pub compute_capability: [u16; 2],
    /// The CUDA version that its driver speaks, as in `12.4`.
    pub driver: String,
}

/// An attempt an agent holds.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The job.
    pub job: [u8; 16],
    /// Shard index.
    pub index: u64,
    /// The attempt.
    pub epoch: u64,
}

/// Who an agent is and what it offers.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Hello {
    /// The secret of a single-use enrolment token; needed only until the hub knows the key.
    pub token: Option<[u8; 32]>,
    /// A name for people; not unique.
    pub name: String,
    /// Version of the agent program.
    pub version: String,
    /// How many shards it computes at once.
    pub slots: u16,
    /// Instruction set its kernels use: `plain`, `avx2`, `avx512`.
    pub isa: String,
    /// Processor architecture, as in `std::env::consts::ARCH`.
    pub arch: String,
    /// Memory it offers, or twice what files may take of its disk, whichever is more: half of this is what a job's files
    /// and matrices may take. *Units*: bytes.
    pub memory_bytes: u64,
    /// Workloads it has kernels for.
    pub kernels: Vec<String>,
    /// Where it is, as its owner says: a region's name, or empty where nothing was said.
    pub region: String,
}

/// Hub → agent on the control stream.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum HubControl {
    /// The hub has judged the agent's key: from here on it is trusted with work.
    Welcome(Welcome),
    /// The agent may not work here; the session ends.
    Refused {
        /// Why.
        reason: Refusal,
    },
    /// The hub is stopping: finish, then reconnect with backoff.
    Draining,
    /// Every hub that serves from this hub's store, this one included: where to go when this one is gone. Sent after the
    /// welcome, and again when it has changed; a hub that has its store to itself sends none. Replaces what was sent
    /// before.
    Hubs {
        /// Each as [`HubAddress`](crate::address::HubAddress). At most [`limits::HUBS_MAX`].
        addresses: Vec<String>,
    },
    /// Another hub has fewer agents: finish what is in flight, and then work for that one.
    Move {
        /// Its address, which was among those of [`HubControl::Hubs`].
        to: String,
    },
}

/// The terms of a session.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The id the hub knows the agent by.
    pub agent: [u8; 16],
    /// How often to send [`AgentControl::Heartbeat`]. *Units*: milliseconds.
    pub heartbeat_ms: u64,
    /// Most shards in flight.
    pub credit: u32,
    /// The lane that holds the session.
    pub lane: u16,
}

/// Why a hub turns an agent away.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The key is unknown and no token came with it.
    TokenMissing,
    /// No such token was issued.
    TokenUnknown,
    /// The token enrolled another agent already.
    TokenSpent,
    /// The hello breaks a limit: no slots, too many, names too long.
    HelloInvalid,
    /// The same agent already has a live session.
    AlreadyConnected,
    /// The hub could not read or write its store.
    StoreUnavailable,
    /// The hub is stopping.
    Draining,
    /// Others proved its answers wrong.
    Removed,
}

impl Refusal {
    /// Whether trying again later, unchanged, can succeed.
    pub fn is_passing(self) -> bool {
        matches!(self, Refusal::AlreadyConnected | Refusal::StoreUnavailable | Refusal::Draining)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TokenMissing => "the hub does not know this agent: enrol it once with --token; `tessera agent token` makes one",
            Refusal::TokenUnknown => "the hub did not issue this token: check it for typing errors, or make one with `tessera agent token`",
            Refusal::TokenSpent => "this token has already enrolled an agent: each works once; make another with `tessera agent token`",
            Refusal::HelloInvalid => "the hub refused what the agent says of itself: it needs the kernel monte_carlo, 1 to 2048 slots, names of at most 128 bytes and a --region of lower-case letters, digits and `-`, 32 at most",
            Refusal::AlreadyConnected => "an agent with this identity is connected already: give each agent a --data directory of its own",
            Refusal::StoreUnavailable => "the hub cannot reach its store now; the agent tries again by itself",
            Refusal::Draining => "the hub is stopping; the agent tries again by itself",
            Refusal::Removed => "other agents proved its answers wrong, more than once: look after this machine's memory and clock; the hub's operator can tell why from the audit log, and may enrol it anew in another --data directory",
        })
    }
}

/// Hub → agent on the work stream, which the hub opens.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum HubWork {
    /// A job whose shards follow.
    Job {
        /// The job.
        job: [u8; 16],
        /// Which kernel runs it.
        kernel: String,
        /// The kernel's task, or `None` when it travels on a stream of its own.
        task: Option<Vec<u8>>,
    },
    /// Shards to compute.
    Assign {
        /// Their job, announced before on this stream.
        job: [u8; 16],
        /// At most [`limits::BATCH_ITEMS_MAX`].
        items: Vec<Assignment>,
    },
    /// Forget a job: drop its task, stop its shards, send nothing more of it.
    Forget {
        /// The job.
        job: [u8; 16],
    },
    /// What is done with the samples of a job's shards assigned from here on, besides its task.
    Pass {
        /// The job, announced before on this stream.
        job: [u8; 16],
        /// The kernel's pass; empty for the one that every job starts with.
        pass: Vec<u8>,
    },
    /// The hub cannot send an input that the agent asked for.
    InputUnavailable {
        /// The job.
        job: [u8; 16],
        /// The input's position in its task.
        input: u32,
    },
}

/// One attempt at one shard.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Shard index in the job's plan.
    pub index: u64,
    /// Fences the attempt.
    pub epoch: u64,
    /// First sample.
    pub first: u64,
    /// Number of samples.
    pub count: u64,
}

/// Agent → hub on the work stream.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum AgentWork {
    /// Finished shards of one job; at most [`limits::BATCH_ITEMS_MAX`].
    Results {
        /// The job.
        job: [u8; 16],
        /// The partials.
        items: Vec<ShardResult>,
    },
    /// A shard the agent could not compute.
    Failed {
        /// The job.
        job: [u8; 16],
        /// Shard index.
        index: u64,
        /// The attempt.
        epoch: u64,
        /// Why.
        failure: ShardFailure,
    },
    /// Send a piece of an input of a job that was announced. It comes on a stream of its own; the next one
    /// is asked for when it has come.
    Fetch {
        /// The job.
        job: [u8; 16],
        /// The input's position in its task.
        input: u32,
        /// Where the piece starts; a multiple of [`limits::INPUT_PIECE_BYTES`], which is also its length unless
        /// the input ends before.
        offset: u64,
    },
}

/// Why an agent could not compute a shard.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardFailure {
    /// No such kernel on this agent.
    KernelUnknown,
    /// The task did not decode or broke a limit.
    TaskInvalid,
    /// The kernel stopped with an error: a sum left the finite numbers, the floating-point unit is
    /// in a mode that changes results.
    KernelFailed,
    /// The hub did not send an input, or sent other bytes, or they are not what the task says.
    InputUnusable,
}

/// The partial of one shard.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[rkyv(derive(Debug))]
pub struct ShardResult {
    /// Shard index.
    pub index: u64,
    /// The attempt.
    pub epoch: u64,
    /// Time in the kernel. *Units*: microseconds.
    pub kernel_us: u32,
    /// The partial.
    pub partial: Partial,
}

/// Where the partial of a finished shard is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[rkyv(derive(Debug))]
pub enum Partial {
    /// In the frame.
    Here(Vec<u8>),
    /// On a stream of its own, with this BLAKE3 digest. In a box: what is in the frame would be as long otherwise.
    Elsewhere(Box<[u8; 32]>),
}

/// What a payload on a stream of its own belongs to.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkHeader {
    /// Hub → agent: the task of a job.
    Task {
        /// The job.
        job: [u8; 16],
    },
    /// Agent → hub: the partial of a shard.
    Partial {
        /// The job.
        job: [u8; 16],
        /// Shard index.
        index: u64,
        /// The attempt.
        epoch: u64,
    },
    /// Hub → agent: a piece of an input.
    Input {
        /// The job.
        job: [u8; 16],
        /// The input's position in its task.
        input: u32,
        /// Where the piece starts.
        offset: u64,
    },
}

/// Why bytes are not a frame of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// No bytes at all.
    Empty,
    /// Another version than [`limits::FRAME_VERSION`].
    Version {
        /// The byte found.
        found: u8,
    },
    /// Not a valid archive of the expected message.
    Malformed,
    /// More items in one frame than [`limits::BATCH_ITEMS_MAX`].
    TooManyItems,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Empty => f.write_str("an empty frame"),
            FrameError::Version { found } => write!(
                f,
                "frame version {found}, this program speaks {}: update the older side",
                limits::FRAME_VERSION
            ),
            FrameError::Malformed => f.write_str("a frame that is not a valid archive of its message"),
            FrameError::TooManyItems => {
                write!(f, "a frame of more than {} items", limits::BATCH_ITEMS_MAX)
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// A message that travels as one frame.
pub trait Message: Sized {
    /// Appends the length-prefixed frame to `out`.
    fn frame(&self, out: &mut Vec<u8>);
    /// Reads a frame body (without its length prefix) from outside.
    fn read(body: &[u8]) -> Result<Self, FrameError>;
}

/// Archives a value of ours. Only allocation could fail, and that aborts.
pub(crate) fn archive<T>(value: &T) -> Vec<u8>
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Panic>>,
{
    rkyv::to_bytes::<Panic>(value).always_ok().into_vec()
}

fn archive_of(body: &[u8]) -> Result<&[u8], FrameError> {
    match body.split_first() {
        None => Err(FrameError::Empty),
        Some((&limits::FRAME_VERSION, archive)) => Ok(archive),
        Some((&found, _)) => Err(FrameError::Version { found }),
    }
}

macro_rules! message {
    ($name:ident, $items:expr) => {
        impl Message for $name {
            fn frame(&self, out: &mut Vec<u8>) {
                let start = out.len();
                out.extend_from_slice(&[0, 0, 0, 0, limits::FRAME_VERSION]);
                *out = rkyv::api::high::to_bytes_in::<_, Panic>(self, core::mem::take(out)).always_ok();
                let length = (out.len() - start - size_of::<u32>()) as u32;
                out[start..start + size_of::<u32>()].copy_from_slice(&length.to_le_bytes());
            }

            fn read(body: &[u8]) -> Result<Self, FrameError> {
                let message = rkyv::from_bytes::<Self, Failure>(archive_of(body)?)
                    .map_err(|_| FrameError::Malformed)?;
                let items: fn(&Self) -> usize = $items;
                if items(&message) > limits::BATCH_ITEMS_MAX {
                    Err(FrameError::TooManyItems)
                } else {
                    Ok(message)
                }
            }
        }
    };
}

message!(AgentControl, |message| match message {
    AgentControl::Heartbeat { holding } => holding.len(),
    AgentControl::Devices(gpus) => gpus.len(),
    AgentControl::Hello(_) | AgentControl::Leaving => 0,
});
message!(HubControl, |message| match message {
    HubControl::Hubs { addresses } => addresses.len(),
    HubControl::Welcome(_) | HubControl::Refused { .. } | HubControl::Draining | HubControl::Move { .. } => 0,
});
message!(BulkHeader, |_| 0);
message!(HubWork, |message| match message {
    HubWork::Assign { items, .. } => items.len(),
    HubWork::Job { .. }
    | HubWork::Forget { .. }
    | HubWork::Pass { .. }
    | HubWork::InputUnavailable { .. } => 0,
});
message!(AgentWork, |message| match message {
    AgentWork::Results { items, .. } => items.len(),
    AgentWork::Failed { .. } | AgentWork::Fetch { .. } => 0,
});

/// [`AgentWork`] as it lies in its frame.
#[derive(Clone, Debug)]
pub enum AgentWorkRef<'a> {
    /// [`AgentWork::Results`].
    Results {
        /// The job.
        job: [u8; 16],
        /// The partials.
        items: ShardResults<'a>,
    },
    /// [`AgentWork::Failed`].
    Failed {
        /// The job.
        job: [u8; 16],
        /// Shard index.
        index: u64,
        /// The attempt.
        epoch: u64,
        /// Why.
        failure: ShardFailure,
    },
    /// [`AgentWork::Fetch`].
    Fetch {
        /// The job.
        job: [u8; 16],
        /// The input's position in its task.
        input: u32,
        /// Where the piece starts.
        offset: u64,
    },
}

/// A [`ShardResult`] as it lies in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardResultRef<'a> {
    /// Shard index.
    pub index: u64,
    /// The attempt.
    pub epoch: u64,
    /// Time in the kernel. *Units*: microseconds.
    pub kernel_us: u32,
    /// The partial.
    pub partial: PartialRef<'a>,
}

/// A [`Partial`] as it lies in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialRef<'a> {
    /// [`Partial::Here`].
    Here(&'a [u8]),
    /// [`Partial::Elsewhere`].
    Elsewhere(&'a [u8; 32]),
}

/// The results of a frame, in its order.
#[derive(Clone, Debug)]
pub struct ShardResults<'a>(core::slice::Iter<'a, ArchivedShardResult>);

impl<'a> Iterator for ShardResults<'a> {
    type Item = ShardResultRef<'a>;

    fn next(&mut self) -> Option<ShardResultRef<'a>> {
        self.0.next().map(|item| ShardResultRef {
            index: item.index.to_native(),
            epoch: item.epoch.to_native(),
            kernel_us: item.kernel_us.to_native(),
            partial: match &item.partial {
                ArchivedPartial::Here(partial) => PartialRef::Here(partial),
                ArchivedPartial::Elsewhere(digest) => PartialRef::Elsewhere(digest),
            },
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for ShardResults<'_> {}

impl AgentWork {
    /// Reads what [`Message::read`] reads, and copies no partial.
    ///
    /// *Errors*: those of [`Message::read`].
    pub fn read_in_place(body: &[u8]) -> Result<AgentWorkRef<'_>, FrameError> {
        let work = rkyv::access::<ArchivedAgentWork, Failure>(archive_of(body)?);
        match work.map_err(|_| FrameError::Malformed)? {
            ArchivedAgentWork::Results { items, .. } if items.len() > limits::BATCH_ITEMS_MAX => {
                Err(FrameError::TooManyItems)
            }
            ArchivedAgentWork::Results { job, items } => {
                Ok(AgentWorkRef::Results { job: *job, items: ShardResults(items.iter()) })
            }
            ArchivedAgentWork::Failed { job, index, epoch, failure } => Ok(AgentWorkRef::Failed {
                job: *job,
                index: index.to_native(),
                epoch: epoch.to_native(),
                failure: rkyv::deserialize::<_, Panic>(failure).always_ok(),
            }),
            ArchivedAgentWork::Fetch { job, input, offset } => {
                Ok(AgentWorkRef::Fetch { job: *job, input: input.to_native(), offset: offset.to_native() })
            }
        }
    }
}

/// A payload on a stream of its own: the framed header, then the payload.
pub fn bulk(header: &BulkHeader, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 64);
    header.frame(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// Splits what came on a stream of its own into header and payload.
pub fn read_bulk(bytes: &[u8]) -> Result<(BulkHeader, &[u8]), FrameError> {
    let (length, rest) = bytes.split_first_chunk().ok_or(FrameError::Empty)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| FrameError::Malformed)?;
    let (header, payload) = rest.split_at_checked(length).ok_or(FrameError::Malformed)?;
    Ok((BulkHeader::read(header)?, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::write_hex;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    fn hello() -> AgentControl {
        AgentControl::Hello(Hello {
            token: Some([9; 32]),
            name: "a".to_string(),
            version: "0.1.0".to_string(),
            slots: 2,
            isa: "avx2".to_string(),
            arch: "x86_64".to_string(),
            memory_bytes: 1 << 30,
            kernels: vec!["monte_carlo".to_string()],
            region: "eu-north".to_string(),
        })
    }

    fn results() -> AgentWork {
        let item = |partial| ShardResult { index: 1, epoch: 2, kernel_us: 4, partial };
        let items = vec![item(Partial::Here(vec![5, 6])), item(Partial::Elsewhere(Box::new([3; 32])))];
        AgentWork::Results { job: [1; 16], items }
    }

    #[test]
    fn messages_read_back_and_no_cut_of_them_passes_for_them() {
        let mut frame = Vec::new();
        results().frame(&mut frame);
        let body = &frame[4..];
        assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize, body.len());
        assert_eq!(AgentWork::read(body), Ok(results()));
        for cut in 0..body.len() {
            // The length prefix guards against cuts; an archive that is one by chance says something else.
            assert_ne!(AgentWork::read(&body[..cut]), Ok(results()), "cut at {cut}");
        }
        let mut other = body.to_vec();
        other[0] = 1;
        assert_eq!(AgentWork::read(&other), Err(FrameError::Version { found: 1 }));
    }

    #[test]
    fn work_read_in_place_says_what_its_copy_says() {
        let (job, index, epoch) = ([1; 16], 2, 3);
        let item = ShardResult { index, epoch, kernel_us: 5, partial: Partial::Here(Vec::new()) };
        let works = [
            results(),
            AgentWork::Results { job, items: vec![item; limits::BATCH_ITEMS_MAX + 1] },
            AgentWork::Failed { job, index, epoch, failure: ShardFailure::KernelFailed },
            AgentWork::Fetch { job, input: 6, offset: 7 },
        ];
        for work in works {
            let mut frame = Vec::new();
            work.frame(&mut frame);
            let body = &frame[4..];
            assert_eq!(AgentWork::read_in_place(body).map(owned), AgentWork::read(body));
        }
        assert_eq!(AgentWork::read_in_place(&[]).map(owned), Err(FrameError::Empty));
        assert_eq!(AgentWork::read_in_place(&[1]).map(owned), Err(FrameError::Version { found: 1 }));
    }

    fn owned(work: AgentWorkRef<'_>) -> AgentWork {
        match work {
            AgentWorkRef::Results { job, items } => {
                let item = |item: ShardResultRef<'_>| ShardResult {
                    index: item.index,
                    epoch: item.epoch,
                    kernel_us: item.kernel_us,
                    partial: match item.partial {
                        PartialRef::Here(partial) => Partial::Here(partial.to_vec()),
                        PartialRef::Elsewhere(digest) => Partial::Elsewhere(Box::new(*digest)),
                    },
                };
                AgentWork::Results { job, items: items.map(item).collect() }
            }
            AgentWorkRef::Failed { job, index, epoch, failure } => {
                AgentWork::Failed { job, index, epoch, failure }
            }
            AgentWorkRef::Fetch { job, input, offset } => AgentWork::Fetch { job, input, offset },
        }
    }

    #[test]
    fn a_bulk_payload_keeps_its_header_and_its_bytes() {
        let header = BulkHeader::Partial { job: [1; 16], index: 2, epoch: 3 };
        let bytes = bulk(&header, &[7; 100]);
        assert_eq!(read_bulk(&bytes), Ok((header, &[7u8; 100][..])));
        assert!(read_bulk(&bytes[..10]).is_err());
    }

    #[test]
    fn more_items_than_a_frame_may_hold_are_refused() {
        let items = vec![Assignment { index: 0, epoch: 0, first: 0, count: 1 }; limits::BATCH_ITEMS_MAX + 1];
        let mut frame = Vec::new();
        HubWork::Assign { job: [0; 16], items }.frame(&mut frame);
        assert_eq!(HubWork::read(&frame[4..]), Err(FrameError::TooManyItems));
    }

    /// The bytes of version 3; a change here breaks agents in the field and needs a new version.
    #[test]
    fn the_wire_bytes_of_version_3_are_what_they_were() {
        struct Hex(Vec<u8>);
        impl fmt::Display for Hex {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }
        let mut text = alloc::string::String::new();
        let messages: [(&str, &dyn Fn(&mut Vec<u8>)); 9] = [
            ("hello", &|out| hello().frame(out)),
            ("heartbeat", &|out| {
                AgentControl::Heartbeat { holding: vec![Held { job: [1; 16], index: 2, epoch: 3 }] }
                    .frame(out)
            }),
            ("welcome", &|out| {
                HubControl::Welcome(Welcome { agent: [1; 16], heartbeat_ms: 10_000, credit: 4, lane: 1 })
                    .frame(out)
            }),
            ("draining", &|out| HubControl::Draining.frame(out)),
            ("hubs", &|out| {
                let addresses = vec!["a.example:7843".to_string(), "[::1]:7843".to_string()];
                HubControl::Hubs { addresses }.frame(out)
            }),
            ("move", &|out| HubControl::Move { to: "a.example:7843".to_string() }.frame(out)),
            ("assign", &|out| {
                HubWork::Assign {
                    job: [1; 16],
                    items: vec![Assignment { index: 1, epoch: 2, first: 3, count: 4 }],
                }
                .frame(out)
            }),
            ("results", &|out| results().frame(out)),
            ("bulk", &|out| out.extend(bulk(&BulkHeader::Task { job: [1; 16] }, &[0xff]))),
        ];
        for (name, write) in messages {
            let mut frame = Vec::new();
            write(&mut frame);
            text += &format!("{name} {}\n", Hex(frame));
        }
        assert_eq!(text, include_str!("../golden/wire-3.txt"), "\n{text}");
    }
}
