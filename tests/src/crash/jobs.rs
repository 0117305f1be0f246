//! Small jobs and the bytes that each must give, computed here without a hub.

use std::io;
use std::sync::atomic::AtomicBool;

use tessera_client::compute::{NoInputs, Order, Path, Setting, compute};
use tessera_client::spec_file::parse_toml;
use tessera_protocol::id::Digest;
use tessera_protocol::spec::JobSpec;

use super::Failure;

/// Jobs that differ in more than their keys.
const BOOKS: u64 = 12;
const PRODUCTS: u64 = 2;
/// Books of many paths, and how many those are.
const LONG: u64 = 3;
const LONG_PATHS: u64 = 60_000;

/// A job and the digest of its result document.
pub(crate) struct Known {
    pub(crate) spec: JobSpec,
    pub(crate) digest: Digest,
}

/// The jobs of which all are submitted: many small books in tiny shards, and a few products of matrices.
pub(crate) fn known(seed: u64) -> Result<Vec<Known>, Failure> {
    let books =
        (0..BOOKS).map(|number| book(seed + number, 2_000 + 500 * (number % 4), 100 + 50 * (number % 3)));
    let products = (0..PRODUCTS).map(|number| product(seed + number, 48 + 16 * number));
    books.chain(products).map(|text| of(&text)).collect()
}

/// Jobs that take seconds.
pub(crate) fn long(seed: u64) -> Result<Vec<Known>, Failure> {
    let books = (0..LONG).map(|number| book(seed + number, LONG_PATHS, 50));
    books.chain([product(seed, 256)]).map(|text| of(&text)).collect()
}

fn book(seed: u64, paths: u64, shard: u64) -> String {
    format!(
        "name = \"book\"\nworkload = \"monte_carlo\"\nseed = {seed}\n[params]\nmodel = \"gbm\"\npaths = {paths}\n\
         shard_size = {shard}\n[[params.book]]\nid = \"call\"\nkind = \"european_call\"\nunderlying = \"ACME\"\n\
         spot = 100\nstrike = 105\nrate = 0.04\nvolatility = 0.2\nexpiry = 1.0\n"
    )
}

fn product(seed: u64, side: u64) -> String {
    format!(
        "name = \"product\"\nworkload = \"gemm\"\nseed = {seed}\n[params]\ndtype = \"f64\"\ntile = [16, 16]\n\
         a = {{ random = \"uniform\", rows = {side}, cols = 32 }}\n\
         b = {{ random = \"uniform\", rows = 32, cols = {side} }}\n"
    )
}

fn of(text: &str) -> Result<Known, Failure> {
    let said = |error: &dyn std::fmt::Display| Failure::Said(format!("a job of this test: {error}"));
    let mut no_file = |_: &str| Err(io::Error::other("these jobs have no files"));
    let spec = parse_toml(text, "job", &mut no_file).map_err(|error| said(&error))?;
    let manifest = spec.clone().check().map_err(|error| said(&error))?;
    let path = *Path::available().first().ok_or_else(|| said(&"no kernel runs here"))?;
    let setting = Setting { path, agents: 1, order: Order::Ascending };
    let stop = AtomicBool::new(false);
    let document = compute(&manifest, &setting, &NoInputs, &mut |_| {}, &|_, _| {}, &stop);
    let document = document.map_err(|error| said(&error))?;
    Ok(Known { spec, digest: Digest::of(&document) })
}
