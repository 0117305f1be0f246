//! Explanations as text: the reason first, then what it rests on.

use tessera_protocol::api::RestView;
use tessera_protocol::explain::{
    AgentExplained, AgentFit, Candidate, HomeExplained, JobExplained, Lack, LaneExplained,
    PlacementExplained, ScoreParts,
};
use tessera_protocol::id::AgentId;

use super::number::{duration, grouped};
use super::{facts, lines, shortened, table};

/// Placements that a page shows.
const PLACEMENTS: usize = 8;

/// Why a job stands where it stands.
pub fn explained_job(explained: &JobExplained) -> String {
    let mut text = format!("{}: {}\n", explained.job, explained.summary);
    if let Some(home) = &explained.home {
        text += &of_home(home);
    }
    explained.lanes.iter().for_each(|lane| text += &of_lane(lane));
    text
}

fn of_home(home: &HomeExplained) -> String {
    let mut text = String::new();
    if home.shards_todo > 0 {
        text += &format!("{} shards are with no lane yet\n", grouped(home.shards_todo));
    }
    for errand in &home.stuck {
        text += &format!("shard {} finds nobody: it wants {}", errand.shard, errand.who);
        if !errand.avoid.is_empty() {
            text += &format!(" that is none of the {} that had it", errand.avoid.len());
        }
        text.push('\n');
    }
    text
}

fn of_lane(lane: &LaneExplained) -> String {
    let mut known = vec![
        ("waiting", format!("{} shards, {} checks or retries", grouped(lane.pending), grouped(lane.errands))),
        ("at agents", grouped(lane.in_flight)),
        ("agents", format!("{} could run it, {} of them are free", grouped(lane.able), grouped(lane.free))),
    ];
    known.extend(lane.reasons.iter().map(|reason| ("because", reason.to_string())));
    let mut text = format!("\nlane {}\n{}", lane.lane, facts(&known));
    if lane.line.len() > 1 {
        let rows = lane.line.iter().map(|project| {
            let name = match project.project == lane.project {
                true => format!("{} (this job's)", shortened(&project.project, 40)),
                false => shortened(&project.project, 40),
            };
            vec![name, project.weight.to_string(), grouped(project.ahead), grouped(project.in_flight)]
        });
        let header = ["project, next first", "weight", "units ahead", "at agents"];
        text += &format!("\n{}", lines(&table(&header, 1, rows.collect())));
    }
    let lacking: Vec<&AgentFit> = lane.agents.iter().filter(|agent| !agent.lacks.is_empty()).collect();
    if !lacking.is_empty() {
        let rows = lacking.iter().map(|fit| {
            vec![short(fit.agent), shortened(&fit.name, 14), held(fit.held), in_words(&fit.lacks)]
        });
        let header = ["agent", "name", "holds", "why not"];
        text += &format!("\n{}", lines(&table(&header, 4, rows.collect())));
    }
    text + &placements(&lane.placements)
}

/// What a connected agent is thought of.
pub fn explained_agent(explained: &AgentExplained) -> String {
    let score = &explained.score;
    let mut known = vec![
        ("agent", format!("{} {}", explained.agent, shortened(&explained.name, 40))),
        ("lane", explained.lane.to_string()),
        ("standing", explained.standing.word().to_owned()),
        ("score", format!("{} of {}: {}", score.points(), ScoreParts::POINTS_MAX, parts(score))),
        ("holds", held(explained.held)),
        (
            "answers",
            format!("after {}, {} units/ms", duration(explained.answer_ms), grouped(explained.units_per_ms)),
        ),
    ];
    known.extend(explained.rest.iter().map(|rest| ("rests", rest_in_words(rest))));
    let mut text = facts(&known);
    if !explained.jobs.is_empty() {
        let rows = explained.jobs.iter().map(|fit| {
            let lacks = if fit.lacks.is_empty() { "able and free".to_owned() } else { in_words(&fit.lacks) };
            vec![fit.job.to_string(), lacks]
        });
        text += &format!("\n{}", lines(&table(&["waiting job", "this agent"], 2, rows.collect())));
    }
    text + &placements(&explained.placements)
}

fn rest_in_words(rest: &RestView) -> String {
    let seconds = rest.until_ms.0 / 1_000 % 86_400;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("until {hours:02}:{minutes:02}:{:02} UTC: {}", seconds % 60, rest.because)
}

