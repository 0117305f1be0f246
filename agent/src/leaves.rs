//! Checks of a file's leaves: whether a run of it that is read back is what was stored.
//!
//! Owns one checksum for each [`LEAF_BYTES`] of a file. They are taken while the file passes by on its way to the
//! disk, when its digest is compared too: from then on they stand for it, and a run can be compared without reading the
//! rest. Against damage, not against malice: who can write to the agent's folders can change the agent.

/// What one checksum is of: as long as the shortest runs that kernels read, so that little is read in vain.
/// *Units*: bytes.
pub(crate) const LEAF_BYTES: usize = 4 << 10;

/// The checksums of a whole file: a thousandth of its length.
#[derive(Debug)]
pub(crate) struct Leaves(Box<[u32]>);

/// Those of a file that is coming.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    whole: Vec<u32>,
    leaf: crc32fast::Hasher,
    /// Bytes of the leaf that came.
    filled: usize,
}

impl Taking {
    /// Takes a piece of any length.
    pub(crate) fn push(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let (of_leaf, rest) = piece.split_at(piece.len().min(LEAF_BYTES - self.filled));
            self.leaf.update(of_leaf);
            self.filled += of_leaf.len();
            piece = rest;
            if self.filled == LEAF_BYTES {
                self.close();
            }
        }
    }

    /// All of the file came.
    pub(crate) fn finish(mut self) -> Leaves {
        if self.filled > 0 {
            self.close();
        }
        Leaves(self.whole.into_boxed_slice())
    }

    fn close(&mut self) {
        self.whole.push(std::mem::take(&mut self.leaf).finalize());
        self.filled = 0;
    }
}

impl Leaves {
    /// Whether these are the bytes of the file from a leaf on: whole leaves, but for the file's last.
    pub(crate) fn hold(&self, first: usize, bytes: &[u8]) -> bool {
        let Some(sums) = self.0.get(first..first + bytes.len().div_ceil(LEAF_BYTES)) else { return false };
        bytes.chunks(LEAF_BYTES).zip(sums).all(|(leaf, sum)| crc32fast::hash(leaf) == *sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_do_not_depend_on_how_a_file_came_and_see_every_changed_byte() {
        let file: Vec<u8> = (0..3 * LEAF_BYTES + 100).map(|at| (at * at / 7) as u8).collect();
        for piece_bytes in [1, 100, LEAF_BYTES, LEAF_BYTES + 1, file.len()] {
            let mut taking = Taking::default();
            file.chunks(piece_bytes).for_each(|piece| taking.push(piece));
            let leaves = taking.finish();
            assert_eq!(leaves.0.len(), 4);
            assert!(leaves.hold(0, &file) && leaves.hold(2, &file[2 * LEAF_BYTES..]));
            for at in [0, LEAF_BYTES - 1, LEAF_BYTES, file.len() - 1] {
                let mut damaged = file.clone();
                damaged[at] ^= 1;
                assert!(!leaves.hold(0, &damaged), "{at}");
                assert!(at >= 2 * LEAF_BYTES || leaves.hold(2, &damaged[2 * LEAF_BYTES..]));
            }
            assert!(!leaves.hold(3, &file[3 * LEAF_BYTES..file.len() - 1]), "a byte too few");
            assert!(!leaves.hold(4, b"past the end"));
        }
    }
}
