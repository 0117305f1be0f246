//! A settlement as a table for whoever pays: one line for each job of each provider, with the arithmetic.
//!
//! Every line says `gross = units × rate + check_units × rate` and
//! `gross = forfeited + held + settled_before + payable`; each provider's lines add up to its total, and those to the
//! last line. Amounts are microcredits.

use std::fmt;

use tessera_protocol::credits::{Earned, Microcredits, Settlement, Statement, Totals};

const HEADER: [&str; 15] = [
    "settlement",
    "line",
    "provider",
    "job",
    "ended_ms",
    "shards",
    "units",
    "checks",
    "check_units",
    "rate",
    "gross",
    "forfeited",
    "held",
    "settled_before",
    "payable",
];

/// Why a table is no settlement.
#[derive(Debug)]
pub enum SettlementCsvError {
    /// It is no such table.
    Csv(csv::Error),
    /// A field is not a number or is missing.
    Field {
        /// Which line, from one, the header included.
        line: u64,
        /// Which column.
        column: &'static str,
    },
    /// The arithmetic of a line is wrong.
    DoesNotAdd {
        /// Which line, from one, the header included.
        line: u64,
    },
}

impl fmt::Display for SettlementCsvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettlementCsvError::Csv(error) => write!(f, "not a settlement: {error}"),
            SettlementCsvError::Field { line, column } => {
                write!(f, "line {line}: {column} is missing or no number")
            }
            SettlementCsvError::DoesNotAdd { line } => write!(f, "line {line} does not add up"),
        }
    }
}

impl std::error::Error for SettlementCsvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SettlementCsvError::Csv(error) => Some(error),
            SettlementCsvError::Field { .. } | SettlementCsvError::DoesNotAdd { .. } => None,
        }
    }
}

/// Writes a settlement.
pub fn write(settlement: &Settlement) -> Result<Vec<u8>, SettlementCsvError> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let number = settlement.number.to_string();
    let mut row = |fields: Vec<String>| table.write_record(fields).map_err(SettlementCsvError::Csv);
    row(HEADER.map(str::to_owned).to_vec())?;
    let mut all = (Earned::default(), Totals::default());
    for Statement { provider, lines, .. } in &settlement.statements {
        let mut of = (Earned::default(), Totals::default());
        for line in lines {
            let head = [&number, "job", provider, &line.job.to_string(), &line.ended_ms.0.to_string()];
            row(fields(head, (&line.earned, &line.totals), &line.rate.to_string()))?;
            of.0.add(&line.earned);
            of.1.add(&line.totals);
        }
        row(fields([&number, "provider", provider, "", ""], (&of.0, &of.1), ""))?;
        all.0.add(&of.0);
        all.1.add(&of.1);
    }
    row(fields([&number, "total", "", "", ""], (&all.0, &all.1), ""))?;
    table.into_inner().map_err(|error| SettlementCsvError::Csv(error.into_error().into()))
}

fn fields(head: [&str; 5], (earned, totals): (&Earned, &Totals), rate: &str) -> Vec<String> {
    let Earned { shards, units, checks, check_units } = earned;
    let Totals { gross, forfeited, held, settled, payable } = totals;
    let numbers = [shards.to_string(), units.to_string(), checks.to_string(), check_units.to_string()];
    let amounts = [gross, forfeited, held, settled, payable].map(Microcredits::to_string);
    head.map(str::to_owned).into_iter().chain(numbers).chain([rate.to_owned()]).chain(amounts).collect()
}

/// Reads a table back and adds it up again: what it pays to each provider, in its order.
pub fn add_up(table: &[u8]) -> Result<Vec<(String, Microcredits)>, SettlementCsvError> {
    let mut reader = csv::Reader::from_reader(table);
    let (mut paid, mut of, mut all) = (Vec::new(), Totals::default(), Totals::default());
    for (line, record) in (2..).zip(reader.records()) {
        let record = record.map_err(SettlementCsvError::Csv)?;
        let amount = |column: &'static str| -> Result<Microcredits, SettlementCsvError> {
            let at = HEADER.iter().position(|name| *name == column);
            let text = at.and_then(|at| record.get(at));
            text.and_then(|text| text.parse().ok()).ok_or(SettlementCsvError::Field { line, column })
        };
        let totals = Totals {
            gross: amount("gross")?,
            forfeited: amount("forfeited")?,
            held: amount("held")?,
            settled: amount("settled_before")?,
            payable: amount("payable")?,
        };
        let adds = match record.get(1) {
            Some("job") => {
                of.add(&totals);
                let worth = (amount("units")?.0 + amount("check_units")?.0) * amount("rate")?.0;
                worth == totals.gross.0
            }
            Some("provider") => {
                paid.push((record.get(2).unwrap_or_default().to_owned(), totals.payable));
                all.add(&totals);
                std::mem::take(&mut of) == totals
            }
            _ => std::mem::take(&mut all) == totals,
        };
        if !adds || !totals.balances() {
            return Err(SettlementCsvError::DoesNotAdd { line });
        }
    }
    Ok(paid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::credits::{StatementLine, statement_lines};
    use tessera_protocol::id::JobId;
    use tessera_protocol::unit::UnixMillis;

    fn statement(provider: &str, jobs: u64) -> Statement {
        let earned = |number: u64| Earned {
            shards: 30 + number,
            units: Microcredits(i128::from(u64::MAX) + i128::from(number)),
            checks: number,
            check_units: Microcredits(i128::from(number) * 7),
        };
        let stream = (1..=jobs).map(|n| (UnixMillis(n), JobId::new(n, [1; 10]), earned(n))).collect();
        let lines: Vec<StatementLine> =
            statement_lines(&stream, &[], Microcredits(1_000_000), UnixMillis(jobs + 1));
        let mut totals = Totals::default();
        lines.iter().for_each(|line| totals.add(&line.totals));
        Statement { provider: provider.to_owned(), lines, totals }
    }

    fn settlement() -> Settlement {
        let statements = vec![statement("acme", 3), statement("bolt", 5)];
        let total = statements.iter().map(|statement| statement.totals.payable).sum();
        Settlement { number: 4, made_ms: UnixMillis(9), until_ms: UnixMillis(8), total, statements }
    }

    #[test]
    fn the_table_adds_up_to_what_the_hub_paid() {
        let settlement = settlement();
        let table = write(&settlement).unwrap();
        let paid = add_up(&table).unwrap();
        let expected: Vec<(String, Microcredits)> = settlement
            .statements
            .iter()
            .map(|statement| (statement.provider.clone(), statement.totals.payable))
            .collect();
        assert_eq!(paid, expected);
        assert_eq!(paid.iter().map(|(_, amount)| *amount).sum::<Microcredits>(), settlement.total);
    }

    #[test]
    fn a_table_in_which_a_digit_was_changed_does_not_add_up() {
        let text = String::from_utf8(write(&settlement()).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for at in 1..lines.len() {
            for column in 10..15 {
                let mut fields: Vec<String> = lines[at].split(',').map(str::to_owned).collect();
                fields[column] = (fields[column].parse::<i128>().unwrap() + 1).to_string();
                let changed = fields.join(",");
                let mut table = lines.clone();
                table[at] = &changed;
                assert!(add_up(table.join("\n").as_bytes()).is_err(), "line {at} column {column}");
            }
        }
    }
}
