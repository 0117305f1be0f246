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
    // Short ones are hashed in one go: a hasher costs as much as they do.
    let (mut short, mut end) = ([LEAF; 64], 1);
    for part in parts {
        let Some(room) = short.get_mut(end..end + part.len()) else { return long_leaf(parts) };
        room.copy_from_slice(part);
        end += part.len();
    }
    Digest::of(&short[..end])
}

fn long_leaf(parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[LEAF]);
    for part in parts {
        hasher.update(part);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut both = [NODE; 65];
    both[1..33].copy_from_slice(&left.0);
    both[33..].copy_from_slice(&right.0);
    Digest::of(&both)
}

/// The level above; one that is left over stands for itself.
fn above(level: &[Digest]) -> Vec<Digest> {
    let parent = |pair: &[Digest]| match pair {
        [left, right] => node(left, right),
        alone => alone[0],
    };
    level.chunks(2).map(parent).collect()
}

/// Most heights a tree can have: a level for each bit of a count.
const LEVELS_MAX: usize = u64::BITS as usize;

/// The root over these leaves, in this order; nothing of none.
pub fn root(leaves: impl IntoIterator<Item = Digest>) -> Option<Digest> {
    // Roots of whole trees, each of more leaves than the next: the bits of the count so far say of how many.
    let (mut whole, mut held, mut count) = ([Digest([0; 32]); LEVELS_MAX], 0, 0_u64);
    for leaf in leaves {
        let mut root = leaf;
        for _ in 0..count.trailing_ones() {
            held -= 1;
            root = node(&whole[held], &root);
        }
        (whole[held], held, count) = (root, held + 1, count + 1);
    }
    // What is left over on a level stands for itself until there is something on its left.
    let root = |right: Digest, left: &Digest| node(left, &right);
    let (last, before) = whole[..held].split_last()?;
    Some(before.iter().rev().fold(*last, root))
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
    fn a_leaf_is_hashed_alike_however_long_it_is_and_however_it_is_cut() {
        for length in 0..200_u8 {
            let said: Vec<u8> = (0..length).collect();
            let whole = Digest::of(&[&[LEAF], &said[..]].concat());
            for cut in [0, said.len() / 2, said.len()] {
                let (one, other) = said.split_at(cut);
                assert_eq!(leaf(&[one, other]), whole, "{length} bytes cut at {cut}");
            }
        }
    }

    #[test]
    fn the_tree_has_the_shape_of_the_standard() {
        assert_eq!(root([]), None);
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
