//! Agents, their standings, tokens and providers, and what the hub keeps for itself.

use tessera_protocol::credits::{OPERATOR, ProviderName};
use tessera_protocol::id::{AgentId, ProviderId};
use tessera_storage::{Family, Key, ReadError, Snapshot};

use super::{Advice, Report};
use crate::ops::{label, pages};
use crate::quic::Identity;
use crate::records;

/// The bytes of a digest and of a sampling key.
const SECRET_BYTES: usize = 32;
/// The bytes of a time.
const TIME_BYTES: usize = 8;

pub(super) fn check(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    hub(store, report)?;
    agents(store, report)?;
    standings(store, report)?;
    tokens(store, report)?;
    providers(store, report)?;
    removals(store, report)?;
    traces(store, report)?;
    pages::each(store, Family::ApiKeys.range(), |entry| {
        if entry.value.len() != TIME_BYTES {
            report.find(label::of_bytes(&entry.key), "it is no time", Advice::Restore);
        }
        Ok(())
    })
}

fn hub(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    match store.get(&Key::HubIdentity.encode())? {
        Some(pkcs8) => {
            if let Err(error) = Identity::from_pkcs8(&pkcs8) {
                report.find(label::of(Key::HubIdentity), error.to_string(), Advice::Restore);
            }
        }
        None => report.note("no hub has run on this store yet".to_owned()),
    }
    if store.get(&Key::HubSampling.encode())?.is_some_and(|secret| secret.len() != SECRET_BYTES) {
        report.find(label::of(Key::HubSampling), format!("it has not {SECRET_BYTES} bytes"), Advice::Restore);
    }
    // Of hubs that started one after another while others ran, the tokens of all.
    if store.get(&Key::HubStartToken.encode())?.is_some_and(|tokens| tokens.len() % SECRET_BYTES != 0) {
        let says = format!("it has not {SECRET_BYTES} bytes a token");
        report.find(label::of(Key::HubStartToken), says, Advice::Restore);
    }
    Ok(())
}

fn has_agent(store: &dyn Snapshot, agent: AgentId) -> Result<bool, ReadError> {
    Ok(store.get(&Key::Agent(agent).encode())?.is_some())
}

fn has_provider(store: &dyn Snapshot, provider: ProviderId) -> Result<bool, ReadError> {
    let named = || Ok(store.get(&Key::Provider(provider).encode())?.is_some());
    if provider == ProviderId::of_name(OPERATOR) { Ok(true) } else { named() }
}

fn agents(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Agents.range(), |entry| {
        let Ok((key @ Key::Agent(id), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let read = records::decode_agent(id, &entry.value);
        let Some(stored) = report.take(key, read, Advice::Restore)? else { return Ok(()) };
        if AgentId::of_key(&stored.public_key.0) != id {
            report.find(label::of(key), "it has the key of another agent", Advice::Restore);
        }
        let owner = stored.provider.as_ref().map(ProviderName::id);
        if owner.is_some_and(|owner| !has_provider(store, owner).unwrap_or(true)) {
            report.find(label::of(key), "its provider is not here", Advice::Restore);
        }
        Ok(())
    })
}

fn standings(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Standings.range(), |entry| {
        let Ok((key @ Key::Standing(id), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let read = records::decode_standing(&entry.value);
        let Some(record) = report.take(key, read, Advice::Restore)? else { return Ok(()) };
        if record.agent != id {
            report.find(label::of(key), format!("it is the standing of {}", record.agent), Advice::Restore);
        }
        let Some(agent) = store.get(&Key::Agent(id).encode())? else {
            report.find(label::of(key), "its agent is not here", Advice::Restore);
            return Ok(());
        };
        let owner = records::owner_of_agent(&agent).map(|owner| owner.account());
        if owner.is_some_and(|owner| (owner.provider, owner.anchor) != (record.provider, record.anchor)) {
            report.find(label::of(key), "its agent belongs to another provider", Advice::Restore);
        }
        Ok(())
    })
}

fn tokens(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Tokens.range(), |entry| {
        let name = label::of_bytes(&entry.key);
        if let Some(agent) = records::spender_of_token(&entry.value) {
            if !has_agent(store, agent)? {
                report.find(name, format!("{agent}, which it enrolled, is not here"), Advice::Restore);
            }
            return Ok(());
        }
        match records::owner_of_token(&entry.value) {
            Some(owner) if has_provider(store, owner.account().provider)? => {}
            Some(owner) => {
                report.find(name, format!("provider {} is not here", owner.name()), Advice::Restore)
            }
            None => report.find(name, "it enrols nobody and enrolled nobody", Advice::Restore),
        }
        Ok(())
    })
}

fn providers(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Providers.range(), |entry| {
        let Ok((key @ Key::Provider(id), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let name = report.take(key, records::decode_provider(id, &entry.value), Advice::Restore)?;
        if name.is_some_and(|name| name.id() != id) {
            report.find(label::of(key), "it has the name of another provider", Advice::Restore);
        }
        Ok(())
    })
}

fn removals(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Removals.range(), |entry| {
        let Ok((key @ Key::Removal { provider, .. }, _)) = Key::decode(&entry.key) else { return Ok(()) };
        let read = records::decode_removal(provider, &entry.value);
        let Some(agent) = report.take(key, read, Advice::Ledger)? else { return Ok(()) };
        if !has_agent(store, agent)? || !has_provider(store, provider)? {
            report.find(label::of(key), "its agent or provider is not here", Advice::Ledger);
        }
        Ok(())
    })
}

fn traces(store: &dyn Snapshot, report: &mut Report) -> Result<(), ReadError> {
    pages::each(store, Family::Traces.range(), |entry| {
        let Ok((key @ Key::Trace(agent), _)) = Key::decode(&entry.key) else { return Ok(()) };
        let Ok(provider) = <[u8; 16]>::try_from(entry.value) else {
            report.find(label::of(key), "it names no provider", Advice::Restore);
            return Ok(());
        };
        if !has_agent(store, agent)? || !has_provider(store, ProviderId(provider))? {
            report.find(label::of(key), "its agent or provider is not here", Advice::Restore);
        }
        Ok(())
    })
}
