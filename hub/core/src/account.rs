//! Whom an agent belongs to, as its enrolment token says.

pub use tessera_protocol::credits::OPERATOR;
use tessera_protocol::id::ProviderId;

/// Whom an agent belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Who owns it and earns its credits.
    pub provider: ProviderId,
    /// Whether it is the operator's own, whose answers settle disputes.
    pub anchor: bool,
}

impl Account {
    /// The operator's own.
    pub fn operator() -> Account {
        Account { provider: ProviderId::of_name(OPERATOR), anchor: true }
    }

    /// A stranger's.
    pub fn of_provider(provider: ProviderId) -> Account {
        Account { provider, anchor: false }
    }
}
