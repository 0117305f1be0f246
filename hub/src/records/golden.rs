//! The bytes of every record, as the hub of this format writes them: `tests/golden/records-1.txt`.
//!
//! A difference there is a difference on every operator's disk. What an older hub can still read, such as a further
//! field with a default, is written anew with `UPDATE_GOLDEN=1` and reviewed. Anything else is another format: raise
//! [`FORMAT`], add a step to what brings stores up to it, begin a file `records-N.txt` and leave the old one, and the
//! backup of that format beside it, as they are.

use super::tests::*;
use super::*;
use crate::inputs::{self, Stored, wanted, whole_batch};
use crate::retention;
use tessera_hub_core::Payment;
use tessera_hub_core::standing::Reason;
use tessera_planners::Pass;
use tessera_protocol::api::JobState;
use tessera_protocol::audit::{self, Checkpoint, SignedCheckpoint};
use tessera_protocol::canonical;
use tessera_protocol::credits::{Microcredits, Settlement, Statement, StatementLine, Totals};
use tessera_protocol::id::{HubId, ProviderId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::receipt::Service;
use tessera_protocol::unit::UnixMillis;
use tessera_storage::format::FORMAT;
use tessera_storage::{Engine, KeyRange, Memory};

/// What of a value is shown; of a longer one also its length and digest.
const SHOWN_BYTES: usize = 3_000;

fn payment(job: &NewJob, index: u64) -> Payment {
    let (provider, agent) = (ProviderId([1; 16]), AgentId([2; 16]));
    let cost = job.plan.shard(ShardIndex(index)).unwrap().cost;
    Payment {
        provider,
        agent,
        service: Service::Check,
        index: ShardIndex(index),
        digest: Digest([3; 32]),
        cost,
    }
}

/// A job in its second round, and one that ended.
fn jobs(engine: &Memory) {
    let open = job(1_000, Some("client's key"));
    let view = view_of(&open);
    commit(engine, &Record::JobAccepted { job: open.clone(), view: Box::new(view.clone()) });
    let progress = Progress {
        done: range(2, 4),
        tally: Some(tally(200, 77)),
        earlier: vec![tally(1_000, 785)],
        view,
        plan: Digest([3; 32]),
        round: Round { number: 2, shards_before: 7, first: 0, end: 1_000, pass: Pass::default() },
        products: products(),
        bill: work(&open, 4).when_done(&range(2, 4)),
    };
    commit(engine, &Record::JobProgressed { job: open.id, progress: Box::new(progress) });
    let ended = job(500, None);
    let digest = Some(Digest::of(b"{}"));
    let view = JobView { state: JobState::Done, digest, ended_ms: Some(UnixMillis(9)), ..view_of(&ended) };
    let outcome = Outcome::Done { result: (*b"{}").into(), kept: Kept::Tally(tally(500, 393)) };
    let (view, bill) = (Box::new(view), Box::new(work(&ended, 5).close()));
    commit(engine, &Record::JobAccepted { job: ended.clone(), view: view.clone() });
    let unchecked = Unchecked { inherited: 1, alone: BTreeMap::from([(AgentId([2; 16]), 3)]) };
    commit(engine, &Record::JobEnded { job: ended.id, view, outcome, bill, unchecked });
    let matrix = product();
    let (plan, bytes) = (matrix.plan.digest(), (*b"elements").into());
    let earned = vec![payment(&matrix, 3), payment(&matrix, 4)];
    commit(engine, &Record::TileReduced { job: matrix.id, plan, tile: 1, bytes, earned });
    let mut batch = Batch::new();
    let cut = Key::Tile { job: matrix.id, tile: CUT }.encode();
    batch.put_chunked(&cut, &matrix.plan.matrix().unwrap().encode());
    write(engine, batch);
}

fn fleet(engine: &Memory) {
    let acme: ProviderName = "acme".parse().unwrap();
    let hello = Hello {
        token: None,
        name: "box".into(),
        version: "0.1.0".into(),
        isa: "avx2".into(),
        arch: "x86_64".into(),
        slots: 4,
        memory_bytes: 1 << 33,
        kernels: vec!["monte_carlo".into()],
        region: "eu".into(),
    };
    let agent = AgentId([2; 16]);
    let mut batch = Batch::new();
    batch
        .put(Key::Agent(agent), agent_bytes([7; 32], &hello, Some(&acme)))
        .put(Key::Agent(AgentId([4; 16])), agent_bytes([8; 32], &hello, None))
        .put(Key::Token(Digest([1; 32])), token_unspent(None))
        .put(Key::Token(Digest([2; 32])), token_unspent(Some(&acme)))
        .put(Key::Token(Digest([3; 32])), token_spent_by(agent))
        .put(Key::Trace(agent), acme.id().0)
        .put(Key::Provider(acme.id()), provider_bytes(&acme));
    write(engine, batch);
    let (from, to, reason) = (Standing::Trusted, Standing::Removed, Reason::ProvenWrongAgain);
    let record = StandingRecord {
        agent,
        provider: acme.id(),
        anchor: false,
        standing: to,
        agreed: 7,
        wrong: 2,
        proven: true,
    };
    let changes = vec![Change { agent, from, to, reason }];
    let (agents, proofs, at) = (vec![record], Vec::new(), UnixMillis(6));
    commit(engine, &Record::StandingsChanged { agents, changes, proofs, at });
    let (units, zero) = (Microcredits(40), Microcredits(0));
    let totals = Totals { gross: units, forfeited: zero, held: zero, settled: zero, payable: units };
    let (job, ended_ms) = (JobId([5; 16]), UnixMillis(9));
    let earned = Earned { shards: 2, units, checks: 0, check_units: zero };
    let line = StatementLine { job, ended_ms, earned, rate: 1, totals };
    let statement = Statement { provider: "acme".into(), lines: vec![line], totals };
    let (made_ms, until_ms, statements) = (UnixMillis(11), UnixMillis(10), vec![statement]);
    write(engine, settlement_batch(&Settlement { number: 1, made_ms, until_ms, total: units, statements }));
}

fn files_and_log(engine: &Memory) {
    let (file, half) = (Digest::of(b"file"), Digest([9; 32]));
    let piece = |bytes, blake3| Stored { number: 0, bytes, blake3 };
    write(engine, inputs::piece_batch(file, &piece(4, file)));
    write(engine, whole_batch(file, 4, UnixMillis(14)));
    let first = piece(INPUT_PIECE_BYTES, Digest([8; 32]));
    write(engine, inputs::upload_batch(half, &first, 2 * INPUT_PIECE_BYTES, UnixMillis(12)));
    let (job, child) = (JobId([7; 16]), JobId([8; 16]));
    let mut batch = Batch::new();
    wanted::put_reference(&mut batch, job, file, wanted::Role::Input);
    wanted::put_reference(&mut batch, child, file, wanted::Role::Product);
    wanted::put_owner(&mut batch, file, "quant", 4);
    batch.put(Key::Entry(HubId([3; 16])), 9_u64.to_be_bytes()).put(Key::Fence(HubId([3; 16])), []);
    let at = HubAt { http: "hub3.lab:7840".into(), quic: "hub3.lab:7843".into() };
    batch.put(Key::HubAt(HubId([3; 16])), at.bytes()).put(Key::Owner(child), [3; 16]);
    batch.put(Key::Trace(AgentId([2; 16])), [1; 16]);
    batch.put(Key::Extension { parent: job, child }, [VERSION]);
    batch.put(Key::Pruned(job), retention::stone_bytes(UnixMillis(15), "quant"));
    write(engine, batch);
    let act = Act::TokenMade { token: Digest([1; 32]), provider: "acme".into() };
    let told = crate::audit::Told::of(&act, UnixMillis(16)).bytes();
    let act = serde_json::to_value(act).unwrap();
    let line = audit::Entry { number: 0, time_ms: UnixMillis(13), previous: Digest([0; 32]), act }.line();
    let head = Digest::of(&line);
    let checkpoint = Checkpoint { entries: 1, head, root: Digest([6; 32]), time_ms: UnixMillis(13) };
    let signature = audit::signature_text(&[5; 64]);
    let signed = SignedCheckpoint { checkpoint, hub_key: Digest([4; 32]), signature };
    let mut batch = Batch::new();
    batch
        .put(Key::Act { hub: HubId([3; 16]), number: 1 }, told)
        .put(Key::Audit(0), line)
        .put(Key::Checkpoint(1), canonical::to_vec(&signed).unwrap())
        .put(Key::AuditHead, crate::audit::head_bytes(1, head));
    write(engine, batch);
}

/// Quotes as they are, since most records are JSON.
fn readable(bytes: &[u8]) -> String {
    let shown = |byte: &u8| match byte {
        b' '..=b'~' if *byte != b'\\' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(shown).collect()
}

fn text_of(engine: &Memory) -> String {
    let mut text = String::new();
    let visit = &mut |Entry { key, value }: Entry| {
        let shown = readable(&value[..value.len().min(SHOWN_BYTES)]);
        text += &format!("{}\n  {shown}\n", readable(&key));
        if value.len() > SHOWN_BYTES {
            text += &format!("  and so on: {} bytes, BLAKE3 {}\n", value.len(), Digest::of(&value));
        }
    };
    engine.snapshot().unwrap().walk(&KeyRange::prefix([]), visit).unwrap();
    text
}

#[test]
fn every_record_has_the_bytes_of_its_format() {
    let engine = Memory::default();
    jobs(&engine);
    fleet(&engine);
    files_and_log(&engine);
    let snapshot = engine.snapshot().unwrap();
    // Secrets and times: bytes without a form of their own. Pieces are of format 1.
    let formless = [Family::Hub, Family::ApiKeys, Family::Pieces];
    for family in Family::ALL.into_iter().filter(|family| !formless.contains(family)) {
        assert!(
            !snapshot.range(&family.range(), 1).unwrap().is_empty(),
            "no {family:?} is in the golden file"
        );
    }
    let text = text_of(&engine);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let path = format!("{folder}/records-{FORMAT}.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (found, expected) in text.lines().zip(golden.lines()) {
        assert_eq!(found, expected, "the bytes of a record changed: see what golden.rs says");
    }
    assert_eq!(
        text.lines().count(),
        golden.lines().count(),
        "a record came or went: see what golden.rs says"
    );
}
