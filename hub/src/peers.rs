//! The hubs that serve from the same store, as this one last saw them.
//!
//! Owns a thread that looks into the store every second and says there how many agents this hub has, tells the lanes
//! where agents may go, sends some to a hub that has few, and shows the ended jobs of a hub that is gone. It may not
//! decide who leads or whose a job is: the store says so.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tessera_protocol::api::{HubList, HubView};
use tessera_protocol::id::HubId;
use tessera_protocol::limits::HUBS_MAX;
use tessera_protocol::unit::LaneIndex;
use tessera_storage::{Batch, Engine, Family, Key, Renewed, Snapshot};

use crate::ingress::Views;
use crate::ingress::backend::{Peer, Place};
use crate::ingress::keys::KeyHash;
use crate::lane::{Input, LaneCounters};
use crate::records::{self, HubAt, RecordError};
use crate::runtime::Mailboxes;

/// How often the store is looked into. A hub that is gone is found so within two leases.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long agents that were sent elsewhere have to get there, before more are.
const MOVE_EVERY: Duration = Duration::from_secs(15);
/// The same, where those that were sent do not get there, as when that hub's address is none for them: it doubles with
/// each time up to this.
const MOVE_EVERY_MAX: Duration = Duration::from_secs(16 * 60);
/// Difference in agents between two hubs that is none. *Source*: moving one agent between hubs that differ by one changes
/// nothing.
const AGENTS_APART_MIN: u64 = 2;
/// How long a hub that does not renew its lease is given work. *Source*: it renews every 3 s.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Keys that were looked for in vain and are remembered; one more is not looked for until some are forgotten.
const UNKNOWN_KEYS_MAX: usize = 1_024;
/// How long such a key is not looked for again: as long as somebody who has just made it may have to wait.
const UNKNOWN_FOR: Duration = Duration::from_secs(3);

/// Who the hubs are.
#[derive(Debug)]
pub struct Peers {
    me: HubId,
    /// Who counts the agents of this hub's lanes.
    counters: Vec<Arc<LaneCounters>>,
    seen: RwLock<Seen>,
    unknown_keys: Mutex<BTreeMap<KeyHash, Instant>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    hubs: BTreeMap<HubId, Hub>,
    leader: Option<HubId>,
}

#[derive(Clone, Debug)]
struct Hub {
    at: HubAt,
    /// How many agents it said that it has.
    agents: u64,
    /// How often it had renewed its lease.
    beat: u64,
    /// When that was first seen.
    since: Instant,
}

/// What a hub says of itself under `hub-at/`: where it is, and since it has looked, how many agents it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    #[serde(flatten)]
    at: HubAt,
    #[serde(default)]
    agents: u64,
}

/// Agents that another hub should have.
#[derive(Debug, PartialEq, Eq)]
struct Spare {
    agents: u64,
    /// Where it is.
    to: String,
    /// How many it has.
    had: u64,
}

/// The thread that looks. Ends when this is dropped.
#[derive(Debug)]
pub struct Lookout {
    ending: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.ending = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that looks for other hubs panicked");
        }
    }
}

impl Peers {
    /// Looks once, and from then on every second.
    pub fn start(
        me: HubId,
        store: Arc<dyn Engine>,
        views: Arc<Views>,
        lanes: Mailboxes<Input>,
        counters: Vec<Arc<LaneCounters>>,
    ) -> std::io::Result<(Arc<Peers>, Lookout)> {
        let peers = Arc::new(Peers::new(me, counters));
        let (ending, ended) = sync_channel(0);
        let watch = Watch {
            peers: peers.clone(),
            store,
            views,
            lanes,
            told: BTreeMap::new(),
            moves: Moves::from(Instant::now()),
        };
        let thread = std::thread::Builder::new().name("tessera-peers".into());
        let thread = thread.spawn(move || watch.run(&ended))?;
        Ok((peers, Lookout { ending: Some(ending), thread: Some(thread) }))
    }

    fn new(me: HubId, counters: Vec<Arc<LaneCounters>>) -> Peers {
        Peers { me, counters, seen: RwLock::default(), unknown_keys: Mutex::default() }
    }

    fn seen(&self) -> std::sync::RwLockReadGuard<'_, Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a hub is.
    pub fn place_of(&self, hub: HubId) -> Place {
        match self.seen().hubs.get(&hub) {
            _ if hub == self.me => Place::Here,
            Some(seen) => Place::At(Peer { id: hub, http: seen.at.http.clone() }),
            None => Place::Gone(Some(hub)),
        }
    }

