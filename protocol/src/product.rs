//! Products: what a shard of a staged job returns, and how later shards and clients find its files.
//!
//! Owns their encoding. A product is a head, which a planner reads, and files, which the hub only stores.
//! Products are named by the digest of their encoding, like any partial; a later shard asks for one as for
//! an input.
//!
//! The encoding, integers little-endian: version (1 byte), number of files (u16), bytes of the head (u32);
//! for each file its bytes (u64), BLAKE3 (32 bytes), bytes of its name (u8) and its name; the head; the
//! files, one after the other.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::limits;

/// What a shard of a staged job returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Product {
    /// What the planner needs to know of it. At most [`limits::HEAD_BYTES_MAX`] bytes.
    pub head: Vec<u8>,
    /// What later shards or the client need. At most [`limits::PRODUCT_FILES_MAX`], no name twice.
    pub files: Vec<File>,
}

/// One file of a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// A plain name: ASCII letters, digits, `-`, `_` and `.`, not beginning with a dot.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A product as a planner knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductRef {
    /// Of its encoding.
    pub blake3: Digest,
    /// Of its encoding.
    pub bytes: u64,
    /// Its head.
    #[serde(with = "hex")]
    pub head: Vec<u8>,
    /// Its files, in order.
    pub files: Vec<FileRef>,
}

/// Bytes in a record, as hexadecimal text: a list of numbers would be twice as long.
mod hex {
    use alloc::string::String;
    use alloc::vec::Vec;
    use core::fmt::Write;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            write!(text, "{byte:02x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        bytes.filter(|_| rest.is_empty()).ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))
    }
}

/// Where a file lies in a product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// What it is called.
    pub name: String,
    /// Where it begins. *Units*: bytes of the product's encoding.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// Of the file, as the agent says; whoever downloads it checks.
    pub blake3: Digest,
}

/// A file that a job gives its client, in its result document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What it is called.
    pub name: String,
    /// As in HTTP.
    pub media_type: String,
    /// Its length.
    pub bytes: u64,
    /// Of the whole file.
    pub blake3: Digest,
    /// Where its bytes lie, in order.
    pub parts: Vec<OutputPart>,
}

/// Consecutive bytes of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPart {
    /// Of the product's encoding.
    pub product: Digest,
    /// Of the product's encoding.
    pub product_bytes: u64,
    /// Where they begin in it.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
}

impl ProductRef {
    /// One of its files as an output of the job.
    pub fn output(&self, name: &str, media_type: &str) -> Option<Output> {
        let file = self.files.iter().find(|file| file.name == name)?;
        let part = OutputPart {
            product: self.blake3,
            product_bytes: self.bytes,
            offset: file.offset,
            bytes: file.bytes,
        };
        Some(Output {
            name: name.to_string(),
            media_type: media_type.to_string(),
            bytes: file.bytes,
            blake3: file.blake3,
            parts: alloc::vec![part],
        })
    }
}

/// A product read where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductView<'a> {
    bytes: &'a [u8],
    /// Its head.
    pub head: &'a [u8],
    /// Its files, in order.
    pub files: Vec<FileRef>,
}

/// Why bytes are no product, or a product cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductError {
    /// Too short, too long, or of another version.
    Malformed,
    /// The head, the files or their number exceed their limit.
    Limit,
    /// A file's name is no plain name, or there twice.
    Name,
}

impl fmt::Display for ProductError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProductError::Malformed => "the bytes are not a product of this version",
            ProductError::Limit => "the product's head or its files are larger than the limits allow",
            ProductError::Name => "a file of the product has no plain name of its own",
        })
    }
}

impl core::error::Error for ProductError {}

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 1 + 2 + 4;

/// Whether a file may be called so wherever it is written.
pub fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty()
        && name.len() <= limits::NAME_BYTES_MAX
        && !name.starts_with('.')
        && name.bytes().all(plain)
}

