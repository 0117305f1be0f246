//! The enrolment token: what an operator hands to a provider so that an agent may join a hub.
//!
//! Owns its text form. A token names the hub's key, which the agent pins, and carries a secret that
//! the hub accepts once.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;

use crate::id::{parse_hex, write_hex};

/// What a token starts with; another form takes another prefix.
const PREFIX: &str = "tsr1";
/// Hex digits after the prefix: the hub's key, then the secret.
const HEX_DIGITS: usize = 128;

/// A single-use token. Its text is `tsr1` and 128 lower-case hex digits; `Debug` hides the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// The hub's Ed25519 public key.
    pub hub_key: [u8; 32],
    /// What proves to that hub that the holder may enrol one agent.
    pub secret: [u8; 32],
}

/// What to type on the machine that computes, where the hub says that it listens at `hub`. *Order*: lines, each ended.
pub fn agent_command(hub: &str, token: &str) -> String {
    let everywhere = hub.parse().ok().filter(|at: &SocketAddr| at.ip().is_unspecified());
    match everywhere {
        Some(at) => format!(
            "  agent --hub HUB:{} --token {token}\n  where HUB is a name or an address of the hub's machine that this one can reach\n",
            at.port()
        ),
        None => format!("  agent --hub {hub} --token {token}\n"),
    }
}

/// A text that is not an enrolment token. It does not repeat the text, which may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseTokenError {
    /// How long the text was. *Units*: bytes.
    pub text_bytes: usize,
}

impl fmt::Display for ParseTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not an enrolment token: expected `{PREFIX}` and {HEX_DIGITS} lower-case hex digits ({} characters), got {}",
            PREFIX.len() + HEX_DIGITS,
            self.text_bytes
        )
    }
}

impl core::error::Error for ParseTokenError {}

impl fmt::Display for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        write_hex(f, &self.hub_key)?;
        write_hex(f, &self.secret)
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        write_hex(f, &self.hub_key)?;
        f.write_str("(secret)")
    }
}

impl FromStr for EnrolmentToken {
    type Err = ParseTokenError;
    fn from_str(text: &str) -> Result<EnrolmentToken, ParseTokenError> {
        let bytes: [u8; 64] = text
            .strip_prefix(PREFIX)
            .and_then(parse_hex)
            .ok_or(ParseTokenError { text_bytes: text.len() })?;
        let mut token = EnrolmentToken { hub_key: [0; 32], secret: [0; 32] };
        token.hub_key.copy_from_slice(&bytes[..32]);
        token.secret.copy_from_slice(&bytes[32..]);
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const TOKEN: EnrolmentToken = EnrolmentToken { hub_key: [0xab; 32], secret: [0x5e; 32] };

    #[test]
    fn an_agent_is_told_no_address_that_it_cannot_dial() {
        assert_eq!(agent_command("10.0.0.1:7843", "tsr1"), "  agent --hub 10.0.0.1:7843 --token tsr1\n");
        assert_eq!(agent_command("a:1,b:2", "tsr1"), "  agent --hub a:1,b:2 --token tsr1\n");
        for everywhere in ["0.0.0.0:7843", "[::]:7843"] {
            let said = agent_command(everywhere, "tsr1");
            assert!(said.starts_with("  agent --hub HUB:7843 --token tsr1\n  where HUB is "), "{said}");
        }
    }

    #[test]
    fn a_token_reads_back_as_it_was_written_and_not_otherwise() {
        let text = TOKEN.to_string();
        assert_eq!(text.len(), 132);
        assert!(text.starts_with("tsr1abab") && text.ends_with("5e5e"));
        assert_eq!(text.parse(), Ok(TOKEN));
        for wrong in
            [&text[1..], &text[..131], &format!("{text}0"), &text.to_uppercase(), &format!(" {text}"), ""]
        {
            let error = wrong.parse::<EnrolmentToken>().expect_err(wrong);
            assert_eq!(error.text_bytes, wrong.len());
        }
    }

    #[test]
    fn neither_debug_output_nor_an_error_shows_the_secret() {
        assert!(!format!("{TOKEN:?}").contains("5e5e"));
        let error = TOKEN.to_string()[..100].parse::<EnrolmentToken>().expect_err("cut short");
        assert!(!format!("{error} {error:?}").contains("5e5e"));
    }
}
