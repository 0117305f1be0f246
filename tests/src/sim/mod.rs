//! One simulated run: a workload on a faulty world, judged by checkers that share no code with the hub.

mod agent;
mod checker;
pub mod fairness;
mod random;
mod store;
mod toy;
mod workload;
mod world;

pub use checker::Violation;
pub use random::Random;
pub use tessera_hub_core::planted::Planted;
pub use world::{Report, Settings, run};