    /// Agents that this hub has.
    fn agents(&self) -> u64 {
        self.counters.iter().map(|lane| lane.agents.load(Ordering::Relaxed)).sum()
    }

    /// Where a new job finds agents: here, if there are any or nobody has more.
    pub fn worker(&self) -> Place {
        if self.agents() > 0 {
            return Place::Here;
        }
        let seen = self.seen();
        let others = seen.hubs.iter().filter(|(id, hub)| **id != self.me && hub.since.elapsed() < SILENT_MAX);
        match others.max_by_key(|(_, hub)| hub.agents).filter(|(_, hub)| hub.agents > 0) {
            Some((id, hub)) => Place::At(Peer { id: *id, http: hub.at.http.clone() }),
            None => Place::Here,
        }
    }

    /// How many agents this hub has that another should have, and where that is. Hubs that all have too many share what
    /// one lacks.
    fn spare(&self, mine: u64) -> Option<Spare> {
        let seen = self.seen();
        let others = seen.hubs.iter().filter(|(id, hub)| **id != self.me && hub.since.elapsed() < SILENT_MAX);
        let others: Vec<&Hub> = others.map(|(_, hub)| hub).collect();
        let fewest = others.iter().min_by_key(|hub| hub.agents)?;
        let too_many = |agents: u64| agents >= fewest.agents + AGENTS_APART_MIN;
        if !too_many(mine) {
            return None;
        }
        let givers = 1 + others.iter().filter(|hub| too_many(hub.agents)).count() as u64;
        let agents = ((mine - fewest.agents) / 2).div_ceil(givers);
        Some(Spare { agents, to: fewest.at.quic.clone(), had: fewest.agents })
    }

    /// Where the one that leads is.
    pub fn leader(&self) -> Place {
        let leader = self.seen().leader;
        match leader.map(|hub| self.place_of(hub)) {
            // A hub that is gone has no job here: it is about who leads.
            None | Some(Place::Gone(_)) => Place::Gone(None),
            Some(place) => place,
        }
    }

    /// All but this one. *Order*: by id.
    pub fn others(&self) -> Vec<Peer> {
        let seen = self.seen();
        let others = seen.hubs.iter().filter(|(id, _)| **id != self.me);
        others.map(|(id, hub)| Peer { id: *id, http: hub.at.http.clone() }).collect()
    }

