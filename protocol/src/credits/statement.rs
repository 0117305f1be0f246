//! The arithmetic of statements: which of a provider's payments are held, lost, paid or due.
//!
//! A provider's payments are one stream in the order in which jobs ended. A removal takes the last
//! [`HELD_PAYMENTS`] shard payments before it; what is left is paid from the front, and the last
//! [`HELD_PAYMENTS`] of it wait. Within a job all shards are paid at once, so a part of them is taken as its share
//! of the job's amount, rounded up.

use alloc::vec::Vec;

use super::{Earned, Microcredits, RATE, StatementLine, Totals};
use crate::id::JobId;
use crate::limits::HELD_PAYMENTS;
use crate::unit::UnixMillis;

/// A provider's payments as they lie in the store. *Order*: by end, then job.
pub type Stream = Vec<(UnixMillis, JobId, Earned)>;

/// When an agent of the provider was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal(pub UnixMillis);

/// One line for every payment. What jobs earned that ended at `until` or later is held.
pub fn statement_lines(
    stream: &Stream,
    removals: &[Removal],
    settled: Microcredits,
    until: UnixMillis,
) -> Vec<StatementLine> {
    let mut left: Vec<Left> = stream.iter().map(|(_, _, earned)| Left::of(earned)).collect();
    let mut lines: Vec<StatementLine> = stream
        .iter()
        .map(|(ended_ms, job, earned)| StatementLine {
            job: *job,
            ended_ms: *ended_ms,
            earned: *earned,
            rate: RATE as u64,
            totals: Totals { gross: earned.amount(), ..Totals::default() },
        })
        .collect();
    for Removal(at) in removals {
        let before = stream.iter().take_while(|(ended, ..)| ended <= at).count();
        let taken = take_last(&mut left[..before], HELD_PAYMENTS);
        lines.iter_mut().zip(taken).for_each(|(line, taken)| line.totals.forfeited += taken);
    }
    let late = stream.iter().take_while(|(ended, ..)| *ended < until).count();
    for (line, left) in lines.iter_mut().zip(&mut left).skip(late) {
        line.totals.held += core::mem::take(&mut left.amount);
    }
    let after: u64 = left[late..].iter().map(|left| left.payments).sum();
    let taken = take_last(&mut left[..late], HELD_PAYMENTS.saturating_sub(after));
    lines.iter_mut().zip(taken).for_each(|(line, taken)| line.totals.held += taken);
    let mut settled = settled;
    for (line, left) in lines.iter_mut().zip(&left) {
        // What was paid and is held now, since jobs that ended earlier came in late, stays paid.
        let paid = settled.min(left.amount);
        settled -= paid;
        line.totals.settled = paid;
        line.totals.payable = left.amount - paid;
    }
    for line in lines.iter_mut() {
        let over = settled.min(line.totals.held);
        (line.totals.held, line.totals.settled) = (line.totals.held - over, line.totals.settled + over);
        settled -= over;
    }
    lines
}

/// What is left of a job's payments.
struct Left {
    payments: u64,
    amount: Microcredits,
}

impl Left {
    /// Every shard and every check is a payment.
    fn of(earned: &Earned) -> Left {
        Left { payments: earned.shards + earned.checks, amount: earned.amount() }
    }
}

