//! A store with everything in it is clean, and each kind of damage is found where it is.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::accounts;
use crate::audit::{Auditor, Told};
use crate::backend::{token_deed, unix_ms};
use crate::blobs::{Blobs, Name, Place};
use crate::inputs::{self, Stored, piece_batch, whole_batch};
use crate::output;
use crate::quic::Identity;
use crate::records::{self, HubAt, Owner, deed_of};
use crate::retention::{self, Policy};
use tessera_hub_core::fleet::Fleet;
use tessera_hub_core::home::{Home, Judge};
use tessera_hub_core::record::Kept;
use tessera_hub_core::standing::StandingRecord;
use tessera_hub_core::verifier::Verifier;
use tessera_hub_core::{Bill, NewJob, Outcome, Payment, Record};
use tessera_planners::Plan;
use tessera_protocol::api::{JobState, JobView, Standing};
use tessera_protocol::audit::Act;
use tessera_protocol::credits::ProviderName;
use tessera_protocol::id::{AgentId, Digest, HubId, JobId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::receipt::Service;
use tessera_protocol::spec::JobSpec;
use tessera_protocol::tally::Tally;
use tessera_protocol::unit::{LaneIndex, ShardIndex, Tick, UnixMillis};
use tessera_protocol::wire::Hello;
use tessera_storage::chunked::chunk_key;
use tessera_storage::{Batch, Commit, Engine, Memory, of_provider, pay_pages_of};

const AGENT_KEY: [u8; 32] = [3; 32];

/// A store and what lies in it.
struct Whole {
    engine: Memory,
    /// A Monte Carlo job that is done.
    done: JobId,
    /// One that is open.
    open: JobId,
    /// A matrix job that is done.
    matrix: JobId,
    input: Digest,
    blobs: Blobs,
    agent: AgentId,
    provider: ProviderName,
}

fn write(engine: &Memory, batch: Batch) {
    assert_eq!(engine.commit(batch).unwrap(), Commit::Done);
}

fn new_job(number: u8, text: &str, key: Option<&str>) -> Arc<NewJob> {
    let manifest = JobSpec::from_json(text.as_bytes()).unwrap().check().unwrap();
    let plan = Plan::new(&manifest, 0).unwrap();
    let (id, created) = (JobId::new(u64::from(number), [number; 10]), UnixMillis(5));
    let idempotency_key = key.map(str::to_owned);
    Arc::new(NewJob { id, manifest, plan, created, base: None, idempotency_key })
}

fn monte_carlo(number: u8, key: Option<&str>) -> Arc<NewJob> {
    let params = r#"{"model":"pi","paths":6000,"shard_size":100}"#;
    let text = format!(r#"{{"name":"n","workload":"monte_carlo","seed":{number},"params":{params}}}"#);
    new_job(number, &text, key)
}

/// 3 × 3 tiles of 3 panels.
fn product(number: u8) -> Arc<NewJob> {
    let matrix = r#"{"random":"uniform","rows":40,"cols":40}"#;
    let text = format!(
        r#"{{"name":"p","workload":"gemm","params":{{"dtype":"f64","a":{matrix},"b":{matrix},"tile":[16,16],"k_panel":16}}}}"#
    );
    new_job(number, &text, None)
}

fn view_of(job: &Arc<NewJob>) -> JobView {
    let (verifier, fleet) = (Verifier::new([0; 32]), Fleet::new(1));
    let (lane, now, unix_origin) = (LaneIndex(0), Tick(0), UnixMillis(0));
    let judge = Judge { verifier: &verifier, fleet: &fleet, lane, now, unix_origin };
    Home::open(job.clone(), None, Tick(0), UnixMillis(0)).view(&judge)
}

impl Whole {
    fn new() -> Whole {
        let engine = Memory::default();
        format::claim(&engine).unwrap();
        let provider: ProviderName = "acme".parse().unwrap();
        let agent = AgentId::of_key(&AGENT_KEY);
        let bytes = [1, 2, 3].repeat(1_000);
        let (done, open, matrix) = (monte_carlo(1, Some("once")), monte_carlo(2, None), product(3));
        let whole = Whole {
            engine,
            done: done.id,
            open: open.id,
            matrix: matrix.id,
            input: Digest::of(&bytes),
            blobs: Blobs::open(&Place::Memory).unwrap(),
            agent,
            provider,
        };
        whole.enrol();
        let length = bytes.len() as u64;
        whole.put(0, bytes);
        write(&whole.engine, whole_batch(whole.input, length, UnixMillis(unix_ms())));
        whole.act(&Record::JobAccepted { view: Box::new(view_of(&open)), job: open });
        whole.finish(&done, Some(*b"{\"it\":1}"), Kept::Tally(Arc::new(Tally::default())));
        whole.multiply(&matrix);
        let snapshot = whole.engine.snapshot().unwrap();
        let settlement = accounts::next_settlement(&*snapshot, UnixMillis(unix_ms())).unwrap();
        assert_eq!(settlement.statements.len(), 1);
        write(&whole.engine, records::settlement_batch(&settlement));
        whole
    }

    /// What a record writes, with its entries in the audit log.
    fn act(&self, record: &Record) {
        let deed = deed_of(record);
        self.commit(deed.batch, &deed.acts);
    }

    fn commit(&self, mut batch: Batch, acts: &[Act]) {
        let snapshot = self.engine.snapshot().unwrap();
        let pkcs8 = snapshot.get(&Key::HubIdentity.encode()).unwrap().unwrap();
        let identity = Identity::from_pkcs8(&pkcs8).unwrap();
        Auditor::resume(identity, &*snapshot).unwrap().write(&mut batch, acts);
        write(&self.engine, batch);
    }

    fn enrol(&self) {
        let mut batch = Batch::new();
        batch.put(Key::HubIdentity, Identity::generate().unwrap().pkcs8()).put(Key::HubSampling, [1; 32]);
        write(&self.engine, batch);
        let deed = token_deed(&[8; 32], &Owner(Some(self.provider.clone())));
        self.commit(deed.batch, &deed.acts);
        let hello = Hello {
            token: None,
            name: "a".into(),
            version: "0".into(),
            isa: "plain".into(),
            arch: "x86_64".into(),
            slots: 1,
            memory_bytes: 0,
            kernels: Vec::new(),
            region: String::new(),
        };
        let record = StandingRecord {
            agent: self.agent,
            provider: self.provider.id(),
            anchor: false,
            standing: Standing::Trusted,
            agreed: 0,
            wrong: 0,
            proven: false,
        };
        let mut batch = Batch::new();
        batch
            .put(Key::Token(Digest::of(&[8; 32])), records::token_spent_by(self.agent))
            .put(Key::Agent(self.agent), records::agent_bytes(AGENT_KEY, &hello, Some(&self.provider)))
            .put(Key::Standing(self.agent), serde_json::to_vec(&record).unwrap())
            .put(Key::ApiKey(Digest([4; 32])), 7_u64.to_be_bytes());
        write(&self.engine, batch);
    }

    /// All shards of a job, each answered and paid.
    fn finish(&self, job: &Arc<NewJob>, result: Option<[u8; 8]>, kept: Kept) {
        let view = Box::new(view_of(job));
        if result.is_some() {
            self.act(&Record::JobAccepted { job: job.clone(), view: view.clone() });
        }
        let mut bill = Bill::open(job.manifest.spec().verify, &job.plan);
        for index in (0..job.plan.shards()).map(ShardIndex) {
            bill.owe(Payment {
                provider: self.provider.id(),
                agent: self.agent,
                service: Service::Shard,
                index,
                digest: Digest([index.0 as u8; 32]),
                cost: job.plan.shard(index).unwrap().cost,
            });
        }
        let result: Arc<[u8]> = match (&kept, result) {
            (Kept::Tiles(task), _) => {
                let snapshot = self.engine.snapshot().unwrap();
                let (blake3, bytes) = output::digest(&*snapshot, job.id, task).unwrap();
                serde_json::json!({"output": {"blake3": blake3, "bytes": bytes}})
                    .to_string()
                    .into_bytes()
                    .into()
            }
            (_, result) => result.unwrap_or_default().into(),
        };
        let digest = Some(Digest::of(&result));
        let view = JobView { state: JobState::Done, digest, ended_ms: Some(UnixMillis(9)), ..*view };
        let outcome = Outcome::Done { result, kept };
        let record = Record::JobEnded {
            job: job.id,
            view: Box::new(view),
            outcome,
            bill: Box::new(bill.close()),
            unchecked: Default::default(),
        };
        self.act(&record);
    }

    fn multiply(&self, job: &Arc<NewJob>) {
        self.act(&Record::JobAccepted { job: job.clone(), view: Box::new(view_of(job)) });
        let task = job.plan.matrix().unwrap().clone();
        for tile in 0..task.tile_count() {
            let block = task.block(tile * task.panels()).unwrap();
            let elements = (block.rows.end - block.rows.start) * (block.cols.end - block.cols.start);
            let bytes = vec![tile as u8; 8 * elements as usize].into();
            let (plan, earned) = (job.plan.digest(), Vec::new());
            self.act(&Record::TileReduced { job: job.id, plan, tile, bytes, earned });
        }
        self.finish(job, None, Kept::Tiles(task));
    }

    /// Prunes the jobs that ended, as the hub does; shows the store after each commit.
    fn prune(&self, mut after_each: impl FnMut()) {
        let snapshot = || self.engine.snapshot().unwrap();
        let policy = Policy { default: Some(Duration::ZERO), ..Policy::default() };
        for job in [self.done, self.matrix] {
            let now = UnixMillis(unix_ms());
            let deed = retention::prune(&*snapshot(), &policy, job, now).unwrap().unwrap();
            self.commit(deed.batch, &deed.acts);
            after_each();
            while let Some(batch) = retention::rest_batch(&*snapshot(), job, 4).unwrap() {
                write(&self.engine, batch);
                after_each();
            }
        }
        write(&self.engine, retention::keys_batch(&*snapshot(), None).unwrap().0);
        after_each();
    }

    fn report(&self) -> Report {
        check(&*self.engine.snapshot().unwrap(), Some(self.blobs.clone())).unwrap()
    }

    /// A piece of the file, and the record of it.
    fn put(&self, number: u64, bytes: Vec<u8>) {
        let length = bytes.len() as u64;
        let blake3 = self.blobs.put(Name { blob: self.input, piece: number }, bytes.into()).unwrap();
        write(&self.engine, piece_batch(self.input, &Stored { number, bytes: length, blake3 }));
    }

    /// The only value of a provider in a family.
    fn of_provider(&self, family: Family) -> (Vec<u8>, Vec<u8>) {
        let range = of_provider(family, self.provider.id());
        let entry = self.engine.snapshot().unwrap().range(&range, 1).unwrap().remove(0);
        (entry.key, entry.value)
    }

    fn value(&self, key: &[u8]) -> Vec<u8> {
        self.engine.snapshot().unwrap().get(key).unwrap().unwrap()
    }
}

/// The first chunk of a value.
fn chunk(key: Key<'_>) -> Vec<u8> {
    chunk_key(&key.encode(), 0)
}

/// The same bytes with one text in place of another.
fn with(bytes: Vec<u8>, old: &str, new: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.contains(old), "{old} in {text}");
    assert_eq!(old.len(), new.len(), "the length of a chunked value is stored too");
    text.replacen(old, new, 1).into_bytes()
}

#[test]
fn a_store_with_everything_in_it_is_clean_and_every_value_is_counted() {
    let report = Whole::new().report();
    assert!(report.clean, "{report}");
    let count = |family: Family| {
        let name = family_name(family);
        report.families.iter().find(|count| count.family == name).unwrap().values
    };
    let families = [Family::Jobs, Family::Results, Family::Tiles, Family::Bills, Family::Settlements];
    assert_eq!(families.map(count), [3, 2, 10, 3, 1]);
    assert_eq!((count(Family::Inputs), count(Family::BlobPieces), count(Family::Agents)), (1, 1, 1));
    assert!(report.to_string().ends_with("clean: every digest, reference and balance is right"));
}

/// Does one thing to a store, and expects a finding at a key that says this.
#[track_caller]
fn found(what: &str, damage: impl FnOnce(&Whole, &mut Batch), key: &str, says: &str) {
    let whole = Whole::new();
    let mut batch = Batch::new();
    damage(&whole, &mut batch);
    write(&whole.engine, batch);
    let report = whole.report();
    assert!(!report.clean);
    let is = |finding: &&Finding| finding.key.contains(key) && finding.says.contains(says);
    assert!(report.findings.iter().any(|finding| is(&finding)), "{what}:\n{report}");
}

#[test]
fn damage_to_keys_chunks_and_jobs_is_found_where_it_is() {
    found(
        "a foreign key",
        |_, batch| {
            batch.put("strange/1", "");
        },
        "strange/1",
        "no key of a hub",
    );
    found(
        "a chunk cut short",
        |whole, batch| {
            batch.put(chunk(Key::Result(whole.done)), 8_u64.to_be_bytes());
        },
        "result/",
        "its chunks hold 0 bytes where 8 were stored",
    );
    found(
        "a first chunk that is gone",
        |whole, batch| {
            let key = Key::Manifest(whole.open).encode();
            batch.delete(chunk_key(&key, 0)).put(chunk_key(&key, 1), "x");
        },
        "manifest/",
        "a chunk of it is missing",
    );
    found(
        "a result of other bytes",
        |whole, batch| {
            batch.put_chunked(&Key::Result(whole.done).encode(), b"{\"it\":2}");
        },
        "result/",
        "not those of the job's digest",
    );
    found(
        "a result that is gone",
        |whole, batch| {
            batch.delete_chunked(&Key::Result(whole.done).encode());
        },
        "result/",
        "it is not here",
    );
    found(
        "a job that is gone",
        |whole, batch| {
            batch.delete(Key::Job(whole.done));
        },
        "bill/",
        "is not here",
    );
    found(
        "a tile of other elements",
        |whole, batch| {
            let key = chunk(Key::Tile { job: whole.matrix, tile: 4 });
            let mut bytes = whole.value(&key);
            bytes[100] ^= 1;
            batch.put(key, bytes);
        },
        "tile/",
        "not those of the digest",
    );
    found(
        "another job's idempotency key",
        |whole, batch| {
            let key = Key::Idempotency { project: "default", key: b"once" };
            let mut value = whole.value(&key.encode());
            value[17] ^= 1;
            batch.put(key, value);
        },
        "idem/default/once",
        "computes something else",
    );
    found(
        "another manifest",
        |whole, batch| {
            let key = chunk(Key::Manifest(whole.open));
            let (head, text) = {
                let bytes = whole.value(&key);
                (bytes[..8].to_vec(), bytes[8..].to_vec())
            };
            batch.put(key, [head, with(text, "6000", "6001")].concat());
        },
        "manifest/",
        "not the one that its job names",
    );
}

#[test]
fn a_ledger_that_does_not_balance_is_found_to_the_microcredit() {
    let bill_with = |old: &'static str, new: &'static str| {
        move |whole: &Whole, batch: &mut Batch| {
            let key = chunk(Key::Bill(whole.done));
            let bytes = whole.value(&key);
            batch.put(key, [bytes[..8].to_vec(), with(bytes[8..].to_vec(), old, new)].concat());
        }
    };
    found(
        "a refund",
        bill_with("\"refunded\":\"0\"", "\"refunded\":\"1\""),
        "bill/",
        "credits appear or vanish",
    );
    found(
        "an open bill",
        |whole, batch| {
            let bytes = whole.value(&chunk(Key::Bill(whole.done)))[8..].to_vec();
            let open = String::from_utf8(bytes).unwrap().replace("\"closed\":true", "\"closed\":false");
            batch.put_chunked(&Key::Bill(whole.done).encode(), open.as_bytes());
        },
        "bill/",
        "it is open, and its job ended",
    );
    found(
        "an earning of more",
        |whole, batch| {
            let (key, value) = whole.of_provider(Family::Earnings);
            batch.put(key, with(value, "\"shards\":60", "\"shards\":61"));
        },
        "earning/",
        "not what the bill of its job paid",
    );
    found(
        "an earning that is gone",
        |whole, batch| {
            batch.delete(whole.of_provider(Family::Earnings).0);
        },
        "earning/",
        "it is not here",
    );
    found(
        "an earning of no job",
        |whole, batch| {
            let (_, value) = whole.of_provider(Family::Earnings);
            let (provider, job) = (whole.provider.id(), whole.open);
            batch.put(Key::Earning { provider, ended_ms: 3, job }, value);
        },
        "earning/",
        "no job that ended then paid it",
    );
    found(
        "pages of payments that are gone",
        |whole, batch| {
            let page = whole.engine.snapshot().unwrap().range(&pay_pages_of(whole.matrix), 1).unwrap();
            batch.delete(page[0].key.clone());
        },
        "bill/",
        "not what its pages of payments add up to",
    );
    found(
        "a payment of more than was earned",
        |whole, batch| {
            let (key, value) = whole.of_provider(Family::Settled);
            let text = String::from_utf8(value).unwrap().replace("\"amount\":\"", "\"amount\":\"9");
            batch.put(key, text);
        },
        "provider/",
        "and it earned",
    );
    found(
        "a payment without a settlement",
        |_, batch| {
            batch.delete_chunked(&Key::Settlement(1).encode());
        },
        "settled/",
        "no settlement paid it",
    );
}

#[test]
fn agents_files_and_the_log_are_compared_with_what_names_them() {
    found("a byte of a file", |whole, _| whole.put(0, vec![9; 3_000]), "input/", "not those of its digest");
    found("a piece of a file", |whole, _| whole.put(0, vec![1, 2]), "input/", "is missing");
    found(
        "the record of a piece",
        |whole, batch| {
            batch.delete(Key::BlobPiece { blob: whole.input, piece: 0 });
        },
        "input/",
        "what lies at byte 0 of",
    );
    found(
        "an object",
        |whole, _| whole.blobs.remove(Name { blob: whole.input, piece: 0 }).unwrap(),
        "input/",
        "what lies at byte 0 of",
    );
    found(
        "the bytes of an object",
        |whole, _| {
            whole.blobs.put(Name { blob: whole.input, piece: 0 }, vec![7; 3_000].into()).unwrap();
        },
        "input/",
        "is damaged",
    );
    found(
        "an agent",
        |whole, batch| {
            batch.delete(Key::Agent(whole.agent));
        },
        "standing/",
        "agent is not here",
    );
    found(
        "its token",
        |whole, batch| {
            batch.delete(Key::Agent(whole.agent));
        },
        "token/",
        "is not here",
    );
    found(
        "its provider",
        |whole, batch| {
            batch.delete(Key::Provider(whole.provider.id()));
        },
        "agent/",
        "provider is not here",
    );
    found(
        "a changed entry",
        |whole, batch| {
            let entry = whole.value(&Key::Audit(0).encode());
            batch.put(Key::Audit(0), with(entry, "acme", "evil"));
        },
        "the audit log",
        "signed over other entries than these",
    );
    found(
        "the last entries",
        |whole, batch| {
            let head = whole.value(&Key::AuditHead.encode());
            let entries = u64::from_be_bytes(head[..8].try_into().unwrap());
            batch.delete(Key::Audit(entries - 1)).delete(Key::Checkpoint(entries));
        },
        "the audit log",
        "its head names",
    );
    found(
        "the hub's key",
        |_, batch| {
            batch.delete(Key::HubIdentity);
        },
        "audit/0",
        "the hub's key",
    );
}

#[test]
fn what_hubs_that_share_a_store_write_for_each_other_is_read_and_compared_with_the_jobs() {
    let whole = Whole::new();
    let hub = HubId([1; 16]);
    let at = HubAt { http: "a.lab:1".into(), quic: "a.lab:2".into() };
    let told = Told::of(&Act::ApiKeyMade { key: Digest([2; 32]) }, UnixMillis(3));
    let mut batch = Batch::new();
    batch.put(Key::HubAt(hub), at.bytes()).put(Key::Owner(whole.open), hub.0);
    batch.put(Key::Act { hub, number: 0 }, told.bytes());
    write(&whole.engine, batch);
    let report = whole.report();
    assert!(report.clean, "{report}");

    let put = |key: fn(&Whole) -> Key<'static>, value: Vec<u8>| {
        move |whole: &Whole, batch: &mut Batch| {
            batch.put(key(whole), value);
        }
    };
    let ended = put(|whole| Key::Owner(whole.done), vec![1; 16]);
    found("a job that ended is somebody's", ended, "owner/", "has ended");
    let unknown = put(|_| Key::Owner(JobId([9; 16])), vec![1; 16]);
    found("a job that is not here is somebody's", unknown, "owner/", "is not here");
    let short = put(|whole| Key::Owner(whole.open), vec![1; 15]);
    found("an owner is no hub", short, "owner/", "cannot be read");
    let garbled = put(|_| Key::HubAt(HubId([1; 16])), b"{".to_vec());
    found("an address is none", garbled, "hub-at/", "cannot be read");
    let garbled = put(|_| Key::Act { hub: HubId([1; 16]), number: 2 }, b"{}".to_vec());
    found("a report is none", garbled, "act/", "cannot be read");
}

