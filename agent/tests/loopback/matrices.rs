//! Matrix jobs whose inputs the hub sends when it is asked.

use std::path::Path;
use std::sync::Arc;

use tessera_kernels::isa::Isa;
use tessera_kernels::matrix::Prepared;
use tessera_kernels::matrix::npy::Reader;
use tessera_protocol::id::Digest;
use tessera_protocol::matrix::{Operand, Source, Task};
use tessera_protocol::wire::{self, AgentWork, Assignment, BulkHeader, HubWork, ShardFailure};

use super::hub::{Hub, HubIdentity, Session};
use super::{JOB, Running, folder, results, sent};
use tessera_protocol::limits::INPUT_PIECE_BYTES;

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/npy");
    std::fs::read(folder.join(name)).expect("a file")
}

/// `A Aᵀ` of a file with two rows and three columns.
fn task(file: &[u8]) -> Task {
    let source = Source::Input { blake3: Digest::of(file).0, bytes: file.len() as u64 };
    let a = Operand { source, rows: 2, cols: 3, transposed: false };
    let b = Operand { transposed: true, ..a.clone() };
    Task {
        key: [0; 2],
        double: true,
        alpha: 1.0,
        beta: 0.0,
        a,
        b,
        c: None,
        half: None,
        tile: [16, 16],
        k_panel: 3,
    }
}

async fn order(session: &mut Session, task: &Task) {
    let task = Some(task.encode());
    session.work(&HubWork::Job { job: JOB, kernel: "gemm".to_owned(), task }).await;
    let items = vec![Assignment { index: 0, epoch: 7, first: 0, count: 1 }];
    session.work(&HubWork::Assign { job: JOB, items }).await;
    assert_eq!(session.answer().await, AgentWork::Fetch { job: JOB, input: 0, offset: 0 });
}

async fn send(session: &mut Session, file: &[u8]) {
    session.bulk(&wire::bulk(&BulkHeader::Input { job: JOB, input: 0, offset: 0 }, file)).await;
}

#[tokio::test]
async fn a_product_of_files_is_computed_from_what_the_hub_sends() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 2);
    let mut session = hub.welcomed(4).await;
    for name in ["c.npy", "fortran.npy"] {
        let (file, task) = (fixture(name), task(&fixture(name)));
        order(&mut session, &task).await;
        send(&mut session, &file).await;
        let mut reader = Reader::keeping(file.len() as u64);
        reader.push(&file).expect("a matrix");
        let matrix = Arc::new(reader.matrix().expect("a matrix"));
        let find = |_: &[u8; 32], _| Some(matrix.clone().into());
        let prepared = Prepared::new(Arc::new(task), &find, u64::MAX).expect("operands");
        let expected = prepared.run(Isa::PLAIN, 0, &|| false).expect("a block");
        assert_eq!(results(&mut session, 1).await[0].partial, sent(expected), "{name}");
        session.work(&HubWork::Forget { job: JOB }).await;
    }
    agent.stop().await.expect("a clean end");
}

#[tokio::test]
async fn inputs_that_cannot_be_used_fail_their_shards_and_the_session_lives_on() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let agent = Running::start(hub.address(), data.path(), Some(identity.token()), 1);
    let mut session = hub.welcomed(4).await;
    let failed = AgentWork::Failed { job: JOB, index: 0, epoch: 7, failure: ShardFailure::InputUnusable };
    let right = fixture("c.npy");
    let other = [&right[..right.len() - 1], &[0x40]].concat();
    for (named, sent) in [
        (fixture("nan.npy"), fixture("nan.npy")),
        (fixture("big_endian.npy"), fixture("big_endian.npy")),
        (fixture("integers.npy"), fixture("integers.npy")),
        (right.clone(), other),
    ] {
        order(&mut session, &task(&named)).await;
        send(&mut session, &sent).await;
        assert_eq!(session.answer().await, failed);
        session.work(&HubWork::Forget { job: JOB }).await;
    }
    order(&mut session, &task(&right)).await;
    session.work(&HubWork::InputUnavailable { job: JOB, input: 0 }).await;
    assert_eq!(session.answer().await, failed);
    session.work(&HubWork::Forget { job: JOB }).await;
    // The very file, but of another shape than the task says.
    let mut taller = task(&right);
    (taller.a.rows, taller.a.cols, taller.b.rows, taller.b.cols) = (3, 2, 3, 2);
    taller.k_panel = 2;
    order(&mut session, &taller).await;
    send(&mut session, &right).await;
    assert_eq!(session.answer().await, failed);
    agent.stop().await.expect("a clean end");
}

