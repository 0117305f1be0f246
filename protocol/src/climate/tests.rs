use super::*;
use alloc::vec;

fn slab() -> Slab {
    Slab {
        offset: 100,
        counts: [2, 5],
        strides: [600, 120],
        element: Element::F32,
        big_endian: true,
        unpack: Unpack::plain(),
    }
}

fn source(byte: u8, bytes: u64) -> Source {
    Source { blake3: [byte; 32], bytes }
}

fn gram(slab: Slab) -> Task {
    let field = Field { pieces: vec![Piece { source: source(1, 1_300), slab }], cells: 30 };
    let anomalies = Anomalies { field, cells: vec![source(2, 500)] };
    Task::Gram(GramTask { anomalies, of: Side::Samples, side: 10, tile: 4 })
}

#[test]
fn a_task_reads_back_as_it_was_written_and_names_its_files_once() {
    let task = gram(slab());
    assert_eq!(Task::decode(&task.encode()), Ok(task.clone()));
    assert_eq!(task.inputs(), [([1; 32], 1_300), ([2; 32], 500)]);
    assert_eq!(task.units(), 6, "tiles of 10 rows by 4, on and below the diagonal");
    let bytes = task.encode();
    (0..bytes.len()).for_each(|cut| assert!(Task::decode(&bytes[..cut]).is_err()));
}

#[test]
fn places_that_a_file_has_not_are_refused() {
    // The last sample begins at 100 + 600 + 480 and has 120 bytes: the file ends with it.
    let wrong: [(&str, &dyn Fn(&mut Slab)); 5] = [
        ("one byte too far", &|slab| slab.offset += 1),
        ("a stride too long", &|slab| slab.strides[1] += 1),
        ("a stride that overflows", &|slab| slab.strides[0] = u64::MAX),
        ("an offset that overflows", &|slab| slab.offset = u64::MAX - 3),
        ("wider numbers", &|slab| slab.element = Element::F64),
    ];
    for (what, change) in wrong {
        let mut slab = slab();
        change(&mut slab);
        assert_eq!(Task::decode(&gram(slab).encode()), Err(TaskError::Place), "{what}");
    }
}

#[test]
fn counts_outside_the_limits_are_refused() {
    for counts in [[0, 5], [2, 0], [u64::MAX, 2], [1 << 16, 1 << 16]] {
        let wrong = Slab { counts, ..slab() };
        assert_eq!(Task::decode(&gram(wrong).encode()), Err(TaskError::Size), "{counts:?}");
    }
    let mut scaled = slab();
    scaled.unpack.scale = f64::NAN;
    assert_eq!(Task::decode(&gram(scaled).encode()), Err(TaskError::Size));
}

#[test]
fn the_first_of_equal_peaks_decides() {
    let peak = |loading, cell| Peak { loading, cell };
    assert_eq!(peak(0.5, 1).or(peak(-0.5, 2)), peak(0.5, 1));
    assert_eq!(peak(0.5, 1).or(peak(-0.6, 2)), peak(-0.6, 2));
}

#[test]
fn heads_read_back_and_longer_ones_than_planners_take_do_not() {
    let head = Head::Refused("the file is cut short".into());
    assert_eq!(Head::decode(&head.encode()), Ok(head));
    assert_eq!(Head::decode(&vec![0; limits::HEAD_BYTES_MAX + 1]), Err(TaskError::Size));
    assert_eq!(Head::decode(b"no head"), Err(TaskError::Malformed));
}
