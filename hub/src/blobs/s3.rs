//! Blobs in a store that speaks as Amazon S3 does.
//!
//! Owns how its settings are read: from the `AWS_*` variables that other programs read too, such as
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION` and, for other makers, `AWS_ENDPOINT`. TLS trusts whom the
//! system trusts.

use object_store::aws::{AmazonS3, AmazonS3Builder};

/// A bucket. Nothing is asked of it yet.
pub(super) fn bucket(name: &str) -> object_store::Result<AmazonS3> {
    // Where one was chosen already, that one does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    AmazonS3Builder::from_env().with_bucket_name(name).build()
}
