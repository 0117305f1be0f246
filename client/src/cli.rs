//! The commands. Each reads its input, asks the hub, prints for a person or as JSON.
//!
//! Standard output carries what was asked for and nothing else; progress, notices and errors go to standard
//! error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tessera_client::api::{Hub, IdempotencyKey};
use tessera_client::config::{self, Config};
use tessera_client::render::{self, MatrixResult, StagedResult, Style};
use tessera_client::spec_file::{self, ChooseEncoder, LocalInput};
use tessera_protocol::api::{JobState, JobView};
use tessera_protocol::id::JobId;
use tessera_protocol::spec::{JobSpec, Params, video_kernel};

mod accounts;
mod args;
mod attend;
mod failure;
mod kernels;
mod matrices;
mod progress;
mod replay;
mod run;
mod uploads;

pub(crate) use args::Args;
use args::{AgentCommand, Command, Connection, JobCommand, KernelsCommand, Submit};
use attend::{Finished, attend};
use failure::Failure;
use progress::Progress;
use uploads::UploadDisplay;

/// Runs one command.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Run(command) => run::run(&command),
        Command::Submit(command) => submit(&connect(&command.connection)?, &command),
        Command::Plan { connection, file, json } => {
            let hub = connect(&connection)?;
            let (spec, files) = load(&file, None, &|opus| encoder_of(&hub, opus))?;
            upload(&hub, &spec.project, &files, json)?;
            let quote = hub.plan(&spec)?;
            show(json, &quote, || render::quote(&quote, spec.limits.cost_cap))
        }
        Command::Job { connection, command } => job(&connect(&connection)?, command),
        Command::Hubs { connection, json } => {
            let list = connect(&connection)?.hubs()?;
            show(json, &list, || render::hubs(&list))
        }
        Command::Agent { connection, command } => agent(&connect(&connection)?, &command),
        Command::Provider { connection, command } => accounts::provider(&connect(&connection)?, &command),
        Command::Receipt { command } => accounts::receipt(&command),
        Command::Audit { command } => accounts::audit(&command),
        Command::Kernels { command: KernelsCommand::Bench { json } } => kernels::bench(json),
        Command::Kernels { command: KernelsCommand::Matrix { json } } => kernels::matrix(json),
    }
}

fn agent(hub: &Hub, command: &AgentCommand) -> Result<(), Failure> {
    match command {
        AgentCommand::List { json } => {
            let list = hub.agents()?;
            show(*json, &list, || render::agents(&list))
        }
        AgentCommand::Token { provider, json } => {
            let issued = hub.issue_agent_token(provider.as_ref())?;
            show(*json, &issued, || render::token(&issued))
        }
        AgentCommand::Explain { id, json } => {
            let explained = hub.explain_agent(*id)?;
            show(*json, &explained, || render::explained_agent(&explained))
        }
    }
}

fn connect(connection: &Connection) -> Result<Hub, Failure> {
    let variable = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let config = match config::path(variable("XDG_CONFIG_HOME").as_deref(), variable("HOME").as_deref()) {
        Some(path) => config::load(&path)?,
        None => Config::default(),
    };
    let url = connection.hub.clone().or(config.hub);
    let key = match (&connection.api_key, &connection.api_key_file) {
        (Some(key), _) => Some(key.clone()),
        (None, Some(file)) => Some(config::key_in(file)?),
        (None, None) => config.api_key,
    };
    Ok(Hub::new(url.as_deref().unwrap_or(config::DEFAULT_HUB), key.as_deref())?)
}

fn submit(hub: &Hub, command: &Submit) -> Result<(), Failure> {
    let (spec, files) = load(&command.file, command.shard_size, &|opus| encoder_of(hub, opus))?;
    let key = match &command.idempotency_key {
        Some(key) => IdempotencyKey::chosen(key),
        None => IdempotencyKey::random()?,
    };
    upload(hub, &spec.project, &files, command.json)?;
    if !command.wait {
        let view = hub.submit(&spec, &key)?;
        return show(command.json, &view, || {
            format!("{}\nwatch it with `tessera job watch {}`\n", render::job(&view, style()), view.id)
        });
    }
    let finished = attend_alone(hub, move |hub| hub.submit(&spec, &key))?;
    report(&finished, command.json, None)
}

