//! Explanations over a socket: one of each field and word that the API publishes.

use serde_json::{Value, json};
use tessera_hub::ingress::Limits;
use tessera_protocol::api::{RestView, Standing};
use tessera_protocol::explain::{
    AgentExplained, AgentFit, Candidate, ErrandExplained, HomeExplained, JobExplained, JobFit, Lack,
    LaneExplained, PlacementExplained, ProjectInLine, Reason, ScoreParts,
};
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::spec::{Priority, Requirements};
use tessera_protocol::unit::UnixMillis;

use crate::PI;
use crate::fake::Hub;

const SCORE: ScoreParts = ScoreParts { speed: 200, completion: 290, failures: 100, standing: 150 };

fn placement(job: JobId, agent: AgentId) -> PlacementExplained {
    let candidate = Candidate { agent, queued: false, bucket: 4, load: 500, score: SCORE };
    let errand = Some("one of the operator's own agents".to_owned());
    PlacementExplained { ago_ms: 5, job, shard: 3, shards: 1, errand, candidates: 9, ranked: vec![candidate] }
}

/// Every reason and every lack there is.
/// An agent's that failed where others did not.
const RESTING: Lack = Lack::Resting { until_ms: UnixMillis(9_000), left_ms: 4_000 };

/// Every requirement there is.
fn requirements() -> Requirements {
    let regions = Some(vec!["eu-north".parse().unwrap()]);
    Requirements { gpu: true, gpu_memory_bytes: Some(1 << 33), regions, gpu_models: None }
}

pub(crate) fn job(job: JobId) -> JobExplained {
    let (agent, who) = (AgentId([2; 16]), "one of the operator's own agents".to_owned());
    let reasons = vec![
        Reason::NoAgents,
        Reason::KernelMissing { kernel: "gemm".to_owned() },
        Reason::MemoryMissing { bytes: 9, bytes_max: 8 },
        Reason::RequirementsUnmet { requirements: requirements() },
        Reason::AllBusy { able: 3 },
        Reason::QuotaReached { in_flight: 4, max: 4 },
        Reason::OthersAhead { projects: 2 },
        Reason::JobsAhead { jobs: 1 },
        Reason::InteractiveFirst,
        Reason::ErrandsWait { errands: 1, who: who.clone() },
        Reason::NothingGranted,
        Reason::Stopping,
    ];
    let lacks = vec![
        Lack::Kernel,
        Lack::Memory { bytes_max: 8 },
        Lack::Gpu { bytes_max: 0 },
        Lack::GpuModel { names: vec!["NVIDIA A100-SXM4-80GB".to_owned()] },
        Lack::Region { region: "eu-north".to_owned() },
        Lack::Removed,
        Lack::Leaving,
        RESTING,
        Lack::Full,
    ];
    let lane = LaneExplained {
        lane: 0,
        reasons,
        priority: Priority::Batch,
        project: "default".to_owned(),
        weight: 1,
        pending: 7,
        errands: 1,
        in_flight: 0,
        kernel: "gemm".to_owned(),
        memory_bytes: 9,
        able: 3,
        free: 0,
        line: vec![ProjectInLine { project: "default".to_owned(), weight: 1, ahead: 5, in_flight: 4 }],
        agents: vec![AgentFit { agent, name: "a".to_owned(), score: SCORE, held: [2, 2], lacks }],
        placements: vec![placement(job, agent)],
    };
    let stuck = vec![ErrandExplained { shard: 1, who, avoid: vec![agent] }];
    let home = HomeExplained { lane: 0, shards_todo: 12, stuck, stuck_count: 1 };
    JobExplained::new(job, Some(home), vec![lane])
}

pub(crate) fn agent(agent: AgentId) -> AgentExplained {
    let job = JobId::new(1, [1; 10]);
    AgentExplained {
        agent,
        name: "a".to_owned(),
        lane: 1,
        standing: Standing::Probation,
        score: SCORE,
        bucket: 4,
        answer_ms: 120,
        units_per_ms: 900,
        held: [1, 2],
        rest: Some(RestView { until_ms: UnixMillis(9_000), because: "it failed".to_owned() }),
        jobs: vec![JobFit { job, lacks: vec![Lack::Full] }],
        placements: vec![placement(job, agent)],
    }
}

/// Each document and the name of its schema.
pub(crate) fn documents() -> Vec<(&'static str, Value)> {
    let (job, agent) = (json!(job(JobId::new(1, [1; 10]))), json!(agent(AgentId([1; 16]))));
    let lane = job["lanes"][0].clone();
    vec![
        ("HomeExplained", job["home"].clone()),
        ("ErrandExplained", job["home"]["stuck"][0].clone()),
        ("ProjectInLine", lane["line"][0].clone()),
        ("AgentFit", lane["agents"][0].clone()),
        ("ScoreParts", lane["agents"][0]["score"].clone()),
        ("PlacementExplained", lane["placements"][0].clone()),
        ("Candidate", lane["placements"][0]["ranked"][0].clone()),
        ("LaneExplained", lane),
        ("JobExplained", job),
        ("JobFit", agent["jobs"][0].clone()),
        ("AgentExplained", agent),
    ]
}

#[test]
fn a_job_and_an_agent_are_explained_by_their_ids() {
    let hub = Hub::start(Limits::default());
    let id = hub.submit(PI);
    let explained = hub.get(&format!("/v1/jobs/{id}/explain"));
    assert_eq!(explained.status, 200);
    assert_eq!(explained.json()["job"], json!(id));
    let summary = explained.json()["summary"].as_str().unwrap().to_owned();
    assert!(summary.starts_with("waits: the hub is stopping; 1 checks or retries find nobody"), "{summary}");
    hub.fake.views.publish_agent(crate::fake::agent(1));
    let agents = hub.get("/v1/agents").json();
    let agent = agents["agents"][0]["id"].as_str().unwrap().to_owned();
    let explained = hub.get(&format!("/v1/agents/{agent}/explain"));
    assert_eq!((explained.status, &explained.json()["agent"]), (200, &json!(agent)));
}
