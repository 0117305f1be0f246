//! Files that numpy wrote, read in one piece and byte by byte.

use std::path::Path;

use tessera_kernels::matrix::Matrix;
use tessera_kernels::matrix::npy::{Header, NpyError, Reader};
use tessera_protocol::spec::Dtype;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npy").join(name)).expect("a file")
}

fn read(bytes: &[u8], piece: usize) -> Result<Matrix, NpyError> {
    let mut reader = Reader::keeping(bytes.len() as u64);
    for piece in bytes.chunks(piece) {
        reader.push(piece)?;
    }
    reader.matrix()
}

fn survey(bytes: &[u8]) -> Result<Header, NpyError> {
    let mut reader = Reader::surveying(bytes.len() as u64);
    reader.push(bytes)?;
    reader.survey()
}

#[test]
fn matrices_of_either_order_type_and_version_are_read_whatever_the_pieces() {
    let header = Header { dtype: Dtype::F64, rows: 2, cols: 3, fortran: false };
    for (name, expected) in [
        ("c.npy", header),
        ("version_2.npy", header),
        ("fortran.npy", Header { fortran: true, ..header }),
        ("f4.npy", Header { dtype: Dtype::F32, ..header }),
    ] {
        let bytes = file(name);
        assert_eq!(survey(&bytes).expect(name), expected);
        let whole = read(&bytes, usize::MAX).expect(name);
        assert_eq!((whole.dtype(), whole.shape()), (expected.dtype, [2, 3]), "{name}");
        for piece in [1, 3, 7, 64, 130] {
            assert_eq!(read(&bytes, piece).expect(name), whole, "{name} in pieces of {piece}");
        }
    }
    assert_eq!(read(&file("c.npy"), 9).expect("c"), read(&file("version_2.npy"), 9).expect("version 2"));
}

#[test]
fn what_is_no_matrix_of_a_job_is_refused_with_what_to_do() {
    for (name, said) in [
        ("make.py", "not a .npy file: write it with numpy.save"),
        ("big_endian.npy", "big-endian elements (>f8): convert them with `.astype('<f8')` before saving"),
        ("integers.npy", "elements of type <i8: f32 (`.astype('<f4')`) and f64 (`.astype('<f8')`) are taken"),
        ("objects.npy", "an array of Python objects: convert it with `.astype('<f8')` before saving it"),
        (
            "record.npy",
            "elements of type [('x', '<f8'), ('y', '<f8'), ]: f32 (`.astype('<f4')`) and f64 (`.astype('<f8')`) are taken",
        ),
        ("vector.npy", "an array of 1 dimensions: a matrix has 2; see numpy.reshape"),
        ("cube.npy", "an array of 3 dimensions: a matrix has 2; see numpy.reshape"),
        ("empty.npy", "0 x 3 elements: sides are 1 to 131072, and a matrix has at most 17179803648 bytes"),
        (
            "absurd.npy",
            "1099511627776 x 8 elements: sides are 1 to 131072, and a matrix has at most 17179803648 bytes",
        ),
        ("nan.npy", "entry [1, 0] is NaN or infinite: every entry must be finite"),
        ("infinite_fortran.npy", "entry [0, 2] is NaN or infinite: every entry must be finite"),
        ("truncated.npy", "truncated: it has 173 bytes, and its header says 176"),
        ("truncated_header.npy", "truncated: it ends inside its header, after 40 bytes"),
        ("trailing.npy", "1 bytes follow the last element"),
    ] {
        let bytes = file(name);
        assert_eq!(survey(&bytes).expect_err(name).to_string(), said);
        assert_eq!(read(&bytes, 5).expect_err(name).to_string(), said, "{name} in pieces");
    }
    assert!(matches!(survey(&[]), Err(NpyError::NotNpy)));
}

#[test]
fn headers_made_to_exhaust_the_reader_are_refused_before_it_sees_them() {
    let with = |version: u8, text: &[u8]| {
        let length = text.len() as u32;
        let prefix = if version == 1 { &length.to_le_bytes()[..2] } else { &length.to_le_bytes()[..] };
        [&[b"\x93NUMPY", &[version, 0][..]].concat(), prefix, text].concat()
    };
    let deep = with(1, &[b'('; 60_000]);
    let overflowing =
        with(1, b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 9999999999), }");
    let hexadecimal =
        with(1, b"{'descr': '<f8', 'fortran_order': False, 'shape': (0xffffffffff, 0xfffffff), }");
    let mut long = with(2, b"");
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    for bytes in [deep, overflowing, hexadecimal, long] {
        assert!(matches!(survey(&bytes), Err(NpyError::HeaderTooLarge)), "{:?}", survey(&bytes));
    }
    assert!(matches!(survey(&with(4, b"")), Err(NpyError::Version { found: [4, 0] })));
    assert!(matches!(survey(&with(1, b"{}")), Err(NpyError::Header { .. })));
}

#[test]
fn a_file_that_is_longer_or_shorter_than_it_was_said_to_be_is_refused() {
    let bytes = file("c.npy");
    let mut reader = Reader::keeping(bytes.len() as u64);
    reader.push(&bytes).expect("a matrix");
    reader.push(&[0]).expect("nothing to say yet");
    assert!(matches!(reader.matrix(), Err(NpyError::Trailing { bytes: 177, expected: 176 })));
    let mut reader = Reader::surveying(bytes.len() as u64);
    reader.push(&bytes[..170]).expect("a part");
    assert!(matches!(reader.survey(), Err(NpyError::Truncated { bytes: 170, expected: Some(176) })));
}