#[test]
fn a_store_is_clean_at_every_step_of_pruning_and_what_pruned_jobs_paid_is_still_checked() {
    let whole = Whole::new();
    let mut commits = 0;
    whole.prune(|| {
        commits += 1;
        let report = whole.report();
        assert!(report.clean, "after {commits} commits: {report}");
    });
    assert!(commits > 4, "{commits}");

    // An older hub did not write when a job ended.
    let mut batch = Batch::new();
    let stone = r#"{"version":1,"at_ms":15,"project":"default","rest":false}"#;
    batch.put(Key::Pruned(whole.done), stone).put(Key::Pruned(whole.matrix), stone);
    write(&whole.engine, batch);
    let report = whole.report();
    assert!(report.clean, "{report}");

    type Damage = fn(&Whole, &mut Batch);
    let pruned = |what: &str, damage: Damage, key: &str, says: &str| {
        let damage = move |whole: &Whole, batch: &mut Batch| {
            whole.prune(|| {});
            damage(whole, batch);
        };
        found(what, damage, key, says);
    };
    pruned(
        "an earning of a pruned job that is gone",
        |whole, batch| {
            batch.delete(whole.of_provider(Family::Earnings).0);
        },
        "earning/",
        "it is not here",
    );
    pruned(
        "a bill of a pruned job that is gone",
        |whole, batch| {
            batch.delete_chunked(&Key::Bill(whole.done).encode());
        },
        "earning/",
        "no job that ended then paid it",
    );
    pruned(
        "a stone that is gone",
        |whole, batch| {
            batch.delete(Key::Pruned(whole.done));
        },
        "bill/",
        "is not here",
    );
    pruned(
        "a result of a job of which nothing is left",
        |whole, batch| {
            batch.put_chunked(&Key::Result(whole.done).encode(), b"{}");
        },
        "result/",
        "was pruned, and this is left",
    );
    pruned(
        "a job that was pruned and is here",
        |_, batch| {
            let job = monte_carlo(1, None);
            *batch = deed_of(&Record::JobAccepted { view: Box::new(view_of(&job)), job }).batch;
        },
        "job/",
        "it was pruned, and is here",
    );
}

