//! A bad network between agents and a hub: one thread that carries each datagram late, or not at all.
//!
//! Owns a pair of sockets for each of the fleet's: agents send to the one and hear from it, the hub hears from the other.
//! What is lost follows from the seed, the way and the number of the datagram, whenever it comes. Knows no QUIC.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tessera_kernels::philox::Schedule;

use super::{SOCKET_BYTES, computed_ns};

/// The longest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Datagrams taken from one socket before the next has its turn.
const PER_TURN: usize = 128;
/// Datagrams on their way; further ones are lost, as they are where a router's queue is full.
const ON_THE_WAY_MAX: usize = 1 << 18;
/// How soon the thread sees that it is to end.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// What a network does to datagrams, each way.
#[derive(Args, Clone, Copy, Debug, PartialEq)]
pub(crate) struct Impairment {
    /// Datagrams lost, each way
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub(crate) loss: f64,
    /// How long each datagram travels, each way
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = delay)]
    pub(crate) delay_ms: f64,
    /// How much longer some travel, each way: up to so much, so that they overtake each other
    #[arg(long, value_name = "MS", default_value_t = 0.0, value_parser = delay)]
    pub(crate) jitter_ms: f64,
    /// Another seed loses other datagrams
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) network_seed: u32,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..100.0).contains(&percent) { Ok(percent) } else { Err("not from 0 to below 100".to_owned()) }
}

fn delay(text: &str) -> Result<f64, String> {
    let ms: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=10_000.0).contains(&ms) { Ok(ms) } else { Err("not from 0 to 10000".to_owned()) }
}

impl Impairment {
    /// Whether datagrams come as they were sent.
    pub(crate) fn is_none(&self) -> bool {
        self.loss <= 0.0 && self.delay_ms <= 0.0 && self.jitter_ms <= 0.0
    }

    /// What becomes of a datagram: how late it is, or nothing where it is lost.
    fn of(&self, schedule: &Schedule, way: u32, number: u64) -> Option<Duration> {
        let [lost, late] =
            schedule.block(number, 0, way).map(|bits| (bits >> 11) as f64 / (1u64 << 53) as f64);
        (lost >= self.loss / 100.0)
            .then(|| Duration::from_secs_f64((self.delay_ms + late * self.jitter_ms) / 1e3))
    }
}

/// What went through a network.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Datagrams that it took.
    taken: AtomicU64,
    /// Of them lost, as was asked for.
    lost: AtomicU64,
    /// Lost since too many were on their way, or the system had no room.
    overflowed: AtomicU64,
    /// Time of its thread on a core. *Units*: nanoseconds.
    computed_ns: AtomicU64,
}