/// A `.npy` of so many rows of 4,096 doubles.
fn large(rows: u64) -> Vec<u8> {
    let mut file = tessera_planners::npy_header(rows, 4_096, tessera_protocol::spec::Dtype::F64);
    file.extend((0..rows * 4_096).flat_map(|at| ((at % 1_009) as f64 - 504.0).to_le_bytes()));
    file
}

#[tokio::test]
async fn a_matrix_of_four_times_the_memory_is_multiplied_from_the_disk() {
    let (data, identity) = (folder(), HubIdentity::new());
    let hub = Hub::start(&identity);
    let file = large(512);
    assert!(file.len() > 16 << 20);
    let room = [Some(4 << 20), Some(17 << 20)];
    let agent = Running::start_with(hub.address(), data.path(), Some(identity.token()), 2, room);
    let mut session = hub.welcomed(8).await;
    let source = Source::Input { blake3: Digest::of(&file).0, bytes: file.len() as u64 };
    let a = Operand { source, rows: 512, cols: 4_096, transposed: false };
    let b = Operand { transposed: true, ..a.clone() };
    let task = Task { a, b, tile: [16, 16], k_panel: 4_096, ..task(&fixture("c.npy")) };
    assert_eq!(task.check(), Ok(()));
    session.work(&HubWork::Job { job: JOB, kernel: "gemm".to_owned(), task: Some(task.encode()) }).await;
    let last = task.blocks() - 1;
    let items = [0, 1, last].map(|index| Assignment { index, epoch: 7, first: index, count: 1 }).to_vec();
    session.work(&HubWork::Assign { job: JOB, items }).await;
    for (position, piece) in file.chunks(INPUT_PIECE_BYTES as usize).enumerate() {
        let offset = position as u64 * INPUT_PIECE_BYTES;
        assert_eq!(session.answer().await, AgentWork::Fetch { job: JOB, input: 0, offset });
        session.bulk(&wire::bulk(&BulkHeader::Input { job: JOB, input: 0, offset }, piece)).await;
    }
    let mut reader = Reader::keeping(file.len() as u64);
    reader.push(&file).expect("a matrix");
    let matrix = Arc::new(reader.matrix().expect("a matrix"));
    let find = |_: &[u8; 32], _| Some(matrix.clone().into());
    let prepared = Prepared::new(Arc::new(task), &find, u64::MAX).expect("operands");
    for (index, result) in [0, 1, last].into_iter().zip(results(&mut session, 3).await) {
        let expected = prepared.run(Isa::PLAIN, index, &|| false).expect("a block");
        assert_eq!((result.index, result.partial), (index, sent(expected)));
    }
    session.work(&HubWork::Forget { job: JOB }).await;
    // The disk has less for it than the next file takes.
    let more = large(550);
    let source = Source::Input { blake3: Digest::of(&more).0, bytes: more.len() as u64 };
    let wider = Operand { source, rows: 550, cols: 4_096, transposed: false };
    assert!(more.len() > 17 << 20);
    let b = Operand { transposed: true, ..wider.clone() };
    let task = Task { a: wider, b, tile: [16, 16], k_panel: 4_096, ..self::task(&fixture("c.npy")) };
    session.work(&HubWork::Job { job: JOB, kernel: "gemm".to_owned(), task: Some(task.encode()) }).await;
    let items = vec![Assignment { index: 0, epoch: 7, first: 0, count: 1 }];
    session.work(&HubWork::Assign { job: JOB, items }).await;
    let failed = AgentWork::Failed { job: JOB, index: 0, epoch: 7, failure: ShardFailure::InputUnusable };
    assert_eq!(session.answer().await, failed);
    agent.stop().await.expect("a clean end");
}
