use tessera_tests::sim::{hubs, Planted};
fn main() {
    let n: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut bad = 0;
    let mut sum = [0; 4];
    for seed in 0..n {
        match hubs::run(seed, None) {
            Ok(t) => { for (s, c) in sum.iter_mut().zip([t.fenced_off, t.adopted, t.died, t.came_back]) { *s += c; } }
            Err(e) => { bad += 1; if bad < 10 { println!("{seed}: {e:?}"); } }
        }
    }
    println!("bad {bad} {sum:?}");
    for bug in [Planted::AdoptUnfenced, Planted::JudgeThroughOutages, Planted::ForgetFailedAdoptions, Planted::ServeBehindTheFence] {
        let found = (0..n).find_map(|seed| Some((seed, hubs::run(seed, Some(bug)).err()?)));
        println!("{bug:?}: {found:?}");
    }
}
