//! Answers in, rulings out, around a court of one moment.

use tessera_protocol::id::ProviderId;

use super::*;
use crate::message::Who;
use crate::sampling::BATCH_SHARDS;

const JOB: JobId = JobId([7; 16]);

fn party(number: u8, provider: &str, standing: Standing) -> Party {
    let account = match provider {
        "operator" => Account::operator(),
        name => Account::of_provider(ProviderId::of_name(name)),
    };
    Party { agent: AgentId([number; 16]), account, standing, lane: LaneIndex(0) }
}

fn says(index: u64, party: Party, value: u8) -> Answer {
    let (digest, content) = (Digest([value; 32]), Part::Block(alloc::vec![value]).into());
    let partial = Partial { index: ShardIndex(index), digest, bytes: 1, content };
    Answer { party, device: None, partial, oddity: None, at: Tick(0) }
}

struct Trial {
    verifier: Verifier,
    docket: Docket,
    class: VerifyClass,
    anchors: u32,
    now: Tick,
    shards: u64,
}

impl Trial {
    fn new(class: VerifyClass, anchors: u32) -> Trial {
        let (verifier, docket) = (Verifier::new([3; 32]), Docket::default());
        Trial { verifier, docket, class, anchors, now: Tick(0), shards: 0 }
    }

    fn answer(&mut self, answer: Answer) -> Vec<Ruling> {
        let mut rulings = Vec::new();
        let court = self.verifier.court(JOB, self.class, self.anchors, self.now);
        let court = Court { shards: self.shards, ..court };
        self.docket.answer(answer, &court, &mut rulings);
        self.docket.check_invariants();
        rulings
    }

    fn close(&mut self, all: bool, at_least_one: bool) -> Vec<Ruling> {
        let mut rulings = Vec::new();
        let court = self.verifier.court(JOB, self.class, self.anchors, self.now);
        let court = Court { shards: self.shards, ..court };
        self.docket.close_due(all, at_least_one, &court, &mut rulings);
        self.docket.check_invariants();
        rulings
    }
}

fn released(rulings: &[Ruling]) -> Vec<u64> {
    let mut all = Vec::new();
    for ruling in rulings {
        if let Ruling::Release { partials, .. } = ruling {
            all.extend(partials.0.iter().map(|partial| partial.index.0));
        }
    }
    all.sort_unstable();
    all
}

fn errands(rulings: &[Ruling]) -> Vec<&Errand> {
    let mut errands = Vec::new();
    for ruling in rulings {
        if let Ruling::Check(errand) = ruling {
            errands.push(errand);
        }
    }
    errands
}

fn refuted(rulings: &[Ruling]) -> Vec<AgentId> {
    let agent = |ruling: &Ruling| match ruling {
        Ruling::Refuted { party, .. } => Some(party.agent),
        _ => None,
    };
    rulings.iter().filter_map(agent).collect()
}

fn recalled(rulings: &[Ruling]) -> usize {
    let count = |ruling: &Ruling| match ruling {
        Ruling::Recall(_, indices) => indices.len(),
        _ => 0,
    };
    rulings.iter().map(count).sum()
}

#[test]
fn a_trusted_agents_batch_is_final_when_its_one_check_agrees_and_not_before() {
    let mut trial = Trial::new(VerifyClass::Standard, 1);
    let (ann, bob) = (party(1, "ann", Standing::Trusted), party(2, "bob", Standing::Trusted));
    let mut rulings = Vec::new();
    for index in 0..BATCH_SHARDS as u64 {
        assert!(released(&rulings).is_empty());
        rulings.extend(trial.answer(says(index, ann, 9)));
    }
    let [errand] = errands(&rulings)[..] else { panic!("one check in a full batch: {rulings:?}") };
    assert!(!errand.permits(ann.agent, ann.account, ann.standing), "it does not check itself");
    assert!(!errand.permits(AgentId([8; 16]), ann.account, Standing::Trusted), "nor does its owner");
    let rulings = trial.answer(says(errand.index.0, bob, 9));
    assert_eq!(released(&rulings), (0..BATCH_SHARDS as u64).collect::<Vec<_>>());
    assert!(trial.docket.is_empty() && trial.docket.bytes() == 0);
}