    /// All of them. *Order*: by id.
    pub fn list(&self) -> HubList {
        let seen = self.seen();
        let view = |(id, hub): (&HubId, &Hub)| HubView {
            id: *id,
            http: hub.at.http.clone(),
            quic: hub.at.quic.clone(),
            leader: seen.leader == Some(*id),
            here: *id == self.me,
            silent_ms: match *id == self.me {
                true => 0,
                false => u64::try_from(hub.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            },
        };
        HubList { hubs: seen.hubs.iter().map(view).collect() }
    }

    /// Where agents may go: this hub first, as it is the one that was asked. *Shape*: at most [`HUBS_MAX`].
    pub fn agent_addresses(&self) -> Vec<String> {
        let seen = self.seen();
        let mine = seen.hubs.get(&self.me);
        let others = seen.hubs.iter().filter(|(id, _)| **id != self.me).map(|(_, hub)| hub);
        mine.into_iter().chain(others).take(HUBS_MAX).map(|hub| hub.at.quic.clone()).collect()
    }

    /// Whether a key that this hub does not know is worth a look in the store. It is not when it was looked for just
    /// now, or when so many are that somebody tries keys at random.
    pub fn may_look_for(&self, key: KeyHash, now: Instant) -> bool {
        let mut unknown = self.unknown_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.len() >= UNKNOWN_KEYS_MAX || unknown.contains_key(&key) {
            unknown.retain(|_, since| now.duration_since(*since) < UNKNOWN_FOR);
        }
        let may = unknown.len() < UNKNOWN_KEYS_MAX && !unknown.contains_key(&key);
        if may {
            unknown.insert(key, now);
        }
        may
    }

    /// Takes in what the store says; the hubs that are gone since the last look.
    fn look(&self, store: &dyn Snapshot, now: Instant) -> Result<Vec<HubId>, RecordError> {
        let found = hubs(store)?;
        let leader = store.get(&Key::HubActive.encode())?;
        let leader = leader.and_then(|id| id.try_into().ok()).map(HubId);
        let before = self.seen().clone();
        let mut hubs = BTreeMap::new();
        for (id, Said { at, agents }) in found {
            let beat = store.get(&Key::Entry(id).encode())?;
            let beat = beat.and_then(|beat| beat.try_into().ok()).map_or(0, u64::from_be_bytes);
            let known = before.hubs.get(&id).filter(|known| known.beat == beat);
            hubs.insert(id, Hub { at, agents, beat, since: known.map_or(now, |known| known.since) });
        }
        let gone = before.hubs.into_keys().filter(|id| !hubs.contains_key(id)).collect();
        *self.seen.write().unwrap_or_else(PoisonError::into_inner) = Seen { hubs, leader };
        Ok(gone)
    }
}

/// The hubs that may write now. *Order*: by id.
fn hubs(store: &dyn Snapshot) -> Result<Vec<(HubId, Said)>, RecordError> {
    let mut hubs = Vec::new();
    for entry in store.range(&Family::HubAts.range(), usize::MAX)? {
        let Ok((Key::HubAt(hub), _)) = Key::decode(&entry.key) else { continue };
        if store.get(&Key::Fence(hub).encode())?.is_none() {
            continue;
        }
        let said = serde_json::from_slice(&entry.value);
        let malformed = |_| RecordError::Malformed { what: "address", of: hub.to_string() };
        hubs.push((hub, said.map_err(malformed)?));
    }
    Ok(hubs)
}

struct Watch {
    peers: Arc<Peers>,
    store: Arc<dyn Engine>,
    views: Arc<Views>,
    lanes: Mailboxes<Input>,
    /// What each lane's agents were last told.
    told: BTreeMap<LaneIndex, Arc<[String]>>,
    moves: Moves,
}

/// When agents may be sent elsewhere.
#[derive(Debug)]
struct Moves {
    next: Instant,
    pause: Duration,
    /// Where agents were last sent, and how many that hub had.
    last: Option<(String, u64)>,
}

impl Moves {
    fn from(now: Instant) -> Moves {
        Moves { next: now + MOVE_EVERY, pause: MOVE_EVERY, last: None }
    }