#[test]
fn what_a_killed_hub_leaves_is_a_note_and_no_finding() {
    let whole = Whole::new();
    let half = Stored { number: 0, bytes: INPUT_PIECE_BYTES, blake3: Digest([1; 32]) };
    write(&whole.engine, piece_batch(Digest([5; 32]), &half));
    write(&whole.engine, inputs::upload_batch(Digest([6; 32]), &half, 2 * INPUT_PIECE_BYTES, UnixMillis(1)));
    let report = whole.report();
    assert!(report.clean, "{report}");
    assert!(report.notes.iter().any(|note| note.starts_with("1 files were being stored")), "{report}");
}

#[test]
fn a_store_of_another_format_is_not_checked() {
    let whole = Whole::new();
    let mut batch = Batch::new();
    batch.put(Key::Format, (FORMAT + 1).to_be_bytes());
    write(&whole.engine, batch);
    let refused = check(&*whole.engine.snapshot().unwrap(), None).unwrap_err();
    assert!(refused.to_string().contains("newer build"), "{refused}");
}

#[test]
fn a_report_holds_no_more_findings_than_can_be_read() {
    let whole = Whole::new();
    for part in 0..3_u32 {
        let mut batch = Batch::new();
        (0..400_u32).for_each(|number| {
            batch.put(format!("strange/{part}/{number}"), "");
        });
        write(&whole.engine, batch);
    }
    let report = whole.report();
    assert_eq!((report.findings.len(), report.unlisted), (FINDINGS_MAX, 200));
    assert!(report.to_string().ends_with("1200 findings"));
}