impl Product {
    /// Its wire form.
    ///
    /// *Errors*: a limit is exceeded or a name is not plain, which is the kernel's mistake.
    pub fn encode(&self) -> Result<Vec<u8>, ProductError> {
        if self.head.len() > limits::HEAD_BYTES_MAX || self.files.len() > limits::PRODUCT_FILES_MAX {
            return Err(ProductError::Limit);
        }
        let contents: usize = self.files.iter().map(|file| file.bytes.len()).sum();
        if contents > limits::PRODUCT_BYTES_MAX - (64 << 10) - limits::HEAD_BYTES_MAX {
            return Err(ProductError::Limit);
        }
        let mut out = Vec::with_capacity(FIXED_BYTES + self.files.len() * 80 + self.head.len() + contents);
        out.push(VERSION);
        out.extend_from_slice(&(self.files.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.head.len() as u32).to_le_bytes());
        for (position, file) in self.files.iter().enumerate() {
            let twice = self.files[..position].iter().any(|earlier| earlier.name == file.name);
            if twice || !is_plain_name(&file.name) {
                return Err(ProductError::Name);
            }
            out.extend_from_slice(&(file.bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(&Digest::of(&file.bytes).0);
            out.push(file.name.len() as u8);
            out.extend_from_slice(file.name.as_bytes());
        }
        out.extend_from_slice(&self.head);
        self.files.iter().for_each(|file| out.extend_from_slice(&file.bytes));
        Ok(out)
    }
}

impl<'a> ProductView<'a> {
    /// Reads bytes from outside. The digests of the files are not checked.
    pub fn decode(bytes: &'a [u8]) -> Result<ProductView<'a>, ProductError> {
        let mut rest = bytes;
        let [VERSION] = take(&mut rest)? else { return Err(ProductError::Malformed) };
        let count = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let head_bytes = u32::from_le_bytes(take(&mut rest)?) as usize;
        if count > limits::PRODUCT_FILES_MAX || head_bytes > limits::HEAD_BYTES_MAX {
            return Err(ProductError::Limit);
        }
        let mut files: Vec<FileRef> = Vec::with_capacity(count);
        for _ in 0..count {
            let length = u64::from_le_bytes(take(&mut rest)?);
            let blake3 = Digest(take(&mut rest)?);
            let [name_bytes] = take(&mut rest)?;
            let name = slice(&mut rest, usize::from(name_bytes))?;
            let name = core::str::from_utf8(name).map_err(|_| ProductError::Name)?;
            if !is_plain_name(name) || files.iter().any(|file| file.name == name) {
                return Err(ProductError::Name);
            }
            files.push(FileRef { name: name.to_string(), offset: 0, bytes: length, blake3 });
        }
        let head = slice(&mut rest, head_bytes)?;
        let mut offset = (bytes.len() - rest.len()) as u64;
        for file in &mut files {
            file.offset = offset;
            offset = offset.checked_add(file.bytes).ok_or(ProductError::Malformed)?;
        }
        if offset != bytes.len() as u64 {
            return Err(ProductError::Malformed);
        }
        Ok(ProductView { bytes, head, files })
    }

    /// The bytes of a file.
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        let file = self.files.iter().find(|file| file.name == name)?;
        // Inside, as decoding has seen to.
        self.bytes.get(file.offset as usize..)?.get(..file.bytes as usize)
    }

    /// How a planner knows it. `blake3` is of the bytes that it was read from.
    pub fn reference(&self, blake3: Digest) -> ProductRef {
        ProductRef {
            blake3,
            bytes: self.bytes.len() as u64,
            head: self.head.to_vec(),
            files: self.files.clone(),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ProductError> {
    let (first, others) = rest.split_first_chunk().ok_or(ProductError::Malformed)?;
    *rest = others;
    Ok(*first)
}

fn slice<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ProductError> {
    let (first, others) = rest.split_at_checked(length).ok_or(ProductError::Malformed)?;
    *rest = others;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn product() -> Product {
        let file = |name: &str, bytes: &[u8]| File { name: name.to_string(), bytes: bytes.to_vec() };
        Product { head: b"{}".to_vec(), files: vec![file("a.csv", b"1,2\n"), file("b", b"")] }
    }

    #[test]
    fn a_product_reads_back_as_it_was_written() {
        let bytes = product().encode().unwrap();
        let view = ProductView::decode(&bytes).unwrap();
        assert_eq!(view.head, b"{}");
        assert_eq!(
            (view.file("a.csv"), view.file("b"), view.file("c")),
            (Some(&b"1,2\n"[..]), Some(&[][..]), None)
        );
        let reference = view.reference(Digest::of(&bytes));
        let output = reference.output("a.csv", "text/csv").unwrap();
        let part = output.parts[0];
        assert_eq!(&bytes[part.offset as usize..][..part.bytes as usize], b"1,2\n");
        assert_eq!((output.blake3, part.product_bytes), (Digest::of(b"1,2\n"), bytes.len() as u64));
    }

    #[test]
    fn a_product_cut_short_or_lengthened_is_none() {
        let mut bytes = product().encode().unwrap();
        for length in 0..bytes.len() {
            assert!(ProductView::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        bytes.push(0);
        assert_eq!(ProductView::decode(&bytes), Err(ProductError::Malformed));
    }

    #[test]
    fn a_file_that_could_be_written_elsewhere_is_refused() {
        for name in ["", "../a", "a/b", ".profile", "a b", "é"] {
            let mut wrong = product();
            wrong.files[0].name = name.to_string();
            assert_eq!(wrong.encode(), Err(ProductError::Name), "{name}");
        }
        let mut twice = product();
        twice.files[1].name = "a.csv".to_string();
        assert_eq!(twice.encode(), Err(ProductError::Name));
        // From outside, too: "a.csv" becomes "../sv".
        let mut bytes = product().encode().unwrap();
        let at = bytes.windows(5).position(|window| window == b"a.csv").unwrap();
        bytes[at..at + 3].copy_from_slice(b"../");
        assert_eq!(ProductView::decode(&bytes), Err(ProductError::Name));
    }

    #[test]
    fn lengths_that_overflow_are_refused() {
        let mut bytes = product().encode().unwrap();
        bytes[FIXED_BYTES..FIXED_BYTES + 8].fill(0xff);
        assert_eq!(ProductView::decode(&bytes), Err(ProductError::Malformed));
    }
}
