//! Large pages for large memory: a matrix touches a page a row, more than a processor keeps addresses of.
//!
//! Owns one piece of advice to the system, which may ignore it. No result can depend on it.

/// Asks for large pages where these bytes fill some. Best before they are first touched.
pub fn advise_large<T>(memory: &[T]) {
    #[cfg(target_os = "linux")]
    {
        let bytes = size_of_val(memory);
        if bytes < LARGE_BYTES {
            return;
        }
        let start = (memory.as_ptr() as usize).next_multiple_of(PAGE_BYTES);
        let end = (memory.as_ptr() as usize + bytes) / PAGE_BYTES * PAGE_BYTES;
        // SAFETY: whole pages of memory that is borrowed; the advice changes no byte of it. What the system
        // answers is of no use: without large pages it is only slower.
        let _ = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Of a large page on x86-64 and, as a rule, on ARM.
#[cfg(target_os = "linux")]
const LARGE_BYTES: usize = 2 << 20;
/// The largest small page of a system we know (ARM's), so that what is asked for is whole pages of each.
#[cfg(target_os = "linux")]
const PAGE_BYTES: usize = 64 << 10;
