//! The client's side of Tessera: job files, the HTTP API of a hub, tables for people, and a hub with
//! agents on this machine for `tessera run`.
//!
//! Decides nothing about jobs: it reads, asks, shows, supervises child processes, and computes jobs again to
//! compare.

pub mod api;
pub mod book_csv;
pub mod compute;
pub mod config;
pub mod local;
pub mod matrix_file;
pub mod render;
pub mod seals;
pub mod settlement_csv;
pub mod spec_file;