impl Carried {
    /// Taken, lost, overflowed and time on a core so far.
    pub(crate) fn so_far(&self) -> [u64; 4] {
        [&self.taken, &self.lost, &self.overflowed, &self.computed_ns]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

/// The thread. It ends with this.
pub(super) struct Network {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub(super) carried: Arc<Carried>,
}

impl Network {
    /// Starts a network with so many ways to the hub; answers where each begins.
    pub(super) fn start(
        impairment: Impairment,
        hub: SocketAddr,
        ways: usize,
        cores: Vec<usize>,
    ) -> io::Result<(Network, Vec<SocketAddr>)> {
        let ways = (0..ways).map(|_| Way::open(hub)).collect::<io::Result<Vec<_>>>()?;
        let begin = ways.iter().map(|way| way.agents.local_addr()).collect::<io::Result<Vec<_>>>()?;
        let (stop, carried) = (Arc::<AtomicBool>::default(), Arc::<Carried>::default());
        let (end, seen) = (stop.clone(), carried.clone());
        let thread = std::thread::Builder::new().name("network".into()).spawn(move || {
            crate::machine::pin(&cores);
            let mut carrier = Carrier::new(impairment, ways, seen);
            while !end.load(Ordering::Relaxed) {
                carrier.turn();
            }
        })?;
        Ok((Network { stop, thread: Some(thread), carried }, begin))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

/// Two sockets: agents know the one, the hub the other.
struct Way {
    agents: UdpSocket,
    hub: UdpSocket,
    /// Where the agents' datagrams come from.
    from: Option<SocketAddr>,
    /// Datagrams that came so far, to the hub and from it.
    count: [u64; 2],
}

impl Way {
    fn open(hub: SocketAddr) -> io::Result<Way> {
        let local: SocketAddr = match hub {
            SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, 0).into(),
        };
        let open = || {
            let socket = UdpSocket::bind(local)?;
            socket.set_nonblocking(true)?;
            let options = socket2::SockRef::from(&socket);
            // The system grants what it grants.
            let _ = options.set_recv_buffer_size(SOCKET_BYTES);
            let _ = options.set_send_buffer_size(SOCKET_BYTES);
            Ok::<_, io::Error>(socket)
        };
        let way = Way { agents: open()?, hub: open()?, from: None, count: [0; 2] };
        way.hub.connect(hub)?;
        Ok(way)
    }

    /// False where the system had no room for it.
    fn send(&self, to_hub: bool, bytes: &[u8]) -> bool {
        let sent = match (to_hub, self.from) {
            (true, _) => self.hub.send(bytes),
            (false, Some(agents)) => self.agents.send_to(bytes, agents),
            (false, None) => return true,
        };
        // A hub that is away hears nothing, as on any network.
        sent.is_ok() || sent.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
    }
}

/// A datagram that arrives at a time. *Order*: by that, then as they came.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Travelling {
    due: Instant,
    serial: u64,
    way: usize,
    to_hub: bool,
    bytes: Vec<u8>,
}

struct Carrier {
    impairment: Impairment,
    schedule: Schedule,
    ways: Vec<Way>,
    travelling: BinaryHeap<Reverse<Travelling>>,
    serial: u64,
    room: Vec<u8>,
    carried: Arc<Carried>,
    began_ns: u64,
}

impl Carrier {
    fn new(impairment: Impairment, ways: Vec<Way>, carried: Arc<Carried>) -> Carrier {
        Carrier {
            impairment,
            schedule: Schedule::new([impairment.network_seed, 0]),
            ways,
            travelling: BinaryHeap::new(),
            serial: 0,
            room: vec![0; DATAGRAM_BYTES_MAX],
            carried,
            began_ns: computed_ns(),
        }
    }

    /// Sleeps until a datagram comes or arrives, then takes and gives what there is.
    fn turn(&mut self) {
        let due = self.travelling.peek().map(|Reverse(next)| next.due);
        let wait = due.map_or(SLEEP_MAX, |due| due.saturating_duration_since(Instant::now())).min(SLEEP_MAX);
        let sockets = self.ways.iter().flat_map(|way| [&way.agents, &way.hub]);
        let mut waiting: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        // An interrupted wait is a short one.
        let _ = poll(&mut waiting, Some(&Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 }));
        let ready: Vec<bool> = waiting.iter().map(|socket| !socket.revents().is_empty()).collect();
        for (at, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            self.take(at / 2, at % 2 == 0);
        }
        let now = Instant::now();
        while self.travelling.peek().is_some_and(|Reverse(next)| next.due <= now) {
            let Some(Reverse(next)) = self.travelling.pop() else { break };
            if !self.ways[next.way].send(next.to_hub, &next.bytes) {
                self.carried.overflowed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.carried.computed_ns.store(computed_ns() - self.began_ns, Ordering::Relaxed);
    }

    fn take(&mut self, at: usize, to_hub: bool) {
        let now = Instant::now();
        for _ in 0..PER_TURN {
            let way = &mut self.ways[at];
            let taken = match to_hub {
                true => way.agents.recv_from(&mut self.room).map(|(length, from)| {
                    way.from = Some(from);
                    length
                }),
                false => way.hub.recv(&mut self.room),
            };
            let length = match taken {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // What a hub that is away answers, or an interruption.
                Err(_) => continue,
            };
            let number = way.count[usize::from(to_hub)];
            way.count[usize::from(to_hub)] += 1;
            self.carried.taken.fetch_add(1, Ordering::Relaxed);
            match self.impairment.of(&self.schedule, 2 * at as u32 + u32::from(to_hub), number) {
                None => drop(self.carried.lost.fetch_add(1, Ordering::Relaxed)),
                Some(_) if self.travelling.len() >= ON_THE_WAY_MAX => {
                    self.carried.overflowed.fetch_add(1, Ordering::Relaxed);
                }
                Some(late) => {
                    self.serial += 1;
                    let bytes = self.room[..length].to_vec();
                    let (due, serial) = (now + late, self.serial);
                    self.travelling.push(Reverse(Travelling { due, serial, way: at, to_hub, bytes }));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Impairment = Impairment { loss: 0.0, delay_ms: 0.0, jitter_ms: 0.0, network_seed: 1 };

    #[test]
    fn as_many_are_lost_and_late_as_was_asked_for_and_a_seed_says_which() {
        let bad = Impairment { loss: 10.0, delay_ms: 5.0, jitter_ms: 2.0, ..NONE };
        let fates = |seed| -> Vec<_> {
            let schedule = Schedule::new([seed, 0]);
            (0..20_000).map(|number| bad.of(&schedule, 3, number)).collect()
        };
        let first = fates(1);
        assert!(first == fates(1) && first != fates(2));
        let lost = first.iter().filter(|fate| fate.is_none()).count();
        assert!((1_800..2_200).contains(&lost), "{lost} of 20000");
        let bounds = Duration::from_millis(5)..Duration::from_millis(7);
        assert!(first.iter().flatten().all(|late| bounds.contains(late)));
        assert!(NONE.is_none() && !bad.is_none());
    }

    #[test]
    fn what_is_not_lost_goes_both_ways() {
        let hub = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let bad = Impairment { loss: 50.0, delay_ms: 1.0, ..NONE };
        let (network, begin) =
            Network::start(bad, hub.local_addr().unwrap(), 1, crate::machine::cores().to_vec()).unwrap();
        let agent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut room, mut sent, mut heard) = ([0; 16], 0u8, 0);
        for socket in [&hub, &agent] {
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        }
        while heard < 8 {
            agent.send_to(&[sent], begin[0]).unwrap();
            sent += 1;
            let Ok((_, from)) = hub.recv_from(&mut room) else { continue };
            hub.send_to(&room[..1], from).unwrap();
            heard += u32::from(agent.recv_from(&mut room).is_ok());
        }
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        assert!(of(&network.carried.lost) > 0, "{:?}", network.carried);
        assert!(of(&network.carried.taken) >= of(&network.carried.lost) + 16);
    }
}
