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
