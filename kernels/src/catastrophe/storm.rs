//! From a recorded track to the wind field's nodes: perturbed, interpolated, decayed over land.
//!
//! Owns what a sample is. A sample is a function of the key, the storm's id and the sample's number alone: other
//! storms of a job, and how many samples there are, do not change it. It may not know a portfolio.

use tessera_protocol::catastrophe::{DecayOf, Model, Wind};
use tessera_protocol::id::Digest;

use super::land::Land;
use super::tracks::{Fix, KNOT_MS, Track};
use super::wind::{EARTH_RADIUS_M, Node, RADIANS, directions, unit_vector};
use crate::elementary::{cos, exp, inverse_normal, pow, sin};
use crate::philox::Schedule;

/// Philox stream of perturbations. Monte Carlo's count up from zero, matrices' down from the top.
const STREAM: u32 = 0xcafe_0001;
/// Rotation of the Earth. *Units*: radians a second.
const EARTH_ROTATION: f64 = 7.292_115e-5;
/// A storm's motion counts up to this. *Units*: m/s: 30 knots, as CLIMADA has it.
const MOTION_MAX: f64 = 30.0 * KNOT_MS;
/// Poles have no east.
const LATITUDE_MAX: f64 = 89.0;
const PASCAL: f64 = 100.0;

/// Inland decay. *Source*: Kaplan and DeMaria (1995), Journal of Applied Meteorology 34, 2499–2512, equations 5 and
/// 6, without the correction by distance to the coast. *Units*: m/s, 1/h.
const DECAY_BACKGROUND: f64 = 26.7 * KNOT_MS;
const DECAY_REDUCTION: f64 = 0.9;
const DECAY_RATE: f64 = 0.095;

/// Makes the wind field of one sample of a storm.
pub(super) fn nodes(
    model: &Model,
    schedule: &Schedule,
    land: &Land,
    track: &Track,
    sample: u32,
) -> Vec<Node> {
    let drawn = Drawn::of(model, schedule, &track.id, sample);
    let mut states = interpolated(&track.fixes, model.wind.step_minutes, &drawn);
    let decays = match model.decay {
        DecayOf::None => false,
        DecayOf::Perturbed => sample > 0,
        DecayOf::All => true,
    };
    if decays {
        decay(&mut states, land);
    }
    let motions = motions(&states);
    let mut nodes = Vec::with_capacity(states.len());
    for (position, (state, motion)) in states.iter().zip(motions).enumerate() {
        // Like the motion, the change of pressure looks back.
        let rise = match position.checked_sub(1).map(|last| &states[last]) {
            Some(last) => (last.deficit - state.deficit) / (state.minutes - last.minutes) * 60.0,
            None => 0.0,
        };
        nodes.push(node(&model.wind, state, motion, rise));
    }
    nodes
}

/// What a sample's track differs by.
struct Drawn {
    /// *Units*: km.
    north: f64,
    east: f64,
    /// Factors.
    wind: f64,
    radius: f64,
}

impl Drawn {
    /// The first sample of a storm is the recorded track.
    fn of(model: &Model, schedule: &Schedule, id: &str, sample: u32) -> Drawn {
        if sample == 0 {
            return Drawn { north: 0.0, east: 0.0, wind: 1.0, radius: 1.0 };
        }
        let Digest(digest) = Digest::of(id.as_bytes());
        let word =
            |at: usize| u32::from_le_bytes([digest[at], digest[at + 1], digest[at + 2], digest[at + 3]]);
        let block = u64::from(word(0)) << 32 | u64::from(sample);
        let pair = |number: u32| schedule.block(block, word(4) & !1 | number, STREAM).map(inverse_normal);
        let ([north, east], [wind, radius]) = (pair(0), pair(1));
        let spread = &model.perturbation;
        // Lognormal with mean one.
        let factor = |normal: f64, deviation: f64| exp(deviation * (normal - 0.5 * deviation));
        Drawn {
            north: north * spread.position_km,
            east: east * spread.position_km,
            wind: factor(wind, spread.intensity),
            radius: factor(radius, spread.radius),
        }
    }

    fn apply(&self, fix: &Fix) -> Fix {
        let degree_km = EARTH_RADIUS_M * RADIANS / 1000.0;
        let lat = clamped(fix.lat + self.north / degree_km, LATITUDE_MAX);
        Fix {
            lat,
            lon: fix.lon + self.east / (degree_km * cos(clamped(fix.lat, LATITUDE_MAX) * RADIANS)),
            // Wind goes with the root of the deficit, so that B stays as recorded.
            deficit: fix.deficit * self.wind * self.wind,
            wind: fix.wind * self.wind,
            radius: fix.radius * self.radius,
            ..*fix
        }
    }
}

