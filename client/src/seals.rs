//! Checks what a hub signed, without a hub: receipts and the audit log.
//!
//! Owns the keys and trees that the protocol's checks ask for. Reads no file and asks nobody.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ring::signature::{ED25519, UnparsedPublicKey};
use sha2::Sha256;
use tessera_protocol::audit::{AuditError, Checked, Seals};
use tessera_protocol::canonical;
use tessera_protocol::id::Digest;
use tessera_protocol::receipt::{self, ReceiptError, SignedReceipt};

/// Whether an Ed25519 signature of a message is by a key.
fn verifies(key: &Digest, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

/// Checks a receipt: its form, its sums and the hub's signature, and that it is of the hub with this key.
pub fn check_receipt(bytes: &[u8], hub_key: Option<Digest>) -> Result<SignedReceipt, ReceiptError> {
    // A file that ends with a line end was saved by an editor or a shell; the receipt is the line.
    receipt::check(bytes.strip_suffix(b"\n").unwrap_or(bytes), hub_key, verifies)
}

/// A receipt as it is written to a file: in its one form.
///
/// *Errors*: a number of it is beyond 2^53 - 1, which no receipt that was checked has.
pub fn receipt_bytes(signed: &SignedReceipt) -> Result<Vec<u8>, ReceiptError> {
    canonical::to_vec(signed).map_err(|_| ReceiptError::Malformed)
}

/// Checks a log that [`Hub::audit`](crate::api::Hub::audit) gave: the chain, the checkpoints' signatures, and that
/// each is of the very entries before it.
pub fn check_log(text: &[u8], hub_key: Option<Digest>) -> Result<Checked, AuditError> {
    let (mut checked, mut tree) = (Checked::new(hub_key), Tree(MemoryBackedTree::new()));
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n');
    for (number, line) in (1..).zip(lines) {
        checked.line(line, number, &mut tree)?;
    }
    checked.end()
}

struct Tree(MemoryBackedTree<Sha256, [u8; 32]>);

impl Seals for Tree {
    fn verifies(&self, key: &Digest, message: &[u8], signature: &[u8]) -> bool {
        verifies(key, message, signature)
    }

    fn push(&mut self, leaf: &Digest) {
        self.0.push(leaf.0);
    }

    fn root(&self) -> Digest {
        let mut root = [0; 32];
        root.copy_from_slice(self.0.root().as_bytes());
        Digest(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use tessera_protocol::audit::{Checkpoint, Entry, SignedCheckpoint, signature_text};
    use tessera_protocol::unit::UnixMillis;

    fn log(entries: u64) -> (Vec<u8>, Digest) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let hub_key = Digest(pair.public_key().as_ref().try_into().unwrap());
        let (mut text, mut previous) = (Vec::new(), Digest([0; 32]));
        let mut tree = Tree(MemoryBackedTree::new());
        for number in 0..entries {
            let (time_ms, act) = (UnixMillis(number), serde_json::json!({"kind": "later"}));
            let line = Entry { number, time_ms, previous, act }.line();
            previous = Digest::of(&line);
            if (number + 1).is_multiple_of(tessera_protocol::audit::BLOCK_ENTRIES) {
                tree.push(&previous);
            }
            text.extend(line);
            text.push(b'\n');
        }
        let (root, time_ms) = (tree.root(), UnixMillis(9));
        let checkpoint = Checkpoint { entries, head: previous, root, time_ms };
        let signature = signature_text(pair.sign(&checkpoint.message()).as_ref());
        text.extend(canonical::to_vec(&SignedCheckpoint { checkpoint, hub_key, signature }).unwrap());
        text.push(b'\n');
        (text, hub_key)
    }

    #[test]
    fn a_log_of_a_newer_hub_is_checked_and_a_changed_one_is_not_believed() {
        let (text, key) = log(300);
        assert_eq!(check_log(&text, Some(key)).unwrap().entries, 300);
        assert!(check_log(&text, Some(Digest([1; 32]))).is_err());
        assert!(check_log(&[], None).is_err(), "an empty file is no log");
        let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        for (cut, what) in
            [(0, "the first"), (150, "one in the middle"), (299, "the last entry"), (300, "the seal")]
        {
            let less: Vec<u8> = [&lines[..cut], &lines[cut + 1..]].concat().concat();
            assert!(check_log(&less, None).is_err(), "{what} removed");
        }
        let mut swapped = lines.clone();
        swapped.swap(10, 11);
        assert!(check_log(&swapped.concat(), None).is_err());
        let half = &text[..text.len() / 2];
        assert!(check_log(half, None).is_err(), "truncated within a line");
    }
}
