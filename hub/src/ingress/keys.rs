//! API keys: how one is made, written, read and remembered.
//!
//! Owns the text `tsk_<64 hex digits>` and its hash. The text is shown once, when the key is made;
//! only the hash is kept. May not touch a file: whoever stores hashes does.

use std::fmt;

use tessera_protocol::id::{parse_hex, write_hex};

const PREFIX: &str = "tsk_";
const SECRET_BYTES: usize = 32;

/// An API key. Prints as stars, so that it reaches no log by accident; [`ApiKey::reveal`] says it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey([u8; SECRET_BYTES]);

/// The BLAKE3 hash of a key's 32 secret bytes: all that is kept of it.
///
/// Looking it up in a map leaks nothing useful by its timing: to steer the hash, an attacker would
/// have to invert BLAKE3, and 32 random bytes need no salt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// The operating system gave no random bytes.
#[derive(Debug)]
pub struct NoEntropy(getrandom::Error);

impl ApiKey {
    /// A new key of 256 random bits.
    pub fn generate() -> Result<ApiKey, NoEntropy> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(NoEntropy)?;
        Ok(ApiKey(secret))
    }

    /// The key of 256 random bits that the caller drew.
    pub fn from_secret(secret: [u8; SECRET_BYTES]) -> ApiKey {
        ApiKey(secret)
    }

    /// Reads `tsk_` and 64 lower-case hex digits, nothing else.
    pub fn parse(text: &str) -> Option<ApiKey> {
        text.strip_prefix(PREFIX).and_then(parse_hex).map(ApiKey)
    }

    /// The text its holder passes as `Authorization: Bearer`.
    pub fn reveal(&self) -> String {
        struct Hex<'a>(&'a [u8]);
        impl fmt::Display for Hex<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, self.0)
            }
        }
        format!("{PREFIX}{}", Hex(&self.0))
    }

    /// What is kept of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash(*blake3::hash(&self.0).as_bytes())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tsk_********")
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no random bytes for a key: {}", self.0)
    }
}

impl std::error::Error for NoEntropy {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_was_shown_and_hides_in_logs() {
        let key = ApiKey::generate().unwrap();
        let text = key.reveal();
        assert_eq!(text.len(), 4 + 64);
        assert_eq!(ApiKey::parse(&text), Some(key.clone()));
        assert_eq!(ApiKey::parse(&text).unwrap().hash(), key.hash());
        assert!(!format!("{key:?}").contains(&text[4..]));
        assert_ne!(ApiKey::generate().unwrap(), key);
    }

    #[test]
    fn what_is_not_a_key_is_not_read_as_one() {
        let text = ApiKey::generate().unwrap().reveal();
        let upper = text.to_uppercase();
        for wrong in ["", "tsk_", &text[4..], &text[..67], &format!("{text}0"), &format!(" {text}"), &upper] {
            assert_eq!(ApiKey::parse(wrong), None, "{wrong:?}");
        }
    }
}