#[test]
fn every_answer_of_a_newcomer_waits_for_a_trusted_agent() {
    let mut trial = Trial::new(VerifyClass::Standard, 0);
    let (new, also_new) = (party(1, "ann", Standing::Quarantine), party(2, "bob", Standing::Quarantine));
    let rulings = trial.answer(says(0, new, 9));
    let [errand] = errands(&rulings)[..] else { panic!("{rulings:?}") };
    assert!(matches!(errand.who, Who::Checker { trusted: true, .. }));
    let rulings = trial.answer(says(0, also_new, 9));
    assert!(released(&rulings).is_empty(), "two newcomers make nothing true");
    let rulings = trial.answer(says(0, party(3, "cy", Standing::Trusted), 9));
    assert_eq!(released(&rulings), [0]);
}

#[test]
fn an_anchor_settles_a_dispute_and_the_liar_loses_what_is_not_final() {
    let mut trial = Trial::new(VerifyClass::Standard, 1);
    let (liar, bob) = (party(1, "ann", Standing::Trusted), party(2, "bob", Standing::Trusted));
    let mut rulings = Vec::new();
    (0..BATCH_SHARDS as u64).for_each(|index| rulings.extend(trial.answer(says(index, liar, 1))));
    (30..33).for_each(|index| rulings.extend(trial.answer(says(index, liar, 1))));
    let checked = errands(&rulings)[0].index.0;
    let rulings = trial.answer(says(checked, bob, 9));
    assert!(refuted(&rulings).is_empty(), "one word against another proves nothing");
    assert_eq!(errands(&rulings)[0].who, Who::Anchor);
    let accomplice = trial.answer(says(checked, party(3, "cy", Standing::Trusted), 1));
    assert!(refuted(&accomplice).is_empty() && released(&accomplice).is_empty(), "a majority is no anchor");
    let rulings = trial.answer(says(checked, party(4, "operator", Standing::Trusted), 9));
    assert_eq!(refuted(&rulings), [liar.agent, AgentId([3; 16])]);
    assert_eq!(released(&rulings), [checked]);
    assert_eq!(recalled(&rulings), BATCH_SHARDS - 1 + 3);
    assert!(trial.docket.is_empty());
}

#[test]
fn what_a_liar_said_that_waits_for_a_check_does_not_stand_alone_when_nobody_can_check_it() {
    let mut trial = Trial::new(VerifyClass::Standard, 1);
    let liar = party(1, "ann", Standing::Trusted);
    trial.answer(says(0, liar, 1));
    let rulings = trial.close(true, true);
    assert_eq!(errands(&rulings).len(), 1);
    let mut rulings = Vec::new();
    let court = trial.verifier.court(JOB, trial.class, trial.anchors, trial.now);
    trial.docket.recall(liar.agent, &court, &mut rulings);
    assert!(!trial.docket.waive(ShardIndex(0), &court, &mut rulings), "{rulings:?}");
    let rulings = trial.answer(says(0, party(2, "bob", Standing::Trusted), 9));
    assert_eq!(errands(&rulings)[0].who, Who::Anchor);
}

/// A docket that knows shard 100, and an agent that is given it again with its next batch.
fn probed(colluder: Party) -> (Trial, ShardIndex) {
    for key in 0..=u8::MAX {
        let mut trial = Trial::new(VerifyClass::Standard, 1);
        trial.verifier = Verifier::new([key; 32]);
        trial.answer(says(100, party(1, "ann", Standing::Trusted), 9));
        trial.answer(says(100, party(4, "operator", Standing::Trusted), 9));
        let mut rulings = Vec::new();
        (0..BATCH_SHARDS as u64).for_each(|index| rulings.extend(trial.answer(says(index, colluder, 9))));
        let probe = rulings.iter().find_map(|ruling| match ruling {
            Ruling::Probe(party, index) => Some((*party, *index)),
            _ => None,
        });
        if let Some((party, index)) = probe {
            assert_eq!(party, colluder);
            return (trial, index);
        }
    }
    panic!("one batch in sixteen brings its agent a shard that is known");
}

