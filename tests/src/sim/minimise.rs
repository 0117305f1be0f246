//! A failing seed made small: what it needs to fail, and nothing else.

use super::campaign::judge;
use super::{Fault, Settings};

/// The smallest settings, tried one at a time, with which a seed still fails as it did; nothing when it does not
/// fail.
pub fn minimise(seed: u64, settings: Settings) -> Option<(Settings, String)> {
    let mut how = judge(seed, settings).err()?;
    let kind = |how: &str| how.split('(').next().map(|kind| kind.chars().take(40).collect::<String>());
    let mut best = settings;
    let attempt = |smaller: Settings, best: &mut Settings, how: &mut String| match judge(seed, smaller) {
        Err(now) if kind(&now) == kind(how) => {
            (*best, *how) = (smaller, now);
            true
        }
        Err(_) | Ok(_) => false,
    };
    loop {
        let before = best;
        for (fault, _) in Fault::ALL {
            if !best.lacks(fault) {
                attempt(best.without(fault), &mut best, &mut how);
            }
        }
        for agents_max in 1..best.agents_max.min(6) {
            if attempt(Settings { agents_max, ..best }, &mut best, &mut how) {
                break;
            }
        }
        for jobs_max in 1..best.jobs_max.min(4) {
            if attempt(Settings { jobs_max, ..best }, &mut best, &mut how) {
                break;
            }
        }
        for faults_ms_max in (0..best.faults_ms_max.min(60_000)).step_by(5_000) {
            if attempt(Settings { faults_ms_max, ..best }, &mut best, &mut how) {
                break;
            }
        }
        if best == before {
            return Some((best, how));
        }
    }
}

/// A seed and its settings as a committed case says them.
pub fn case(seed: u64, settings: Settings, why: &str) -> String {
    let off: Vec<String> = Fault::ALL
        .iter()
        .filter(|(fault, _)| settings.lacks(*fault))
        .map(|(_, name)| format!("\"{name}\""))
        .collect();
    let mut text = format!("[[case]]\nseed = {seed}\nwhy = {why:?}\n");
    if !off.is_empty() {
        text += &format!("without = [{}]\n", off.join(", "));
    }
    let whole = Settings::default();
    if settings.agents_max != whole.agents_max {
        text += &format!("agents_max = {}\n", settings.agents_max);
    }
    if settings.jobs_max != whole.jobs_max {
        text += &format!("jobs_max = {}\n", settings.jobs_max);
    }
    if settings.faults_ms_max != whole.faults_ms_max {
        text += &format!("faults_ms_max = {}\n", settings.faults_ms_max);
    }
    text
}

/// The committed cases of a file.
///
/// *Errors*: where the file does not say cases, in words.
pub fn cases(text: &str) -> Result<Vec<(u64, Settings)>, String> {
    let file: toml::Table = text.parse().map_err(|error| format!("it is no TOML: {error}"))?;
    let cases = file.get("case").and_then(toml::Value::as_array).ok_or("it has no [[case]]")?;
    cases.iter().map(read_case).collect()
}

fn read_case(case: &toml::Value) -> Result<(u64, Settings), String> {
    let number = |key: &str| -> Result<Option<u64>, String> {
        let read = |value: &toml::Value| value.as_integer().and_then(|number| u64::try_from(number).ok());
        match case.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| format!("{key} is to be a number")),
        }
    };
    let mut settings = Settings::default();
    for name in case.get("without").and_then(toml::Value::as_array).into_iter().flatten() {
        let known = Fault::ALL.iter().find(|(_, known)| name.as_str() == Some(known));
        let (fault, _) = known.ok_or_else(|| format!("{name:?} is no kind of fault"))?;
        settings = settings.without(*fault);
    }
    if let Some(agents) = number("agents_max")? {
        settings.agents_max = u8::try_from(agents).map_err(|_| "agents_max is at most 255".to_owned())?;
    }
    settings.jobs_max = number("jobs_max")?.unwrap_or(settings.jobs_max);
    settings.faults_ms_max = number("faults_ms_max")?.unwrap_or(settings.faults_ms_max);
    Ok((number("seed")?.ok_or("a case has no seed")?, settings))
}
