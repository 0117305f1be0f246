//! The hub around its pure machine: lanes, QUIC, HTTP API, journal. Carries events to the machine and
//! effects away from it; decides nothing itself and computes nothing.

pub mod accounts;
pub mod audit;
pub mod backend;
pub mod clients;
pub mod config;
mod explain;
pub mod ingress;
pub mod inputs;
pub mod journal;
pub mod keeper;
pub mod lane;
pub mod output;
pub mod products;
pub mod quic;
pub mod reader;
pub mod records;
pub mod runtime;
pub mod serve;
pub mod sweeper;
pub mod tracer;