#[test]
fn a_lie_about_a_shard_whose_answer_is_known_needs_no_second_opinion() {
    let colluder = party(2, "bob", Standing::Trusted);
    for (says_now, is_right) in [(9, true), (1, false)] {
        let (mut trial, index) = probed(colluder);
        assert_eq!(index, ShardIndex(100));
        assert!(trial.docket.is_probed(index, colluder.agent));
        let mut rulings = Vec::new();
        let court = trial.verifier.court(JOB, trial.class, trial.anchors, trial.now);
        trial.docket.probed(&says(100, colluder, says_now), &court, &mut rulings);
        trial.docket.check_invariants();
        assert_eq!(refuted(&rulings).is_empty(), is_right);
        assert_eq!(rulings.iter().any(|ruling| matches!(ruling, Ruling::Probed { .. })), is_right);
        assert_eq!(recalled(&rulings), if is_right { 0 } else { BATCH_SHARDS - 1 });
        assert!(!trial.docket.is_probed(index, colluder.agent), "once");
    }
}

#[test]
fn nothing_is_known_that_no_anchor_said_and_nobody_is_tried_with_what_it_said_itself() {
    let ann = party(1, "ann", Standing::Trusted);
    for (checker, tried) in [("bob", "cy"), ("operator", "ann")] {
        for key in 0..=u8::MAX {
            let mut trial = Trial::new(VerifyClass::Standard, 1);
            trial.verifier = Verifier::new([key; 32]);
            trial.answer(says(100, ann, 9));
            trial.answer(says(100, party(4, checker, Standing::Trusted), 9));
            let agent = if tried == "ann" { ann } else { party(3, tried, Standing::Trusted) };
            for index in 0..BATCH_SHARDS as u64 {
                let rulings = trial.answer(says(index, agent, 9));
                assert!(!rulings.iter().any(|ruling| matches!(ruling, Ruling::Probe(..))), "{rulings:?}");
            }
        }
    }
}

#[test]
fn among_newcomers_whoever_agrees_with_the_one_anchor_settles_a_dispute() {
    let mut trial = Trial::new(VerifyClass::Standard, 1);
    let (liar, cy) = (party(1, "ann", Standing::Quarantine), party(3, "cy", Standing::Quarantine));
    trial.answer(says(0, liar, 1));
    let rulings = trial.answer(says(0, party(2, "operator", Standing::Trusted), 9));
    let [errand] = errands(&rulings)[..] else { panic!("{rulings:?}") };
    assert!(errand.permits(cy.agent, cy.account, cy.standing));
    assert!(
        !errand.permits(AgentId([4; 16]), liar.account, Standing::Trusted),
        "not the liar's own provider"
    );
    let rulings = trial.answer(says(0, cy, 9));
    assert_eq!((refuted(&rulings), released(&rulings)), (alloc::vec![liar.agent], alloc::vec![0]));
}

#[test]
fn where_the_operators_own_agents_differ_it_is_the_kernels_fault_and_nobodys() {
    let mut trial = Trial::new(VerifyClass::Exact, 2);
    let own = |number| party(number, "operator", Standing::Trusted);
    trial.answer(says(0, own(1), 1));
    trial.answer(says(0, own(2), 2));
    let rulings = trial.answer(says(0, party(3, "ann", Standing::Trusted), 3));
    assert!(refuted(&rulings).is_empty() && released(&rulings).is_empty());
    let fault = rulings.iter().find_map(|ruling| match ruling {
        Ruling::KernelFault(evidence) => Some(evidence),
        _ => None,
    });
    assert_eq!(fault.map(|evidence| evidence.answers.len()), Some(3), "{rulings:?}");
}

#[test]
fn an_anchor_that_agrees_with_neither_punishes_nobody_before_another_agrees_with_it() {
    let mut trial = Trial::new(VerifyClass::Exact, 1);
    trial.answer(says(0, party(1, "ann", Standing::Trusted), 1));
    trial.answer(says(0, party(2, "bob", Standing::Trusted), 2));
    let rulings = trial.answer(says(0, party(3, "operator", Standing::Trusted), 3));
    assert!(refuted(&rulings).is_empty());
    let rulings = trial.answer(says(0, party(4, "cy", Standing::Trusted), 3));
    assert_eq!(refuted(&rulings), [AgentId([1; 16]), AgentId([2; 16])]);
    assert_eq!(released(&rulings), [0]);
}

