//! The gatherer: verified products of a stage in; what planners know of them out, once they are stored.
//!
//! Holds the bytes of a product until they are durable and not a moment longer. Looks into none.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use tessera_protocol::id::Digest;
use tessera_protocol::product::ProductRef;
use tessera_protocol::unit::{ShardIndex, ShardRange, Tick};

use crate::ranges::Ranges;
use crate::write::Write;

/// Bytes of products on their way to the store above which no new shards are granted.
pub const UNSTORED_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Debug)]
struct Unstored {
    product: ProductRef,
    bytes: Arc<[u8]>,
    write: Write,
}

/// The products of one stage.
#[derive(Clone, Debug, Default)]
pub struct Gatherer {
    stored: BTreeMap<ShardIndex, ProductRef>,
    unstored: BTreeMap<ShardIndex, Unstored>,
    unstored_bytes: usize,
}

impl Gatherer {
    /// Goes on from products that are durable.
    pub fn resume(stored: BTreeMap<ShardIndex, ProductRef>) -> Gatherer {
        Gatherer { stored, ..Gatherer::default() }
    }

    /// Adds a product. The caller counts each shard once.
    pub fn absorb(&mut self, index: ShardIndex, product: ProductRef, bytes: Arc<[u8]>) {
        self.unstored_bytes += bytes.len();
        self.unstored.insert(index, Unstored { product, bytes, write: Write::Idle });
    }

    /// The products that are to be stored now, each under its digest.
    pub fn to_store(&mut self, now: Tick) -> Vec<(ShardIndex, Digest, Arc<[u8]>)> {
        let due = self.unstored.iter_mut().filter(|(_, unstored)| unstored.write.may_start(now));
        due.map(|(index, unstored)| {
            unstored.write = Write::Under;
            (*index, unstored.product.blake3, unstored.bytes.clone())
        })
        .collect()
    }

    /// A product is durable, or the store refused it.
    pub fn stored(&mut self, index: ShardIndex, succeeded: bool, now: Tick) {
        if succeeded && let Some(unstored) = self.unstored.remove(&index) {
            self.unstored_bytes -= unstored.bytes.len();
            self.stored.insert(index, unstored.product);
        } else if let Some(unstored) = self.unstored.get_mut(&index) {
            unstored.write = Write::Failed(now);
        }
    }

    /// Whether every product is durable.
    pub fn is_stored(&self) -> bool {
        self.unstored.is_empty()
    }

    /// Whether the store refused a product.
    pub fn is_refused(&self) -> bool {
        self.unstored.values().any(|unstored| unstored.write.is_refused())
    }

    /// Whether so much waits for the store that nothing should be added.
    pub fn is_full(&self) -> bool {
        self.unstored_bytes >= UNSTORED_BYTES_MAX
    }

    /// Of products on their way to the store. *Units*: bytes.
    pub fn bytes(&self) -> usize {
        self.unstored_bytes
    }

    /// The products that are durable.
    pub fn products(&self) -> &BTreeMap<ShardIndex, ProductRef> {
        &self.stored
    }

    /// The shards whose products are durable.
    pub fn done(&self) -> Ranges {
        let mut done = Ranges::default();
        self.stored.keys().for_each(|index| done.insert(ShardRange::one(*index)));
        done
    }

    /// The products of the complete stage, in order. What comes now is of the next one.
    pub fn complete(&mut self) -> Vec<ProductRef> {
        core::mem::take(&mut self.stored).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn product(byte: u8) -> (ProductRef, Vec<u8>) {
        let bytes = vec![byte; 10];
        let reference =
            ProductRef { blake3: Digest::of(&bytes), bytes: 10, head: vec![byte], files: Vec::new() };
        (reference, bytes)
    }

    #[test]
    fn a_stage_is_complete_in_the_order_of_its_shards_once_everything_is_durable() {
        let mut gatherer = Gatherer::default();
        for index in [2, 0, 1] {
            let (reference, bytes) = product(index);
            gatherer.absorb(ShardIndex(u64::from(index)), reference, bytes.into());
        }
        let writes = gatherer.to_store(Tick(0));
        assert_eq!(writes.len(), 3);
        assert!(gatherer.to_store(Tick(0)).is_empty(), "each is written once");
        gatherer.stored(ShardIndex(1), false, Tick(0));
        gatherer.stored(ShardIndex(0), true, Tick(0));
        gatherer.stored(ShardIndex(2), true, Tick(0));
        assert!(!gatherer.is_stored() && gatherer.is_refused());
        assert_eq!(gatherer.done().count(), 2, "what the store refused is not done");
        assert_eq!(gatherer.to_store(Tick(5_000)).len(), 1, "and is tried again");
        gatherer.stored(ShardIndex(1), true, Tick(5_000));
        assert!(gatherer.is_stored());
        let heads: Vec<Vec<u8>> = gatherer.complete().into_iter().map(|product| product.head).collect();
        assert_eq!(heads, [[0], [1], [2]]);
    }
}
