//! The commands about credits: bills, providers, settlements, receipts, the audit log.

use std::path::{Path, PathBuf};

use tessera_client::api::Hub;
use tessera_client::{render, seals, settlement_csv};
use tessera_protocol::id::{Digest, JobId};
use tessera_protocol::receipt::{self, JobReceipt, ProviderReceipt, Receipt, SignedReceipt, WorkLog};
use tessera_protocol::unit::UnixMillis;

use super::args::{AuditCommand, ProviderCommand, ReceiptCommand, Settle};
use super::failure::Failure;
use super::{connect, print, show, write_file};

pub(super) fn bill(hub: &Hub, id: JobId, json: bool) -> Result<(), Failure> {
    let bill = hub.bill(id)?;
    show(json, &bill, || render::bill(&bill))
}

pub(super) fn job_receipt(hub: &Hub, id: JobId, output: Option<&Path>) -> Result<(), Failure> {
    save(&hub.receipt(id, None)?, output)
}

/// Writes bytes to a file, or to standard output.
fn save(bytes: &[u8], output: Option<&Path>) -> Result<(), Failure> {
    match output.filter(|path| *path != Path::new("-")) {
        Some(path) => write_file(path, bytes),
        None => print(bytes),
    }
}

pub(super) fn provider(hub: &Hub, command: &ProviderCommand) -> Result<(), Failure> {
    match command {
        ProviderCommand::List { json } => {
            let list = hub.providers()?;
            show(*json, &list, || render::providers(&list))
        }
        ProviderCommand::Statement { name, json } => {
            let statement = hub.statement(name)?;
            show(*json, &statement, || render::statement(&statement))
        }
        ProviderCommand::Receipts { name, output } => receipts(hub, name, output),
        ProviderCommand::Settle(command) => settle(hub, command),
    }
}

/// One file for each job that ended and that the provider worked on.
fn receipts(hub: &Hub, name: &str, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|source| Failure::Write { path: folder.to_owned(), source })?;
    let statement = hub.statement(name)?;
    for line in &statement.lines {
        let receipt = hub.receipt(line.job, Some(name))?;
        write_file(&folder.join(format!("{}.receipt.json", line.job)), &receipt)?;
    }
    print(format!("{} receipts written to {}\n", statement.lines.len(), folder.display()).as_bytes())
}

fn settle(hub: &Hub, command: &Settle) -> Result<(), Failure> {
    let settlement = match command.again {
        Some(number) => hub.settlement(number)?,
        None => hub.settle(command.until)?,
    };
    let table = settlement_csv::write(&settlement).map_err(Failure::Settlement)?;
    // Whoever pays by this file must be able to add it up; a mistake must not reach them.
    settlement_csv::add_up(&table).map_err(Failure::Settlement)?;
    save(&table, Some(&command.csv))?;
    if command.csv == Path::new("-") {
        return Ok(());
    }
    let text = format!(
        "settlement {}: {} credits to {} providers, written to {}\n",
        settlement.number,
        render::credits(settlement.total),
        settlement.statements.len(),
        command.csv.display()
    );
    print(text.as_bytes())
}

pub(super) fn receipt(command: &ReceiptCommand) -> Result<(), Failure> {
    match command {
        ReceiptCommand::Verify { file, hub_key, work_log } => {
            let signed = seals::check_receipt(&read(file)?, *hub_key).map_err(Failure::Receipt)?;
            let matched = match work_log.is_empty() {
                true => None,
                false => {
                    let log = work_of(&signed, work_log)?;
                    Some(receipt::match_lines(&signed, |index| log.digest(index)).map_err(Failure::Proof)?)
                }
            };
            print(render::receipt(&signed, hub_key.is_some(), matched).as_bytes())
        }
        ReceiptCommand::Prove { file, shard, work_log, output } => {
            let signed = seals::check_receipt(&read(file)?, None).map_err(Failure::Receipt)?;
            let log = work_of(&signed, work_log)?;
            let proof = receipt::prove(&signed, *shard, |index| log.digest(index)).map_err(Failure::Proof)?;
            let bytes = seals::receipt_bytes(&proof).map_err(Failure::Receipt)?;
            // A newer hub may have signed more than this program reads: better no proof than one of nothing.
            seals::check_receipt(&bytes, None).map_err(Failure::Receipt)?;
            save(&bytes, output.as_deref())
        }
    }
}

/// What agents computed for the job of a receipt.
fn work_of(signed: &SignedReceipt, files: &[PathBuf]) -> Result<WorkLog, Failure> {
    let (Receipt::Job(JobReceipt { job, .. }) | Receipt::Provider(ProviderReceipt { job, .. })) =
        &signed.receipt;
    let mut log = WorkLog::default();
    for path in files {
        let wrong = |error| Failure::WorkLog { path: path.clone(), error };
        log.read(&String::from_utf8_lossy(&read(path)?), *job).map_err(wrong)?;
    }
    Ok(log)
}

pub(super) fn audit(command: &AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::Export { connection, output } => {
            let log = hub_log(&connect(connection)?)?;
            save(&log, output.as_deref())
        }
        AuditCommand::Verify { file, hub_key } => verify_log(&read(file)?, *hub_key),
    }
}

fn hub_log(hub: &Hub) -> Result<Vec<u8>, Failure> {
    let (mut log, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = hub.audit(from)?;
        for line in page.lines {
            log.extend(line.into_bytes());
            log.push(b'\n');
        }
        next = page.next.filter(|next| *next > from);
    }
    Ok(log)
}

fn verify_log(log: &[u8], hub_key: Option<Digest>) -> Result<(), Failure> {
    let checked = seals::check_log(log, hub_key).map_err(Failure::Audit)?;
    let key = checked.hub_key.map_or_else(String::new, |key| key.to_string());
    let text = format!(
        "{} entries, unbroken from the first to the last; {} checkpoints, all signed by hub {key}\n{}",
        checked.entries,
        checked.checkpoints,
        match hub_key {
            Some(_) => "",
            None =>
                "the key is the one in the file: --hub-key, as the hub prints it at its start, proves which hub\n",
        }
    );
    print(text.as_bytes())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })
}

/// Reads a day as `YYYY-MM-DD`: its first moment in UTC. *Source*: Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `days_from_civil`.
pub(super) fn day(text: &str) -> Result<UnixMillis, String> {
    let wrong = || format!("`{text}` is no day: write YYYY-MM-DD, as in 2026-11-30");
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return Err(wrong()) };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return Err(wrong());
    }
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return Err(wrong()),
    };
    if year < 1970 || !(1..=days).contains(&day) {
        return Err(wrong());
    }
    // Years begin in March, so that the leap day is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Ok(UnixMillis((days - 719_468) * 86_400_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_first_moment() {
        assert_eq!(day("1970-01-01"), Ok(UnixMillis(0)));
        assert_eq!(day("2000-02-29"), Ok(UnixMillis(951_782_400_000)));
        assert_eq!(day("2026-11-21"), Ok(UnixMillis(1_795_219_200_000)));
        for wrong in ["", "2026-13-01", "2026-02-29", "2026-1-1", "1969-12-31", "2026-11-21T00", "yyyy-mm-dd"]
        {
            assert!(day(wrong).is_err(), "{wrong}");
        }
    }
}