/// Sends a job's files before the job.
fn upload(hub: &Hub, project: &str, files: &[LocalInput], json: bool) -> Result<(), Failure> {
    let display = RefCell::new(UploadDisplay::new(json));
    uploads::upload(hub, project, files, &|step| display.borrow_mut().show(&step))?;
    Ok(())
}

fn job(hub: &Hub, command: JobCommand) -> Result<(), Failure> {
    match command {
        JobCommand::List { json } => {
            let list = hub.jobs()?;
            show(json, &list, || render::jobs(&list, now_ms()))
        }
        JobCommand::Show { id, json } => {
            let view = hub.job(id)?;
            show(json, &view, || render::job(&view, style()))
        }
        JobCommand::Explain { id, json } => {
            let explained = hub.explain_job(id)?;
            show(json, &explained, || render::explained_job(&explained))
        }
        JobCommand::Watch { id, json } => {
            let finished = attend_alone(hub, move |hub| hub.job(id))?;
            report(&finished, json, None)
        }
        JobCommand::Cancel { id, json } => {
            let view = hub.cancel(id)?;
            show(json, &view, || render::job(&view, style()))
        }
        JobCommand::Result { id, json, output } => {
            let view = hub.job(id)?;
            let document = hub.result(&view)?;
            if let Some(result) = StagedResult::read(&document) {
                return staged(hub, id, &document, &result, output.as_deref(), json);
            }
            match (MatrixResult::read(&document), output) {
                (Some(result), Some(path)) => {
                    matrices::save(hub, id, &result.output, &path)?;
                    if path == Path::new("-") {
                        return Ok(());
                    }
                    match json {
                        true => print(&document),
                        false => print(
                            format!("{}written to {}\n", matrix(&result, &view, None), path.display())
                                .as_bytes(),
                        ),
                    }
                }
                (Some(result), None) if !json => print(
                    format!(
                        "{}hint: `tessera job result {id} --output {}` fetches the file\n",
                        matrix(&result, &view, None),
                        result.output.name
                    )
                    .as_bytes(),
                ),
                (None, Some(path)) if path != Path::new("-") => write_file(&path, &document),
                (None, Some(_)) => print(&document),
                (_, None) if json => print(&document),
                (_, None) => print(render::result(&document, style())?.as_bytes()),
            }
        }
        JobCommand::Bill { id, json } => accounts::bill(hub, id, json),
        JobCommand::Receipt { id, output } => accounts::job_receipt(hub, id, output.as_deref()),
        JobCommand::Replay(command) => replay::replay(hub, &command),
        JobCommand::Extend { id, paths, wait, json } => {
            let key = IdempotencyKey::random()?;
            if wait {
                let finished = attend_alone(hub, move |hub| hub.extend(id, paths, &key))?;
                return report(&finished, json, None);
            }
            let view = hub.extend(id, paths, &key)?;
            show(json, &view, || render::job(&view, style()))
        }
    }
}

/// Shows the result of a job that went through stages, and fetches its files into a folder.
fn staged(
    hub: &Hub,
    id: JobId,
    document: &[u8],
    result: &StagedResult,
    folder: Option<&Path>,
    json: bool,
) -> Result<(), Failure> {
    if let Some(folder) = folder {
        matrices::save_all(hub, id, result, folder)?;
    }
    match (json, folder) {
        (true, _) => print(document),
        (false, Some(folder)) => {
            print(format!("{}files written to {}\n", result.text(style()), folder.display()).as_bytes())
        }
        (false, None) => print(
            format!(
                "{}hint: `tessera job result {id} --output FOLDER` fetches the files\n",
                result.text(style())
            )
            .as_bytes(),
        ),
    }
}

/// Loads a job file, with another cut into shards where the command line asks for one.
fn load(
    file: &Path,
    shard_size: Option<u64>,
    encoder: &ChooseEncoder<'_>,
) -> Result<(JobSpec, Vec<LocalInput>), Failure> {
    let (mut spec, files) = spec_file::load_with_files(file, encoder)?;
    if shard_size.is_some() {
        match &mut spec.params {
            Params::MonteCarlo(params) => params.shard_size = shard_size,
            Params::Gemm(_) | Params::Syrk(_) | Params::Staged(_) => return Err(Failure::ShardSize),
        }
    }
    Ok((spec, files))
}

