//! Climate jobs from their specification to their result document and files: against the eofs package and
//! scikit-learn, over shard sizes and orders, and with files that are not what they should be.
//!
//! The numbers are those of `kernels/reference/climate.py`.

mod agreement;
mod driver;
mod files;
mod refusals;
