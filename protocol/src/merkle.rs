//! Merkle trees over what a hub holds agents to, or answers for to providers: a root, and the way from a leaf to it.
//!
//! The tree has the shape of RFC 9162 and hashes with BLAKE3. Its few lines stand here because the pure crates need
//! it without `std` and at two hashes a leaf. Knows nothing of what a leaf says.

use alloc::vec::Vec;

use crate::id::Digest;

/// What a hash is of; without it a node could pass for a leaf.
const LEAF: u8 = 0;
const NODE: u8 = 1;

/// The hash of a leaf that says all of this.
///
/// *Shape*: the parts have fixed lengths, or two leaves could say the same.
pub fn leaf(parts: &[&[u8]]) -> Digest {
    // Of what fits in one block of BLAKE3: a hasher that can take more costs as much again.
    let (mut block, mut length) = ([LEAF; 64], 1);
    if parts.iter().map(|part| part.len()).sum::<usize>() < block.len() {
        for part in parts {
            block[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        return Digest::of(&block[..length]);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[LEAF]);
    for part in parts {
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [NODE; 65];
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Digest::of(&bytes)
}

/// The level above; one that is left over stands for itself.
fn above(level: &[Digest]) -> Vec<Digest> {
    let parent = |pair: &[Digest]| match pair {
        [left, right] => node(left, right),
        alone => alone[0],
    };
    level.chunks(2).map(parent).collect()
}

/// The root over these leaves, in this order; nothing of none.
pub fn root(leaves: Vec<Digest>) -> Option<Digest> {
    let mut level = leaves;
    while level.len() > 1 {
        level = above(&level);
    }
    level.pop()
}

/// The hashes beside the way from a leaf to the root, from below; nothing where there is no such leaf.
pub fn path(leaves: Vec<Digest>, at: usize) -> Option<Vec<Digest>> {
    let (mut level, mut at) = (leaves, at);
    level.get(at)?;
    let mut path = Vec::new();
    while level.len() > 1 {
        path.extend(level.get(at ^ 1).copied());
        (level, at) = (above(&level), at / 2);
    }
    Some(path)
}

/// The root of a tree of `count` leaves that has this leaf at this place; nothing where such a tree has no such way.
pub fn climb(leaf: Digest, at: u64, count: u64, path: &[Digest]) -> Option<Digest> {
    if at >= count {
        return None;
    }
    let (mut hash, mut at, mut last) = (leaf, at, count - 1);
    let mut path = path.iter();
    while last > 0 {
        hash = match at % 2 {
            1 => node(path.next()?, &hash),
            _ if at < last => node(&hash, path.next()?),
            // It is left over.
            _ => hash,
        };
        (at, last) = (at / 2, last / 2);
    }
    path.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: u64) -> Vec<Digest> {
        (0..count).map(|number| leaf(&[&number.to_le_bytes()])).collect()
    }

    /// RFC 9162, section 2.1.1, as written there: cut at the greatest power of two below the count.
    fn by_the_book(leaves: &[Digest]) -> Digest {
        if let [leaf] = leaves {
            return *leaf;
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        node(&by_the_book(left), &by_the_book(right))
    }

    #[test]
    fn the_tree_has_the_shape_of_the_standard() {
        assert_eq!(root(Vec::new()), None);
        for count in 1..70 {
            assert_eq!(root(leaves(count)), Some(by_the_book(&leaves(count))), "of {count}");
        }
    }

    #[test]
    fn every_leaf_has_its_way_to_the_root_and_no_other_leaf_or_place_has_it() {
        for count in 1..40_u64 {
            let all = leaves(count);
            let root = root(all.clone());
            for at in 0..count {
                let way = path(all.clone(), at as usize).unwrap();
                assert_eq!(climb(all[at as usize], at, count, &way), root, "{at} of {count}");
                for other in 0..count + 2 {
                    let found = climb(all[at as usize], other, count, &way);
                    assert_eq!(found == root, other == at, "{at} of {count} at {other}");
                }
                assert_ne!(climb(leaf(&[b"other"]), at, count, &way), root);
                let longer = [&way[..], &[all[0]]].concat();
                assert_eq!(climb(all[at as usize], at, count, &longer), None);
                if let Some((_, shorter)) = way.split_last() {
                    assert_eq!(climb(all[at as usize], at, count, shorter), None);
                }
            }
            assert_eq!(path(all, count as usize), None);
        }
    }
}
