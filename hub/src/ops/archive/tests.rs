//! A backup reads back, and no byte of it can be another, missing or too many.

use super::*;

const HEAD: Head = Head { format: 1, made_ms: 0x0102_0304_0506 };

fn entries(count: u32, value_bytes: usize) -> Vec<Entry> {
    let entry =
        |number: u32| Entry { key: number.to_be_bytes().to_vec(), value: vec![number as u8; value_bytes] };
    (0..count).map(entry).collect()
}

fn write(entries: &[Entry]) -> (Vec<u8>, Summary) {
    let mut writer = Writer::begin(Vec::new(), HEAD).unwrap();
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    writer.end().unwrap()
}

fn read(bytes: &[u8]) -> Result<(Vec<Entry>, Summary), ArchiveError> {
    let mut reader = Reader::begin(bytes)?;
    assert_eq!(reader.head(), HEAD);
    let mut found = Vec::new();
    while let Some(entry) = reader.entry()? {
        found.push(entry);
    }
    Ok((found, reader.summary().unwrap()))
}

#[test]
fn a_backup_of_any_size_reads_back_entry_for_entry() {
    for (count, value_bytes) in [(0, 0), (1, 0), (3, 100_000), (70, 65_008), (5_000, 300)] {
        let entries = entries(count, value_bytes);
        let (bytes, written) = write(&entries);
        let (found, summary) = read(&bytes).unwrap();
        assert!(found == entries, "{count} entries of {value_bytes} bytes");
        assert_eq!((written, written.bytes), (summary, bytes.len() as u64));
        assert_eq!(Reader::begin(&bytes[..]).unwrap().verify().unwrap(), summary);
    }
}

#[test]
fn the_bytes_of_layout_1_stay_as_they_are() {
    let (bytes, _) = write(&entries(2, 3));
    assert_eq!(bytes.len(), HEAD_BYTES + 32 + 4 + 32 + 2 * (8 + 4 + 3) + 4 + 8 + 32);
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "82dffb07b59ac554c3657350666f9bde89de48246c74da53359e4824530f02cb",
        "a reader of layout 1 must read it: change it only with the version"
    );
}

#[test]
fn no_byte_can_be_changed_cut_off_or_added_unnoticed() {
    let (bytes, _) = write(&entries(40, 50));
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x40;
        assert!(read(&altered).is_err(), "byte {at} is another");
        assert!(read(&bytes[..at]).is_err(), "cut off at {at}");
    }
    let more = [&bytes[..], &[0]].concat();
    assert!(matches!(read(&more), Err(ArchiveError::EndAltered { .. })));
}

#[test]
fn it_says_which_block_was_altered_or_where_it_was_cut_off() {
    let (bytes, _) = write(&entries(60, 65_000));
    let block = 17 * (8 + 4 + 65_000) + 36;
    let mut altered = bytes.clone();
    altered[HEAD_BYTES + 32 + block + 1_000] ^= 1;
    let error = read(&altered).unwrap_err();
    assert!(matches!(error, ArchiveError::BlockAltered { block: 1 }), "{error}");
    let error = read(&bytes[..HEAD_BYTES + 32 + 2 * block + 7]).unwrap_err();
    assert_eq!(error.to_string(), "it was cut off behind block 2; take another backup, or copy it again");
    // Two blocks that changed places.
    let blocks = &bytes[HEAD_BYTES + 32..];
    let swapped =
        [&bytes[..HEAD_BYTES + 32], &blocks[block..2 * block], &blocks[..block], &blocks[2 * block..]];
    assert!(matches!(read(&swapped.concat()), Err(ArchiveError::BlockAltered { block: 0 })));
}

#[test]
fn a_file_that_is_no_backup_or_a_newer_one_is_told_apart() {
    assert!(matches!(read(b""), Err(ArchiveError::NotABackup)));
    assert!(matches!(read(&[7; 4_096]), Err(ArchiveError::NotABackup)));
    let (mut bytes, _) = write(&[]);
    bytes[19] = 2;
    assert!(matches!(read(&bytes), Err(ArchiveError::Newer { found: 2 })));
}