    /// Agents are sent to a hub that has so many.
    fn sent(&mut self, now: Instant, to: &str, had: u64) {
        let in_vain = self.last.as_ref().is_some_and(|(last, before)| last == to && had <= *before);
        self.pause = if in_vain { (self.pause * 2).min(MOVE_EVERY_MAX) } else { MOVE_EVERY };
        self.next = now + self.pause;
        self.last = Some((to.to_owned(), had));
    }
}

impl Watch {
    fn run(mut self, ended: &Receiver<()>) {
        loop {
            if let Err(error) = self.turn() {
                tracing::warn!(%error, "who the other hubs are cannot be read now");
            }
            match ended.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn turn(&mut self) -> Result<(), RecordError> {
        let gone = self.peers.look(&*self.store.snapshot()?, Instant::now())?;
        self.tell_lanes();
        self.say_agents();
        self.spare_agents();
        if !gone.is_empty() {
            tracing::info!(hubs = ?gone, "hubs are gone: what they have shown of ended jobs is shown here");
            show_ended(&Renewed::new(&*self.store), &self.views)?;
        }
        Ok(())
    }

    /// Says how many agents this hub has, when that has changed.
    fn say_agents(&self) {
        let (me, agents) = (self.peers.me, self.peers.agents());
        let known = self.peers.seen().hubs.get(&me).cloned();
        let Some(known) = known.filter(|known| known.agents != agents) else { return };
        let said = Said { at: known.at, agents };
        let mut batch = Batch::new();
        batch.expect_exists(Key::HubAt(me)).put(Key::HubAt(me), json(&said));
        // Who is fenced is told elsewhere; else it is said with the next look.
        if let Err(error) = self.store.commit(batch) {
            tracing::debug!(%error, "how many agents there are is not said now");
        }
    }

    /// Sends agents to a hub that has fewer, a few at a time: each takes a while to get there and be counted.
    fn spare_agents(&mut self) {
        let now = Instant::now();
        if now < self.moves.next {
            return;
        }
        let Some(Spare { mut agents, to, had }) = self.peers.spare(self.peers.agents()) else { return };
        self.moves.sent(now, &to, had);
        tracing::info!(agents, to, "agents go to a hub that has fewer");
        let to: Arc<str> = to.into();
        for lane in (0..self.lanes.lanes()).map(LaneIndex) {
            let here = self.peers.counters[lane.as_usize()].agents.load(Ordering::Relaxed).min(agents);
            let spare = Input::Spare { agents: here as usize, to: to.clone() };
            if here > 0 && self.lanes.try_push(lane, spare).is_ok() {
                agents -= here;
            }
        }
    }

    /// A lane whose mailbox is full is told with the next look.
    fn tell_lanes(&mut self) {
        let mut addresses = self.peers.agent_addresses();
        // In one order, whichever hub tells it, so that what is the same is no news to an agent that moves.
        addresses.sort_unstable();
        let addresses: Arc<[String]> = addresses.into();
        for lane in (0..self.lanes.lanes()).map(LaneIndex) {
            if self.told.get(&lane) != Some(&addresses)
                && self.lanes.try_push(lane, Input::Hubs(addresses.clone())).is_ok()
            {
                self.told.insert(lane, addresses.clone());
            }
        }
    }
}

fn json(said: &Said) -> Vec<u8> {
    // Its keys are strings, so it always is JSON.
    serde_json::to_vec(said).expect("stored types are JSON")
}

/// Shows the jobs that ended at other hubs, newest last, so that the oldest are dropped first.
fn show_ended(store: &dyn Snapshot, views: &Views) -> Result<(), RecordError> {
    let mut damaged = None;
    store.walk(&Family::Jobs.range(), &mut |entry| {
        let Ok((Key::Job(id), _)) = Key::decode(&entry.key) else { return };
        match records::decode_job(id, &entry.value) {
            Ok(stored) if !stored.view.state.is_open() => views.publish_job(stored.view),
            Ok(_) => {}
            Err(error) => damaged = Some(error),
        }
    })?;
    damaged.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_storage::{Commit, Memory};

    const ME: HubId = HubId([1; 16]);
    const OTHER: HubId = HubId([2; 16]);

    fn at(name: &str) -> HubAt {
        HubAt { http: format!("{name}:7840"), quic: format!("{name}:7843") }
    }

    fn write(store: &Memory, batch: Batch) {
        assert_eq!(store.commit(batch).unwrap(), Commit::Done);
    }

    fn join(store: &Memory, hub: HubId, name: &str) {
        let mut batch = Batch::new();
        batch.put(Key::HubAt(hub), at(name).bytes()).put(Key::Fence(hub), []);
        beat(store, hub, 0, batch);
    }

    fn beat(store: &Memory, hub: HubId, beat: u64, mut batch: Batch) {
        batch.put(Key::Entry(hub), beat.to_be_bytes());
        write(store, batch);
    }

    #[test]
    fn a_hub_sees_who_joins_who_leads_who_is_silent_and_who_is_gone() {
        let (store, peers, start) = (Memory::default(), Peers::new(ME, Vec::new()), Instant::now());
        let look = |now| peers.look(&*store.snapshot().unwrap(), now).unwrap();
        join(&store, ME, "a");
        look(start);
        assert_eq!((peers.others(), peers.leader()), (Vec::new(), Place::Gone(None)));
        join(&store, OTHER, "b");
        let mut lead = Batch::new();
        lead.put(Key::HubActive, OTHER.0);
        write(&store, lead);
        look(start);
        let other = Peer { id: OTHER, http: "b:7840".to_owned() };
        assert_eq!(peers.others(), std::slice::from_ref(&other));
        assert_eq!((peers.leader(), peers.place_of(OTHER)), (Place::At(other.clone()), Place::At(other)));
        assert_eq!(peers.place_of(ME), Place::Here);
        assert_eq!(peers.agent_addresses(), ["a:7843", "b:7843"]);
        let shown: Vec<_> = peers.list().hubs.into_iter().map(|hub| (hub.id, hub.leader, hub.here)).collect();
        assert_eq!(shown, [(ME, false, true), (OTHER, true, false)]);

        let later = start + LOOK_EVERY;
        look(later);
        assert_eq!(peers.seen().hubs[&OTHER].since, start, "it has not renewed its lease");
        beat(&store, OTHER, 1, Batch::new());
        look(later);
        assert_eq!(peers.seen().hubs[&OTHER].since, later);

        let mut fence_down = Batch::new();
        fence_down.delete(Key::Fence(OTHER));
        write(&store, fence_down);
        assert_eq!(look(later), [OTHER]);
        assert_eq!(peers.place_of(OTHER), Place::Gone(Some(OTHER)));
        assert_eq!(peers.leader(), Place::Gone(None), "nobody leads until another has taken over");
    }

    /// A hub with so many agents, and others with so many.
    fn with_agents(mine: u64, others: &[u64]) -> Peers {
        let counters = Arc::new(LaneCounters::default());
        counters.agents.store(mine, Ordering::Relaxed);
        let peers = Peers::new(ME, vec![counters]);
        let store = Memory::default();
        join(&store, ME, "me");
        for (number, agents) in (2_u8..).zip(others) {
            let said = Said { at: at(&format!("h{number}")), agents: *agents };
            let mut batch = Batch::new();
            batch.put(Key::HubAt(HubId([number; 16])), json(&said)).put(Key::Fence(HubId([number; 16])), []);
            write(&store, batch);
        }
        peers.look(&*store.snapshot().unwrap(), Instant::now()).unwrap();
        peers
    }

    #[test]
    fn a_job_goes_where_agents_are_when_there_are_none_here() {
        assert_eq!(with_agents(1, &[9]).worker(), Place::Here);
        assert_eq!(with_agents(0, &[0, 0]).worker(), Place::Here);
        let most = Peer { id: HubId([3; 16]), http: "h3:7840".to_owned() };
        assert_eq!(with_agents(0, &[1, 4, 0]).worker(), Place::At(most));
    }

    #[test]
    fn agents_go_to_the_hub_that_has_fewest_until_all_have_about_as_many() {
        let spare = |mine, others: &[u64]| {
            let spare = with_agents(mine, others).spare(mine);
            spare.map(|Spare { agents, to, .. }| (agents, to))
        };
        assert_eq!(spare(2, &[0]), Some((1, "h2:7843".to_owned())));
        assert_eq!((spare(1, &[0]), spare(3, &[2]), spare(9, &[])), (None, None, None));
        assert_eq!(spare(10, &[10, 0]), Some((3, "h3:7843".to_owned())), "two hubs share what one lacks");

        // Whatever the start, a few rounds leave hardly a difference.
        let mut hubs = [40_u64, 3, 0, 17];
        for _ in 0..8 {
            let orders: Vec<_> = (0..hubs.len())
                .map(|me| {
                    let others: Vec<u64> = (0..hubs.len()).filter(|i| *i != me).map(|i| hubs[i]).collect();
                    spare(hubs[me], &others)
                })
                .collect();
            let fewest = (0..hubs.len()).min_by_key(|i| hubs[*i]).unwrap();
            for (me, order) in orders.into_iter().enumerate() {
                let agents = order.map_or(0, |(agents, _)| agents);
                hubs[me] -= agents;
                hubs[fewest] += agents;
            }
        }
        assert!(hubs.iter().max().unwrap() - hubs.iter().min().unwrap() <= AGENTS_APART_MIN, "{hubs:?}");
        assert_eq!(hubs.iter().sum::<u64>(), 60);
    }

    #[test]
    fn a_hub_that_agents_do_not_reach_is_sent_some_ever_more_rarely() {
        let mut now = Instant::now();
        let mut moves = Moves::from(now);
        let mut pauses = Vec::new();
        for had in [0, 0, 0, 1, 1] {
            now = moves.next;
            moves.sent(now, "h2:7843", had);
            pauses.push((moves.next - now).as_secs());
        }
        assert_eq!(pauses, [15, 30, 60, 15, 30]);
        (0..20).for_each(|_| moves.sent(now, "h2:7843", 0));
        assert_eq!(moves.pause, MOVE_EVERY_MAX);
    }

    #[test]
    fn a_stranger_who_tries_keys_makes_the_hub_look_so_often_and_no_oftener() {
        let (peers, now) = (Peers::new(ME, Vec::new()), Instant::now());
        let key = |number: u32| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&number.to_be_bytes());
            KeyHash(hash)
        };
        assert!(peers.may_look_for(key(0), now));
        assert!(!peers.may_look_for(key(0), now), "it was looked for just now");
        let looked = (1..10_000).filter(|number| peers.may_look_for(key(*number), now)).count();
        assert_eq!(looked, UNKNOWN_KEYS_MAX - 1);
        assert!(peers.may_look_for(key(0), now + UNKNOWN_FOR));
    }
}