#[test]
fn the_answer_of_a_copy_counts_as_the_check() {
    let mut trial = Trial::new(VerifyClass::Standard, 0);
    trial.answer(says(4, party(1, "ann", Standing::Trusted), 9));
    let rulings = trial.answer(says(4, party(2, "bob", Standing::Trusted), 9));
    let checkers = rulings.iter().find_map(|ruling| match ruling {
        Ruling::Release { checkers, .. } => Some(checkers.len()),
        _ => None,
    });
    assert_eq!(checkers, Some(1), "{rulings:?}");
}

#[test]
fn a_batch_that_nothing_is_added_to_closes_and_the_last_of_a_job_is_checked_if_nothing_was() {
    let mut trial = Trial::new(VerifyClass::Standard, 0);
    trial.answer(says(0, party(1, "ann", Standing::Trusted), 9));
    assert!(trial.close(false, false).is_empty());
    assert_eq!(errands(&trial.close(true, true)).len(), 1);
    trial.answer(says(1, party(1, "ann", Standing::Trusted), 9));
    trial.now = Tick(2_000);
    let rulings = trial.close(false, false);
    assert_eq!(released(&rulings).len() + errands(&rulings).len(), 1, "{rulings:?}");
}

#[test]
fn answers_that_come_together_are_batched_as_those_that_come_one_by_one() {
    let batch = BATCH_SHARDS as u64;
    let device = |gpu| Device { isa: "plain".into(), gpu };
    for (together, gpu) in [(1, false), (4, false), (16, false), (60, false), (16, true)] {
        let mut trial = Trial::new(VerifyClass::Standard, 0);
        let ann = party(1, "ann", Standing::Trusted);
        let (mut rulings, mut checked) = (Vec::new(), Vec::new());
        let all: Vec<u64> = (0..2 * batch + 10).collect();
        for indices in all.chunks(together) {
            let court = trial.verifier.court(JOB, trial.class, 0, trial.now);
            // One of each group is said twice, and counts once.
            let twice = indices.iter().chain(&indices[..1]);
            let mut answers = twice.map(|index| (says(*index, ann, 9).partial, None)).collect();
            trial.docket.hold((ann, Some(&device(false))), &mut answers, &court, &mut rulings);
            trial.docket.check_invariants();
            checked.extend(errands(&rulings).iter().map(|errand| errand.index.0));
            assert!(released(&rulings).is_empty(), "{together} at a time");
            rulings.clear();
        }
        let [one, other] = checked[..] else { panic!("one check in each of two batches: {checked:?}") };
        assert!(one < batch && (batch..2 * batch).contains(&other), "{checked:?}");
        assert_eq!((trial.docket.len(), trial.docket.bytes()), (60, 60));
        // On another device it is as if it were another agent's.
        let court = trial.verifier.court(JOB, trial.class, 0, trial.now);
        let mut more = alloc::vec![(says(60, ann, 9).partial, None)];
        trial.docket.hold((ann, Some(&device(gpu))), &mut more, &court, &mut rulings);
        trial.docket.check_invariants();
        let open = &trial.docket.batches[&trial.docket.open[&ann.agent]];
        assert_eq!(open.len(), if gpu { 1 } else { 11 });
    }
}

#[test]
fn without_a_second_agent_old_hands_are_believed_and_newcomers_wait() {
    for (class, standing, believed) in [
        (VerifyClass::Standard, Standing::Probation, true),
        (VerifyClass::Standard, Standing::Quarantine, false),
        (VerifyClass::Exact, Standing::Trusted, false),
    ] {
        let mut trial = Trial::new(class, 0);
        trial.answer(says(0, party(1, "ann", standing), 9));
        trial.close(true, true);
        let mut rulings = Vec::new();
        let court = trial.verifier.court(JOB, class, 0, Tick(0));
        assert_eq!(
            trial.docket.waive(ShardIndex(0), &court, &mut rulings),
            believed,
            "{class:?} {standing:?}"
        );
        assert_eq!(released(&rulings).len(), usize::from(believed));
    }
}