fn placements(placements: &[PlacementExplained]) -> String {
    if placements.is_empty() {
        return String::new();
    }
    let rows = placements.iter().take(PLACEMENTS).flat_map(|placement| {
        placement.ranked.iter().enumerate().map(move |(place, candidate)| row(placement, place, candidate))
    });
    let header =
        ["placed", "shard", "free", "agent", "score", "speed, completion, failures, standing", "full"];
    format!("\n{}", lines(&table(&header, 1, rows.collect())))
}

fn row(placement: &PlacementExplained, place: usize, candidate: &Candidate) -> Vec<String> {
    let first = |text: String| if place == 0 { text } else { String::new() };
    let score = &candidate.score;
    vec![
        first(format!("{} ago", duration(placement.ago_ms))),
        first(shards(placement)),
        first(placement.candidates.to_string()),
        short(candidate.agent),
        score.points().to_string(),
        format!("{} + {} + {} + {}", score.speed, score.completion, score.failures, score.standing),
        format!("{} %", candidate.load / 10),
    ]
}

fn shards(placement: &PlacementExplained) -> String {
    match placement.shards {
        0 | 1 => placement.shard.to_string(),
        count => format!("{} to {}", placement.shard, placement.shard + count - 1),
    }
}

/// As much of an id as tells the agents of one hub apart.
fn short(agent: AgentId) -> String {
    agent.to_string().chars().take(12).collect()
}

fn parts(score: &ScoreParts) -> String {
    format!(
        "speed {}, completion {}, failures {}, standing {}",
        score.speed, score.completion, score.failures, score.standing
    )
}

fn held([held, most]: [u64; 2]) -> String {
    format!("{held} of {most}")
}

fn in_words(lacks: &[Lack]) -> String {
    lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_job_says_why_in_its_first_line_and_names_what_each_agent_lacks() {
        let text = r#"{"job":"job_019a7b8c9d0e0102030405060708090a","summary":"waits: no agent has the kernel gemm",
            "home":{"lane":0,"shards_todo":12,"stuck":[{"shard":4,"who":"one of the operator's own agents","avoid":[]}],
            "stuck_count":1},"lanes":[{"lane":0,"reasons":[{"reason":"kernel_missing","kernel":"gemm"}],
            "priority":"batch","project":"default","weight":1,"pending":0,"errands":0,"in_flight":0,"kernel":"gemm",
            "memory_bytes":4096,"able":0,"free":0,"line":[],"agents":[{"agent":"agt_01010101010101010101010101010101",
            "name":"old","score":{"speed":300,"completion":270,"failures":100,"standing":100},"held":[0,2],
            "lacks":[{"lack":"kernel"},{"lack":"memory","bytes_max":1024}]}],"placements":[]}]}"#;
        let shown = explained_job(&serde_json::from_str(text).unwrap());
        let mut shown_lines = shown.lines();
        assert_eq!(
            shown_lines.next(),
            Some("job_019a7b8c9d0e0102030405060708090a: waits: no agent has the kernel gemm")
        );
        assert!(
            shown.contains("shard 4 finds nobody: it wants one of the operator's own agents\n"),
            "{shown}"
        );
        assert!(shown.contains("does not have the kernel, keeps at most 1024 bytes"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= super::super::WIDTH), "{shown}");
    }

    #[test]
    fn an_agent_that_rests_says_until_when_and_a_job_that_it_gets_nothing_meanwhile() {
        let text = r#"{"agent":"agt_01010101010101010101010101010101","name":"old","lane":0,"standing":"probation",
            "score":{"speed":300,"completion":270,"failures":100,"standing":150},"bucket":2,"answer_ms":120,
            "units_per_ms":900,"held":[0,2],"rest":{"until_ms":1763000045000,
            "because":"its attempts came to nothing at shards that passed elsewhere"},
            "jobs":[{"job":"job_019a7b8c9d0e0102030405060708090a","lacks":[{"lack":"resting",
            "until_ms":1763000045000,"left_ms":23100}]}],"placements":[]}"#;
        let shown = explained_agent(&serde_json::from_str(text).unwrap());
        assert!(shown.contains("until 02:14:05 UTC: its attempts came to nothing"), "{shown}");
        assert!(shown.contains("rests for another 24 s"), "{shown}");
    }
}
