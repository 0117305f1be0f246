//! tmp
use tessera_tests::sim::{Settings, run};
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let (mut bad, mut steps) = (0, 0);
    for seed in args[0]..args[1] {
        match std::panic::catch_unwind(|| run(seed, Settings::default())) {
            Ok(Ok(report)) => steps += report.steps,
            Ok(Err(v)) => {
                bad += 1;
                println!("seed {seed}: {v:?}")
            }
            Err(_) => {
                bad += 1;
                println!("seed {seed}: panic")
            }
        }
    }
    println!("{bad} bad, {steps} steps");
}