/// The build of the encoder that most connected agents have.
fn encoder_of(hub: &Hub, opus: bool) -> Option<String> {
    let prefix = video_kernel("", opus);
    let agents = hub.agents().ok()?.agents;
    let mut builds: BTreeMap<&str, usize> = BTreeMap::new();
    for kernel in agents.iter().flat_map(|agent| &agent.kernels) {
        if let Some(build) = kernel.strip_prefix(prefix.as_str()) {
            *builds.entry(build).or_default() += 1;
        }
    }
    builds.into_iter().max_by_key(|(_, agents)| *agents).map(|(build, _)| build.to_owned())
}

/// Follows a job of a hub that this command does not supervise.
fn attend_alone(
    hub: &Hub,
    begin: impl FnOnce(&Hub) -> Result<JobView, tessera_client::api::HubError> + Send + 'static,
) -> Result<Finished, Failure> {
    let interrupted = attend::interrupts()?;
    let (happenings, inbox) = attend::channel();
    attend(hub, begin, happenings, &inbox, &interrupted, &mut Progress::new(), &mut |_| Ok(()))
}

/// A matrix job's result as text.
fn matrix(result: &MatrixResult, view: &JobView, elapsed_ms: Option<u64>) -> String {
    let of_view = view.ended_ms.map(|ended| ended.0.saturating_sub(view.created_ms.0));
    result.text(style(), elapsed_ms.or(of_view))
}

/// How many agents and lanes a local run had, and how long it took.
#[derive(Serialize)]
struct Setting {
    agents: u16,
    lanes: u16,
    elapsed_ms: u64,
}

/// Prints a finished job; a job without a result is a failure.
fn report(finished: &Finished, json: bool, setting: Option<&Setting>) -> Result<(), Failure> {
    let view = &finished.view;
    if json {
        print(document(finished, setting)?.as_bytes())?;
    } else if let Some(bytes) = &finished.document {
        let agents = setting.map(|setting| u64::from(setting.agents));
        let elapsed = setting.map(|setting| setting.elapsed_ms);
        let result = match (MatrixResult::read(bytes), StagedResult::read(bytes)) {
            (Some(result), _) => matrix(&result, view, elapsed),
            (None, Some(result)) => result.text(style()),
            (None, None) => render::result(bytes, style())?,
        };
        let text = result + "\n" + &render::summary(view, agents, elapsed);
        print(text.as_bytes())?;
    } else {
        print(render::job(view, style()).as_bytes())?;
    }
    match view.state {
        JobState::Done => Ok(()),
        _ => Err(Failure::JobNotDone(Box::new(view.clone()))),
    }
}

/// One JSON document; the result inside it has the very bytes that the digest names.
fn document(finished: &Finished, setting: Option<&Setting>) -> Result<String, Failure> {
    let result = finished.document.as_deref().map_or("null".into(), String::from_utf8_lossy);
    let mut text = format!(
        "{{\"digest\":{},\"job\":{},\"result\":{result}",
        serde_json::to_string(&finished.view.digest)?,
        serde_json::to_string(&finished.view)?,
    );
    if let Some(setting) = setting {
        let setting = serde_json::to_string(setting)?;
        text.push(',');
        text.push_str(setting.trim_start_matches('{').trim_end_matches('}'));
    }
    Ok(text + "}\n")
}

fn show<T: Serialize>(json: bool, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match json {
        true => print((serde_json::to_string(value)? + "\n").as_bytes()),
        false => print(text().as_bytes()),
    }
}

/// Writes to standard output. A reader that has seen enough is no failure.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Write { path: "standard output".into(), source })
        }
        _ => Ok(()),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|source| Failure::Write { path: path.to_owned(), source })
}

/// Bold headings for a terminal whose owner does not mind. *Source*: <https://no-color.org>.
fn style() -> Style {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Style { bold: std::io::stdout().is_terminal() && !refused }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
