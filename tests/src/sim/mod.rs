//! One simulated run: a workload on a faulty world, judged by checkers that share no code with the hub.

mod agent;
mod books;
pub mod campaign;
mod checker;
pub mod fairness;
pub mod hubs;
pub mod minimise;
mod model;
mod random;
pub mod scale;
mod store;
mod swarm;
mod toy;
mod trace;
mod workload;
mod world;

pub use checker::Violation;
pub use random::Random;
pub use swarm::{Fault, Settings};
pub use tessera_hub_core::planted::Planted;
pub use world::{Report, run};