fn clamped(value: f64, most: f64) -> f64 {
    if value > most {
        most
    } else if value < -most {
        -most
    } else {
        value
    }
}

/// Every recorded point, and others between so that no step is longer than asked.
fn interpolated(fixes: &[Fix], step: f64, drawn: &Drawn) -> Vec<Fix> {
    let mut states = vec![drawn.apply(&fixes[0])];
    for pair in fixes.windows(2) {
        let (from, to) = (drawn.apply(&pair[0]), drawn.apply(&pair[1]));
        let steps = ((to.minutes - from.minutes) / step).ceil();
        for number in 1..steps as u32 {
            let share = f64::from(number) / steps;
            let at = |from: f64, to: f64| share.mul_add(to - from, from);
            states.push(Fix {
                minutes: at(from.minutes, to.minutes),
                lat: at(from.lat, to.lat),
                lon: at(from.lon, to.lon),
                deficit: at(from.deficit, to.deficit),
                wind: at(from.wind, to.wind),
                radius: at(from.radius, to.radius),
            });
        }
        states.push(to);
    }
    states
}

/// Over land the wind is at most what decay since landfall leaves; after it the recorded winds go on with the share
/// that was left. The deficit goes with the square of the wind. A storm that begins over land has not made landfall.
fn decay(states: &mut [Fix], land: &Land) {
    let mut share = 1.0;
    // When the centre was last at sea, and with which wind.
    let mut sea: Option<(f64, f64)> = None;
    for state in states {
        let wind = state.wind * share;
        let over_land = land.is_land(state.lat, wrapped(state.lon));
        let left = match sea {
            Some((minutes, landfall)) if over_land => {
                let hours = (state.minutes - minutes) / 60.0;
                let left = (DECAY_REDUCTION * landfall - DECAY_BACKGROUND)
                    .mul_add(exp(-DECAY_RATE * hours), DECAY_BACKGROUND);
                // Decay leads down to the background, and never lifts a weaker storm up to it.
                let left = if landfall < DECAY_BACKGROUND { landfall } else { left };
                if left < wind { left } else { wind }
            }
            _ => wind,
        };
        if !over_land {
            sea = Some((state.minutes, left));
        }
        if state.wind > 0.0 {
            share = left / state.wind;
        }
        state.wind = left;
        state.deficit *= share * share;
    }
}

/// Into [-180, 180] for a map; a track may go around the world.
fn wrapped(lon: f64) -> f64 {
    let turns = ((lon + 180.0) / 360.0).floor();
    (-360.0f64).mul_add(turns, lon)
}

/// East and north, of each state from the one before, of the first to the second.
fn motions(states: &[Fix]) -> Vec<[f64; 2]> {
    let between = |from: &Fix, to: &Fix| {
        let seconds = (to.minutes - from.minutes) * 60.0;
        let middle = 0.5 * (from.lat + to.lat);
        let metres = EARTH_RADIUS_M * RADIANS / seconds;
        let [east, north] =
            [(to.lon - from.lon) * cos(middle * RADIANS) * metres, (to.lat - from.lat) * metres];
        let speed = east.mul_add(east, north * north).sqrt();
        let share = if speed > MOTION_MAX { MOTION_MAX / speed } else { 1.0 };
        [east * share, north * share]
    };
    let mut motions: Vec<[f64; 2]> = states.windows(2).map(|pair| between(&pair[0], &pair[1])).collect();
    motions.insert(0, motions[0]);
    motions
}

/// `rise` is the change of the central pressure. *Units*: m/s, hPa an hour.
fn node(wind: &Wind, state: &Fix, motion: [f64; 2], rise: f64) -> Node {
    let motion = if wind.asymmetry { motion } else { [0.0; 2] };
    let speed = motion[0].mul_add(motion[0], motion[1] * motion[1]).sqrt();
    let pascal = state.deficit * PASCAL;
    let (exponent, reduction, contained) = if wind.holland_2008 {
        (holland_2008(state.deficit, rise, state.lat, speed, wind.gradient_to_surface), 1.0, speed)
    } else {
        let above = state.wind - speed;
        let gradient = if above > 0.0 { above / wind.gradient_to_surface } else { 0.0 };
        (holland_1980(gradient, wind.air_density, pascal), wind.gradient_to_surface, 0.0)
    };
    let (east, north) = directions(state.lat, state.lon);
    Node {
        centre: unit_vector(state.lat, state.lon),
        east,
        north,
        radius: state.radius * 1000.0,
        exponent,
        strength: exponent / wind.air_density * pascal,
        half_coriolis: EARTH_ROTATION * sin(state.lat.abs() * RADIANS),
        reduction,
        contained,
        motion,
        turn: if state.lat < 0.0 { -1.0 } else { 1.0 },
    }
}

