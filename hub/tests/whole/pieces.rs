//! An agent that asks for the pieces of an input, as it should and as it should not.

use serde_json::json;
use tessera_hub::quic::{CloseCode, PublicKey};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::limits::INPUT_PIECE_BYTES;
use tessera_protocol::wire::{
    self, AgentControl, AgentWork, BulkHeader, Hello, HubControl, HubWork, Message,
};

use crate::Hub;
use crate::agent::{Agent, read_frame, run, soon, write_frame};

/// Two whole pieces and 128 bytes: 1,024 × 1,024 doubles under a header that nobody here reads.
fn matrix_file() -> Vec<u8> {
    (0..2 * INPUT_PIECE_BYTES + 128).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect()
}

fn submit_product_of(hub: &Hub, file: &[u8]) -> JobId {
    let digest = Digest::of(file);
    assert_eq!(hub.put(&format!("/v1/inputs/{digest}"), file).status, 201);
    let answer = hub.submit(&json!({
        "name": "p", "workload": "gemm",
        "params": {
            "dtype": "f64",
            "a": {"random": "uniform", "rows": 1_024, "cols": 1_024},
            "b": {"input": "b.npy", "rows": 1_024, "cols": 1_024},
        },
        "inputs": [{"name": "b.npy", "blake3": digest, "bytes": file.len()}],
    }));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

fn body(message: &impl Message) -> Vec<u8> {
    let mut framed = Vec::new();
    message.frame(&mut framed);
    framed.split_off(4)
}

/// An agent that was told of the job.
async fn working_agent(hub: &Hub, job: JobId) -> (Agent, (quinn::SendStream, quinn::RecvStream)) {
    let mut agent = Agent::connect(hub.quic, PublicKey(hub.token.hub_key)).await;
    let hello = Hello {
        token: Some(hub.token.secret),
        name: "test".into(),
        version: "0".into(),
        slots: 1,
        isa: "plain".into(),
        arch: "x86_64".into(),
        memory_bytes: 1 << 30,
        kernels: vec!["monte_carlo".into(), "gemm".into()],
        region: String::new(),
    };
    let welcome = agent.say(&body(&AgentControl::Hello(hello))).await;
    assert!(matches!(HubControl::read(&welcome), Ok(HubControl::Welcome(_))));
    let mut work = soon("the work stream", agent.connection.accept_bi()).await.unwrap();
    match HubWork::read(&read_frame(&mut work.1).await).unwrap() {
        HubWork::Job { job: told, kernel, .. } => assert_eq!((told, kernel.as_str()), (job.0, "gemm")),
        other => panic!("no job but {other:?}"),
    }
    (agent, work)
}

#[test]
fn an_agent_gets_the_pieces_of_an_input_one_by_one() {
    let data = tempfile::tempdir().unwrap();
    let hub = Hub::start(data.path(), None);
    let file = matrix_file();
    let job = submit_product_of(&hub, &file);
    run(async {
        let (agent, mut work) = working_agent(&hub, job).await;
        for offset in (0..file.len() as u64).step_by(INPUT_PIECE_BYTES as usize) {
            write_frame(&mut work.0, &body(&AgentWork::Fetch { job: job.0, input: 0, offset })).await;
            let mut stream = soon("a piece", agent.connection.accept_uni()).await.unwrap();
            let bytes = soon("its bytes", stream.read_to_end(8 << 20)).await.unwrap();
            let (header, payload) = wire::read_bulk(&bytes).unwrap();
            assert_eq!(header, BulkHeader::Input { job: job.0, input: 0, offset });
            let start = offset as usize;
            let end = file.len().min(start + INPUT_PIECE_BYTES as usize);
            assert!(payload == &file[start..end], "the piece at {offset}");
        }
    });
    let metrics = String::from_utf8(hub.get("/metrics").body).unwrap();
    assert!(metrics.contains("tessera_input_pieces_read_total 3\n"), "{metrics}");
}

#[test]
fn an_agent_that_asks_for_pieces_without_end_is_let_go() {
    let data = tempfile::tempdir().unwrap();
    let hub = Hub::start(data.path(), None);
    let file = matrix_file();
    let job = submit_product_of(&hub, &file);
    let (code, words) = run(async {
        let (agent, mut work) = working_agent(&hub, job).await;
        let ask = body(&AgentWork::Fetch { job: job.0, input: 0, offset: 0 });
        let framed = [&(ask.len() as u32).to_le_bytes()[..], &ask].concat();
        soon("a write", work.0.write_all(&framed.repeat(10))).await.unwrap();
        agent.closed().await
    });
    assert_eq!(code, u64::from(CloseCode::TOO_MUCH.0));
    assert!(words.contains("more pieces"), "{words}");
}
