//! Both engines against the one suite, and against a model on random batches.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use tessera_storage::{
    Batch, Commit, Condition, Embedded, Engine, Expect, KeyRange, Memory, Write, conformance,
};

fn embedded(directory: &Path) -> Box<dyn Engine> {
    Box::new(Embedded::open(directory).expect("a fresh directory opens"))
}

#[test]
fn the_engine_in_memory_conforms() {
    conformance::run(&|| Box::new(Memory::new()));
}

#[test]
fn the_embedded_engine_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let next = AtomicU32::new(0);
    conformance::run(&|| {
        let name = next.fetch_add(1, Ordering::Relaxed).to_string();
        embedded(&directory.path().join(name))
    });
}

#[test]
fn an_embedded_store_keeps_what_it_was_given() {
    let directory = tempfile::tempdir().unwrap();
    conformance::survives_reopening(&|| embedded(directory.path()));
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a batch means, said again in other words than the engines'.
fn expected(model: &mut Model, batch: &Batch) -> Commit {
    for Condition { key, expect } in batch.conditions() {
        let found = model.get(key).cloned();
        let holds = match (expect, &found) {
            (Expect::Absent, None) | (Expect::Exists, Some(_)) => true,
            (Expect::Equals(wanted), Some(there)) => wanted == there,
            _ => false,
        };
        if !holds {
            return Commit::Conflict { key: key.clone(), found };
        }
    }
    for write in batch.writes() {
        match write {
            Write::Put { key, value } => drop(model.insert(key.clone(), value.clone())),
            Write::Delete { key } => drop(model.remove(key)),
            Write::DeleteRange { range } => model.retain(|key, _| !(*key >= range.start && *key < range.end)),
            Write::Add { key, amount } => {
                let mut number = model.remove(key).unwrap_or_default();
                number.resize(8, 0);
                let sum = u64::from_le_bytes(number.try_into().unwrap()).wrapping_add(*amount);
                model.insert(key.clone(), sum.to_le_bytes().to_vec());
            }
        }
    }
    Commit::Done
}

/// Few short keys, so that batches meet each other; and one below and above the others' prefix.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(b'a'..=b'c', 0..3).prop_map(|tail| [b"t/".to_vec(), tail].concat()),
        Just(b"s".to_vec()),
        Just(b"u".to_vec()),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..12),
        1 => (0..5_000usize).prop_map(|length| vec![7; length]),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), key()).prop_map(|(one, other)| KeyRange::new(one.clone().min(other.clone()), one.max(other)))
}

#[derive(Clone, Debug)]
enum Step {
    Expect(Vec<u8>, Expect),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(KeyRange),
    Add(Vec<u8>, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let expect = prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Exists),
        prop::collection::vec(any::<u8>(), 0..2).prop_map(Expect::Equals),
    ];
    prop_oneof![
        2 => (key(), expect).prop_map(|(key, expect)| Step::Expect(key, expect)),
        6 => (key(), value()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Delete),
        1 => range().prop_map(Step::DeleteRange),
        2 => (key(), any::<u64>()).prop_map(|(key, amount)| Step::Add(key, amount)),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    prop::collection::vec(step(), 0..6).prop_map(|steps| {
        let mut batch = Batch::new();
        for step in steps {
            match step {
                Step::Expect(key, expect) => batch.expect(key, expect),
                Step::Put(key, value) => batch.put(key, value),
                Step::Delete(key) => batch.delete(key),
                Step::DeleteRange(range) => batch.delete_range(range),
                Step::Add(key, amount) => batch.add(key, amount),
            };
        }
        batch
    })
}

fn contents(engine: &dyn Engine, range: &KeyRange) -> Model {
    let entries = engine.snapshot().unwrap().range(range, usize::MAX).unwrap();
    entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_do_what_the_model_does(groups in prop::collection::vec(prop::collection::vec(batch(), 1..5), 1..8)) {
        let directory = tempfile::tempdir().unwrap();
        let engines: [Box<dyn Engine>; 2] = [Box::new(Memory::new()), embedded(directory.path())];
        let everything = KeyRange::new("s", "v");
        let mut model = Model::new();
        for group in groups {
            let before: Vec<_> = engines.iter().map(|engine| engine.snapshot().unwrap()).collect();
            let old = model.clone();
            let wanted: Vec<Commit> = group.iter().map(|batch| expected(&mut model, batch)).collect();
            for (engine, before) in engines.iter().zip(before) {
                let outcomes: Vec<Commit> = engine.commit_all(group.clone()).into_iter().map(Result::unwrap).collect();
                prop_assert_eq!(&outcomes, &wanted, "{}", engine.name());
                prop_assert_eq!(&contents(&**engine, &everything), &model, "{}", engine.name());
                let unmoved: Model = before.range(&everything, usize::MAX).unwrap().into_iter().map(|entry| (entry.key, entry.value)).collect();
                prop_assert_eq!(&unmoved, &old, "{}", engine.name());
            }
        }
    }
}
