//! What an operator does to a store: check it, back it up, restore it, move it to another engine.
//!
//! Reads records by the code that the hub itself reads them with. Plans, pays and sends nothing.

pub mod archive;
pub mod backup;
pub mod check;
pub mod control;
pub mod copy;
mod label;
pub mod migrate;
mod pages;
pub mod source;
