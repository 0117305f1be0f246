//! The hub around its pure machine: lanes, QUIC, HTTP API, journal. Carries events to the machine and
//! effects away from it; decides nothing itself and computes nothing.

pub mod accounts;
pub mod advertise;
pub mod audit;
pub mod backend;
pub mod blobs;
pub mod clients;
pub mod cluster;
pub mod config;
pub mod duties;
mod explain;
#[cfg(feature = "hasty")]
mod hasty;
pub mod ingress;
pub mod inputs;
pub mod journal;
pub mod keeper;
pub mod lane;
pub mod ops;
pub mod output;
pub mod peers;
pub mod products;
pub mod quic;
pub mod reader;
pub mod records;
pub mod retention;
pub mod runtime;
pub mod serve;
pub mod steward;
pub mod sweeper;
pub mod tracer;