fn odd(index: u64, party: Party, value: u8) -> Answer {
    Answer { oddity: Some(Box::new(Oddity::Product("it is odd".into()))), ..says(index, party, value) }
}

#[test]
fn an_answer_that_looks_odd_is_checked_although_it_is_not_sampled_and_a_lie_takes_its_batch_with_it() {
    let (ann, bob) = (party(1, "ann", Standing::Trusted), party(2, "bob", Standing::Trusted));
    let batch = BATCH_SHARDS as u64;
    let (mut beside, mut found) = (0, 0);
    for odd_one in 0..batch {
        let mut trial = Trial::new(VerifyClass::Standard, 1);
        let mut rulings = Vec::new();
        for index in 0..batch {
            let answer = if index == odd_one { odd(index, ann, 1) } else { says(index, ann, 1) };
            rulings.extend(trial.answer(answer));
        }
        let checked: Vec<u64> = errands(&rulings).iter().map(|errand| errand.index.0).collect();
        assert!(checked.contains(&odd_one), "{odd_one} is not in {checked:?}");
        beside += checked.len() - 1;
        trial.answer(says(odd_one, bob, 9));
        let rulings = trial.answer(says(odd_one, party(4, "operator", Standing::Trusted), 9));
        assert_eq!(refuted(&rulings), [ann.agent]);
        assert_eq!(released(&rulings), [odd_one]);
        let evidence = rulings.iter().find_map(|ruling| match ruling {
            Ruling::Refuted { evidence, .. } => Some(&evidence.oddities),
            _ => None,
        });
        assert_eq!(evidence, Some(&alloc::vec![(ann.agent, Oddity::Product("it is odd".into()))]));
        found += 1;
    }
    assert_eq!(found, batch);
    assert!(beside >= BATCH_SHARDS - 2, "the sample is drawn besides: {beside}");
}

#[test]
fn work_that_looks_odd_and_is_right_costs_no_more_than_its_budget() {
    let (ann, bob) = (party(1, "ann", Standing::Trusted), party(2, "bob", Standing::Trusted));
    for (shards, budget) in [(100, ODD_CHECKS_MIN), (10_000, 200)] {
        let mut trial = Trial { shards, ..Trial::new(VerifyClass::Standard, 1) };
        let (mut checks, mut done) = (0, 0);
        for index in 0..shards {
            let mut rulings = trial.answer(odd(index, ann, 9));
            if index % 3 == 2 {
                // No batch is full: most of them have no sample, and something odd.
                rulings.extend(trial.close(true, false));
            }
            for index in errands(&rulings).into_iter().map(|errand| errand.index.0).collect::<Vec<_>>() {
                checks += 1;
                rulings.extend(trial.answer(says(index, bob, 9)));
            }
            done += released(&rulings).len() as u64;
        }
        done += released(&trial.close(true, false)).len() as u64;
        assert!(done + 3 > shards, "{done} of {shards}");
        let sampled = shards * 4 / 100;
        assert!(checks >= budget && checks <= sampled + sampled / 2 + budget, "{checks} of {shards}");
        assert_eq!(trial.docket.odd_checks, budget);
    }
}

#[test]
fn a_lie_that_a_look_finds_costs_the_budget_nothing() {
    let (ann, bob) = (party(1, "ann", Standing::Trusted), party(2, "bob", Standing::Trusted));
    let mut trial = Trial::new(VerifyClass::Standard, 1);
    for index in 0..40 {
        trial.answer(odd(index, ann, 1));
        let rulings = trial.close(true, false);
        assert_eq!(errands(&rulings).len(), 1, "{index} is checked");
        trial.answer(says(index, bob, 9));
        assert_eq!(
            refuted(&trial.answer(says(index, party(4, "operator", Standing::Trusted), 9))),
            [ann.agent]
        );
    }
    assert!(trial.docket.is_empty() && trial.docket.odd_checks == 0);
}