/// Takes the last payments out, and says how much that is of each job.
fn take_last(left: &mut [Left], mut count: u64) -> Vec<Microcredits> {
    let mut taken: Vec<Microcredits> = left
        .iter_mut()
        .rev()
        .map(|left| {
            let payments = count.min(left.payments);
            if payments == 0 {
                return Microcredits(0);
            }
            let (part, whole) = (i128::from(payments), i128::from(left.payments));
            let amount = Microcredits((left.amount.0 * part + whole - 1) / whole);
            left.payments -= payments;
            left.amount -= amount;
            count -= payments;
            amount
        })
        .collect();
    taken.reverse();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(jobs: &[(u64, u64, i128)]) -> Stream {
        let earned = |shards, units| Earned { shards, units: Microcredits(units), ..Earned::default() };
        jobs.iter()
            .map(|(ended, shards, units)| {
                (UnixMillis(*ended), JobId::new(*ended, [0; 10]), earned(*shards, *units))
            })
            .collect()
    }

    const NEVER: UnixMillis = UnixMillis(u64::MAX);

    fn columns(lines: &[StatementLine], of: impl Fn(&Totals) -> Microcredits) -> Vec<i128> {
        for line in lines {
            assert!(line.totals.balances(), "{line:?}");
        }
        lines.iter().map(|line| of(&line.totals).0).collect()
    }

    #[test]
    fn the_last_forty_payments_wait_and_the_rest_is_due() {
        let lines = statement_lines(&stream(&[(1, 100, 1_000), (2, 30, 301)]), &[], Microcredits(0), NEVER);
        assert_eq!(columns(&lines, |totals| totals.held), [100, 301]);
        assert_eq!(columns(&lines, |totals| totals.payable), [900, 0]);
    }

    #[test]
    fn a_part_of_a_jobs_payments_is_rounded_up_for_the_hold() {
        let lines = statement_lines(&stream(&[(1, 41, 100)]), &[], Microcredits(0), NEVER);
        // 100 × 40 / 41 = 97.56
        assert_eq!(columns(&lines, |totals| totals.held), [98]);
        assert_eq!(columns(&lines, |totals| totals.payable), [2]);
    }

    #[test]
    fn what_was_settled_is_not_due_again_and_later_work_frees_the_hold() {
        let jobs = [(1, 100, 1_000), (2, 30, 300), (3, 40, 400)];
        let lines = statement_lines(&stream(&jobs), &[], Microcredits(900), NEVER);
        assert_eq!(columns(&lines, |totals| totals.settled), [900, 0, 0]);
        assert_eq!(columns(&lines, |totals| totals.payable), [100, 300, 0]);
        assert_eq!(columns(&lines, |totals| totals.held), [0, 0, 400]);
    }

    #[test]
    fn a_removal_takes_the_hold_of_its_moment_and_no_more() {
        let jobs = [(1, 100, 1_000), (2, 30, 300), (9, 50, 500)];
        let lines = statement_lines(&stream(&jobs), &[Removal(UnixMillis(5))], Microcredits(900), NEVER);
        assert_eq!(columns(&lines, |totals| totals.forfeited), [100, 300, 0]);
        assert_eq!(columns(&lines, |totals| totals.settled), [900, 0, 0]);
        assert_eq!(columns(&lines, |totals| totals.held), [0, 0, 400]);
        assert_eq!(columns(&lines, |totals| totals.payable), [0, 0, 100]);
    }

    #[test]
    fn jobs_that_ended_later_are_left_for_the_next_settlement() {
        let jobs = [(1, 100, 1_000), (2, 100, 1_000), (3, 100, 1_000)];
        let lines = statement_lines(&stream(&jobs), &[], Microcredits(0), UnixMillis(3));
        assert_eq!(columns(&lines, |totals| totals.payable), [1_000, 1_000, 0]);
        assert_eq!(columns(&lines, |totals| totals.held), [0, 0, 1_000]);
    }

    #[test]
    fn nothing_is_paid_twice_when_a_job_comes_in_with_an_earlier_end() {
        let jobs = [(1, 1, 50), (2, 100, 1_000)];
        let lines = statement_lines(&stream(&jobs), &[], Microcredits(600), NEVER);
        assert_eq!(columns(&lines, |totals| totals.settled), [50, 550]);
        let jobs = [(1, 10, 100), (2, 30, 300)];
        let lines = statement_lines(&stream(&jobs), &[], Microcredits(150), NEVER);
        assert_eq!(columns(&lines, |totals| totals.settled), [100, 50]);
        assert_eq!(columns(&lines, |totals| totals.payable), [0, 0]);
    }
}
