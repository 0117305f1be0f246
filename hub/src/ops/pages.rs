//! Ranges walked a page at a time, by who reads other records between two entries and may stop.

use tessera_storage::{Entry, KeyRange, ReadError, Snapshot};

/// Entries read at once. *Source*: ours: at most 6.4 MB in memory.
const PAGE_ENTRIES: usize = 64;

/// Shows every entry of `range` to `visit`. *Order*: ascending by key.
pub(super) fn each(
    store: &dyn Snapshot,
    range: KeyRange,
    mut visit: impl FnMut(Entry) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut rest = range;
    loop {
        let page = store.range(&rest, PAGE_ENTRIES)?;
        let Some(last) = page.last() else { return Ok(()) };
        rest.start = after(&last.key);
        page.into_iter().try_for_each(&mut visit)?;
    }
}

/// The first key behind this one.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
