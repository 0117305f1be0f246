//! Benchmarks of the parts: `benches/` holds one file a question. Nothing depends on this crate.
