//! What the store of blobs costs beside a plain copy of a file: 64 MiB in, durable, and 64 MiB out, compared with its
//! digests.

use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tessera_hub::blobs::{Blobs, Name, Place};
use tessera_protocol::id::Digest;

const PIECE_BYTES: usize = 4 << 20;
const PIECES: u64 = 16;

/// Bytes that no disk compresses.
fn file() -> Bytes {
    let mut bytes = vec![0; PIECES as usize * PIECE_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn piece(file: &Bytes, number: u64) -> Bytes {
    let start = number as usize * PIECE_BYTES;
    file.slice(start..start + PIECE_BYTES)
}

fn name(piece: u64) -> Name {
    Name { blob: Digest([7; 32]), piece }
}

/// As `cp` does, and then waits for the disk.
fn copy(from: &Path, to: &Path) {
    let (mut from, mut to) = (std::fs::File::open(from).unwrap(), std::fs::File::create(to).unwrap());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => break,
            count => to.write_all(&buffer[..count]).unwrap(),
        }
    }
    to.sync_all().unwrap();
}

fn throughput(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let file = file();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, &file).unwrap();
    let mut group = criterion.benchmark_group("blobs of 64 MiB");
    group.throughput(Throughput::Bytes(file.len() as u64)).sample_size(10);
    group.measurement_time(Duration::from_secs(8));
    group.bench_function("copy of a file, synced", |bench| {
        bench.iter(|| copy(&plain, &folder.path().join("copy")));
    });
    for (what, place) in [("files", Place::Directory(folder.path().join("blobs"))), ("memory", Place::Memory)]
    {
        let blobs = Blobs::open(&place).unwrap();
        let put = || (0..PIECES).map(|number| blobs.put(name(number), piece(&file, number)).unwrap());
        let digests: Vec<Digest> = put().collect();
        group.bench_function(format!("put in {what}"), |bench| bench.iter(|| put().for_each(drop)));
        group.bench_function(format!("get from {what}, compared"), |bench| {
            bench.iter(|| {
                for (number, digest) in (0..PIECES).zip(&digests) {
                    black_box(blobs.get(name(number), *digest).unwrap().unwrap());
                }
            });
        });
    }
    group.bench_function("read of a file", |bench| bench.iter(|| std::fs::read(black_box(&plain)).unwrap()));
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