/// Holland's B from the wind at the gradient level. *Units*: m/s, kg/m³, Pa.
///
/// *Source*: Holland (1980), equations 5 and 6 solved for B, and its bounds, 1 and 2.5.
pub fn holland_1980(wind: f64, density: f64, deficit: f64) -> f64 {
    bounded(wind * wind * std::f64::consts::E * density / deficit, 1.0, 2.5)
}

/// Holland's b of surface winds. *Units*: hPa, hPa an hour, degrees, m/s.
///
/// *Source*: Holland (2008), Monthly Weather Review 136, 3432–3445, equation 11; bounds as CLIMADA's, those of 1980
/// taken down to the surface.
pub fn holland_2008(deficit: f64, rise: f64, lat: f64, speed: f64, to_surface: f64) -> f64 {
    let x = 0.6 * (1.0 - deficit / 215.0);
    let b = -4.4e-5 * (deficit * deficit) + 0.01 * deficit + 0.03 * rise - 0.014 * lat.abs()
        + 0.15 * pow(speed, x)
        + 1.0;
    let square = to_surface * to_surface;
    bounded(b, square, 2.5 * square)
}

fn bounded(value: f64, least: f64, most: f64) -> f64 {
    if value < least {
        least
    } else if value > most {
        most
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_protocol::catastrophe::{FileName, Perturbation, Tracks, Vulnerability};

    fn fix(minutes: f64, lat: f64, lon: f64, wind: f64) -> Fix {
        Fix { minutes, lat, lon, deficit: 64.0, wind, radius: 40.0 }
    }

    fn model() -> Model {
        let file = FileName { blake3: [0; 32], bytes: 0 };
        Model {
            key: [1, 2],
            samples: 10,
            tracks: Tracks {
                file,
                csv: true,
                years: None,
                storms: Vec::new(),
                annual_rate: None,
                environment_hpa: 1010.0,
                to_one_minute: 1.0,
            },
            exposure: file,
            vulnerability: Vulnerability::Curves(file),
            perturbation: Perturbation { position_km: 50.0, intensity: 0.2, radius: 0.3 },
            wind: Wind {
                holland_2008: false,
                asymmetry: true,
                reach_km: 300.0,
                least: 17.5,
                step_minutes: 60.0,
                gust_factor: 1.0,
                gradient_to_surface: 0.9,
                air_density: 1.15,
            },
            decay: DecayOf::Perturbed,
            mask: None,
        }
    }

    #[test]
    fn over_land_a_storm_decays_as_kaplan_and_demaria_say_and_goes_on_with_what_is_left() {
        // Along 27° N from the Atlantic over Florida into the Gulf: at sea, landfall at 80.03 W, at sea at 82.3 W.
        let mut states: Vec<Fix> = [-79.0, -80.0, -80.5, -81.5, -82.6, -84.0]
            .iter()
            .enumerate()
            .map(|(hour, lon)| fix(120.0 * hour as f64, 27.0, *lon, 60.0))
            .collect();
        decay(&mut states, &Land::Outline);
        let winds: Vec<f64> = states.iter().map(|state| state.wind).collect();
        // Vb = 26.7 kt = 13.7357 m/s; 0.9 · 60 − Vb = 40.2643. Last at sea at 80.0 W; 2 hours: e^−0.19 = 0.826959,
        // 47.0325; 4 hours: e^−0.38 = 0.683861, 41.2709.
        let expected = [60.0, 60.0, 47.0325, 41.2709, 41.2709, 41.2709];
        assert!(
            winds.iter().zip(expected).all(|(wind, expected)| (wind - expected).abs() < 1e-3),
            "{winds:?}"
        );
        assert!(
            states
                .iter()
                .all(|state| (state.deficit - 64.0 * (state.wind / 60.0) * (state.wind / 60.0)).abs() < 1e-9)
        );
        // A record that decays faster is left alone, and a storm that begins over land has no landfall.
        let mut faster = vec![fix(0.0, 27.0, -79.9, 60.0), fix(120.0, 27.0, -80.5, 20.0)];
        let mut inland = vec![fix(0.0, 27.0, -80.5, 60.0), fix(120.0, 27.0, -81.0, 60.0)];
        let as_recorded = (faster.clone(), inland.clone());
        decay(&mut faster, &Land::Outline);
        decay(&mut inland, &Land::Outline);
        assert_eq!((faster, inland), as_recorded);
    }

    #[test]
    fn samples_have_the_deviations_asked_for_and_winds_keep_their_mean() {
        let (model, schedule) = (model(), Schedule::new([1, 2]));
        let drawn: Vec<Drawn> =
            (1..20_000).map(|sample| Drawn::of(&model, &schedule, "AL041992", sample)).collect();
        let n = drawn.len() as f64;
        let moments = |of: &dyn Fn(&Drawn) -> f64| {
            let mean = drawn.iter().map(of).sum::<f64>() / n;
            (
                mean,
                (drawn.iter().map(|drawn| (of(drawn) - mean) * (of(drawn) - mean)).sum::<f64>() / n).sqrt(),
            )
        };
        for of in [&(|drawn: &Drawn| drawn.north) as &dyn Fn(&Drawn) -> f64, &|drawn| drawn.east] {
            let (mean, deviation) = moments(of);
            assert!(
                mean.abs() < 5.0 * 50.0 / n.sqrt()
                    && (deviation - 50.0).abs() < 5.0 * 50.0 / (2.0 * n).sqrt()
            );
        }
        // The deviation of a lognormal with mean one is √(e^σ² − 1): 0.2020 and 0.3069.
        for (of, expected) in [
            (&(|drawn: &Drawn| drawn.wind) as &dyn Fn(&Drawn) -> f64, 0.2020),
            (&|drawn| drawn.radius, 0.3069),
        ] {
            let (mean, deviation) = moments(of);
            assert!((mean - 1.0).abs() < 5.0 * expected / n.sqrt(), "{mean}");
            assert!((deviation / expected - 1.0).abs() < 0.05, "{deviation}");
        }
        let other = Drawn::of(&model, &schedule, "AL051992", 1);
        assert_ne!(other.north, drawn[0].north);
        let recorded = Drawn::of(&model, &schedule, "AL041992", 0);
        assert_eq!((recorded.north, recorded.east, recorded.wind, recorded.radius), (0.0, 0.0, 1.0, 1.0));
    }

    #[test]
    fn a_track_keeps_its_recorded_points_and_no_step_is_longer_than_asked() {
        let drawn = Drawn::of(&model(), &Schedule::new([1, 2]), "A", 0);
        let fixes =
            [fix(0.0, 20.0, 179.0, 40.0), fix(145.0, 21.0, 181.0, 50.0), fix(150.0, 21.2, 181.5, 51.0)];
        let states = interpolated(&fixes, 60.0, &drawn);
        let minutes: Vec<f64> = states.iter().map(|state| state.minutes.round()).collect();
        assert_eq!(minutes, [0.0, 48.0, 97.0, 145.0, 150.0]);
        assert!(fixes.iter().all(|fix| states.contains(fix)));
        assert!((states[1].lon - (179.0 + 2.0 / 3.0)).abs() < 1e-12);
    }

    #[test]
    fn the_strongest_wind_of_a_node_is_the_recorded_one_at_the_recorded_radius() {
        // Moving north at 5 m/s, 60 m/s at 40 km, 64 hPa: B = (55 / 0.9)² e 1.15 / 6400 = 1.824, not bounded.
        let node = node(&model().wind, &fix(0.0, 25.0, -80.0, 60.0), [0.0, 5.0], 0.0);
        assert!((node.exponent - 1.8242).abs() < 1e-3);
        let degrees = 40_000.0 / (EARTH_RADIUS_M * RADIANS);
        let at = |east: f64, north: f64| {
            let place = unit_vector(25.0 + north * degrees, -80.0 + east * degrees / cos(25.0 * RADIANS));
            super::super::wind::squared(&node, 3e5, place).sqrt()
        };
        // To the right of the motion both add; to the left they do not; Coriolis takes about 1 m/s.
        assert!((at(1.0, 0.0) - 60.0).abs() < 1.5, "{}", at(1.0, 0.0));
        assert!((at(-1.0, 0.0) - 50.0).abs() < 1.5, "{}", at(-1.0, 0.0));
    }
}
