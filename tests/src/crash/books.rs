//! What must hold at the end: every promise kept in the reference bytes, every bill balanced, every shard
//! paid once, one job a key, and a log that proves it.

use std::time::{Duration, Instant};

use tessera_client::api::{Hub, HubError};
use tessera_client::seals;
use tessera_protocol::api::JobState;

use super::customer::{Promised, key};
use super::jobs::Known;
use super::{Failure, Report};

/// How long a calm hub may take to end what is open.
const CALM_MAX: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(50);
/// One job in so many is submitted again under its key.
const AGAIN_ONE_IN: usize = 7;

/// Waits until every promised job has ended and counts what is lost or wrong, also in the log.
pub(super) fn audit(
    hub: &Hub,
    known: &[Known],
    promised: &[Promised],
    report: &mut Report,
) -> Result<(), Failure> {
    settle_all(hub, known, promised, report)?;
    log(hub, promised, report)
}

/// Waits until every promised job has ended and counts what is lost or wrong.
pub(crate) fn settle_all(
    hub: &Hub,
    known: &[Known],
    promised: &[Promised],
    report: &mut Report,
) -> Result<(), Failure> {
    for job in promised {
        if let Err(HubError::Refused(problem)) = hub.job(job.id)
            && problem.status == 404
        {
            report.lost.push(format!("job {} was acknowledged and is not there", job.id));
        }
    }
    // Where jobs are lost agents may be too, and nobody would end the others.
    let patience = if report.lost.is_empty() { CALM_MAX } else { Duration::from_secs(5) };
    let started = Instant::now();
    for job in promised {
        loop {
            match hub.job(job.id) {
                Ok(view) if view.state.is_open() && started.elapsed() < patience => std::thread::sleep(PAUSE),
                Ok(view) if view.state.is_open() => {
                    report.lost.push(format!("job {} has not ended: {:?}", job.id, view.waiting));
                    break;
                }
                Ok(view) => {
                    settle(hub, &known[job.known], job, &view, report)?;
                    break;
                }
                // Counted above.
                Err(HubError::Refused(problem)) if problem.status == 404 => break,
                Err(error) => return Err(Failure::Said(error.to_string())),
            }
        }
    }
    for job in promised.iter().step_by(AGAIN_ONE_IN) {
        let again = hub.submit(&known[job.known].spec, &key(job.number));
        let again = again.map_err(|error| Failure::Said(error.to_string()))?;
        if again.id != job.id {
            report.wrong.push(format!("the key of job {} makes job {} as well", job.id, again.id));
        }
    }
    Ok(())
}

fn settle(
    hub: &Hub,
    known: &Known,
    job: &Promised,
    view: &tessera_protocol::api::JobView,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut wrong = |what: String| report.wrong.push(format!("job {}: {what}", job.id));
    if view.state != JobState::Done || view.digest != Some(known.digest) {
        wrong(format!("{:?} {:?} instead of {}", view.state, view.digest, known.digest));
    }
    // Compared with the digest on its way.
    match hub.result(view) {
        Ok(_) => {}
        Err(error @ (HubError::Refused(_) | HubError::WrongDigest { .. })) => wrong(error.to_string()),
        Err(error) => return Err(Failure::Said(error.to_string())),
    }
    let bill = hub.bill(job.id).map_err(|error| Failure::Said(error.to_string()))?;
    let paid: i128 = bill.paid.iter().map(|line| line.amount.0).sum();
    let shards: u64 = bill.paid.iter().map(|line| line.earned.shards).sum();
    if !bill.closed || bill.escrow.0 != 0 || bill.held.0 != paid + bill.hub.0 + bill.refunded.0 {
        wrong(format!("the bill does not balance: {bill:?}"));
    }
    if shards != view.shards {
        wrong(format!("{shards} of {} shards are paid", view.shards));
    }
    Ok(())
}

/// The audit log is unbroken, and has each job once: no key made two.
pub(crate) fn log(hub: &Hub, promised: &[Promised], report: &mut Report) -> Result<(), Failure> {
    let (mut text, mut next) = (String::new(), Some(0));
    while let Some(from) = next {
        let page = hub.audit(from).map_err(|error| Failure::Said(error.to_string()))?;
        page.lines.iter().for_each(|line| text.extend([line, "\n"]));
        next = page.next.filter(|next| *next > from);
    }
    if let Err(error) = seals::check_log(text.as_bytes(), None) {
        report.wrong.push(format!("the audit log: {error}"));
    }
    for (kind, what) in [("job_accepted", "accepted"), ("bill_closed", "billed")] {
        let word = format!("\"kind\":\"{kind}\"");
        let found = text.lines().filter(|line| line.contains(&word)).count();
        if found != promised.len() {
            report.wrong.push(format!("{found} jobs were {what}, {} were promised", promised.len()));
        }
    }
    Ok(())
}
