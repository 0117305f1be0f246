//! The wind of a storm: Holland's profile turned around a moving centre, at one point or over a portfolio.
//!
//! Owns the arithmetic of one (node, point) pair, in [`squared`], and the loop over all of them. Its operations have
//! one order, the same in a vector lane, alone, and on other hardware. It may not know what stands at a point.
//!
//! Points and centres are unit vectors, so that no meridian is special: the date line is a line like any other.

use crate::elementary::{cos, exp_core, log_core, sin};
use crate::isa::for_each_isa;

/// The Earth as a sphere. *Units*: metres. *Source*: IUGG mean radius R₁.
pub const EARTH_RADIUS_M: f64 = 6_371_008.8;
/// *Units*: radians in a degree.
pub(super) const RADIANS: f64 = 0.017_453_292_519_943_295;
/// Closer to the centre there is no direction and no wind. *Units*: metres.
const CENTRE_M: f64 = 1.0;
/// Points that are skipped together where a storm is far.
pub const BLOCK: usize = 256;

/// A storm's wind field at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Node {
    /// The centre as a unit vector.
    pub centre: [f64; 3],
    /// Unit vector to the east there; its third part is zero.
    pub east: [f64; 2],
    /// Unit vector to the north there.
    pub north: [f64; 3],
    /// Radius of the strongest wind. *Units*: metres.
    pub radius: f64,
    /// Holland's B.
    pub exponent: f64,
    /// `B Δp / ρ`. *Units*: m²/s².
    pub strength: f64,
    /// Half of the Coriolis parameter, not negative. *Units*: 1/s.
    pub half_coriolis: f64,
    /// Multiplies the profile: from the level it is of to the surface.
    pub reduction: f64,
    /// What of the storm's speed is in the profile already. *Units*: m/s.
    pub contained: f64,
    /// Motion to the east and north. *Units*: m/s.
    pub motion: [f64; 2],
    /// One where winds turn to the left of outward, minus one in the south.
    pub turn: f64,
}

/// A place's unit vector.
pub fn unit_vector(lat: f64, lon: f64) -> [f64; 3] {
    let (lat, lon) = (lat * RADIANS, lon * RADIANS);
    let ring = cos(lat);
    [ring * cos(lon), ring * sin(lon), sin(lat)]
}

/// Unit vectors to the east and to the north of a place.
pub(super) fn directions(lat: f64, lon: f64) -> ([f64; 2], [f64; 3]) {
    let (lat, lon) = (lat * RADIANS, lon * RADIANS);
    let (sin_lat, sin_lon, cos_lon) = (sin(lat), sin(lon), cos(lon));
    ([-sin_lon, cos_lon], [-(sin_lat * cos_lon), -(sin_lat * sin_lon), cos(lat)])
}

/// Wind around the centre at a distance in metres, motion not counted. *Units*: m/s.
///
/// *Source*: Holland (1980), Monthly Weather Review 108, 1212–1218, equations 4 and 6.
#[inline(always)]
pub fn profile(node: &Node, distance: f64) -> f64 {
    let power = exp_core(node.exponent * log_core(node.radius / distance, 0.0));
    // Beyond, the product with the exponential is nothing beside a wind, and the core does not hold.
    let capped = if power < 700.0 { power } else { 700.0 };
    let turning = node.half_coriolis * distance;
    let under_root = (node.strength * power).mul_add(exp_core(-capped), turning * turning);
    node.reduction * (under_root.sqrt() - turning)
}

/// Angle of which `sine` is the sine, to 1e-13 of itself up to 0.16 radians.
#[inline(always)]
fn arc(sine: f64, square: f64) -> f64 {
    const C: [f64; 6] =
        [1.0 / 6.0, 3.0 / 40.0, 15.0 / 336.0, 105.0 / 3456.0, 945.0 / 42240.0, 10395.0 / 599_040.0];
    let mut series = C[5];
    series = series.mul_add(square, C[4]);
    series = series.mul_add(square, C[3]);
    series = series.mul_add(square, C[2]);
    series = series.mul_add(square, C[1]);
    series = series.mul_add(square, C[0]);
    (sine * square).mul_add(series, sine)
}

/// A point as the centre sees it. All but the distance are zero where no wind reaches, and so is then the wind.
#[derive(Clone, Copy)]
struct Seen {
    /// *Units*: metres. Where no wind reaches, a harmless number.
    distance: f64,
    /// East and north parts of the direction.
    east: f64,
    north: f64,
    /// What of the storm's motion is added.
    share: f64,
}

/// The storm's motion is added in full inside the radius of the strongest wind, outside by the ratio of that radius
/// to the distance. *Source*: Mouton and Nordbeck (2005), Cyclone Database Manager, UNEP/GRID-Geneva, figure 7.
#[inline(always)]
fn seen(node: &Node, reach: f64, [x, y, z]: [f64; 3]) -> Seen {
    let up = node.centre[2].mul_add(z, node.centre[1].mul_add(y, node.centre[0] * x));
    let east = node.east[1].mul_add(y, node.east[0] * x);
    let north = node.north[2].mul_add(z, node.north[1].mul_add(y, node.north[0] * x));
    let square = east.mul_add(east, north * north);
    let sine = square.sqrt();
    let distance = EARTH_RADIUS_M * arc(sine, square);
    let ratio = node.radius / distance;
    let share = if ratio < 1.0 { ratio } else { 1.0 };
    let near = (up > 0.0) & (distance <= reach) & (distance > CENTRE_M);
    let scale = if near { 1.0 / sine } else { 0.0 };
    Seen {
        distance: if near { distance } else { reach },
        east: east * scale,
        north: north * scale,
        share: if near { share } else { 0.0 },
    }
}

/// The square of the wind from the wind around the centre.
#[inline(always)]
fn combined(node: &Node, seen: Seen, around: f64) -> f64 {
    let around = node.turn * (-node.contained).mul_add(seen.share, around);
    let to_east = (-around).mul_add(seen.north, node.motion[0] * seen.share);
    let to_north = around.mul_add(seen.east, node.motion[1] * seen.share);
    to_east.mul_add(to_east, to_north * to_north)
}

/// The square of the wind at a point, zero beyond `reach` metres. *Units*: m²/s².
#[inline(always)]
pub fn squared(node: &Node, reach: f64, point: [f64; 3]) -> f64 {
    let seen = seen(node, reach, point);
    combined(node, seen, profile(node, seen.distance))
}

/// Unit vectors of many points, by coordinate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    x: Vec<f64>,
    y: Vec<f64>,
    z: Vec<f64>,
    /// Of each block, its centre and how far its points lie from it, as chords of the unit sphere.
    blocks: Vec<([f64; 3], f64)>,
}

impl Points {
    /// From latitudes and longitudes in degrees.
    pub fn new(places: impl Iterator<Item = [f64; 2]>) -> Points {
        let mut points = Points::default();
        for [lat, lon] in places {
            let [x, y, z] = unit_vector(lat, lon);
            points.x.push(x);
            points.y.push(y);
            points.z.push(z);
        }
        for start in (0..points.x.len()).step_by(BLOCK) {
            points.blocks.push(points.block(start));
        }
        points
    }

    fn block(&self, start: usize) -> ([f64; 3], f64) {
        let end = self.x.len().min(start + BLOCK);
        let mean = [&self.x, &self.y, &self.z]
            .map(|part| part[start..end].iter().sum::<f64>() / (end - start) as f64);
        let radius = (start..end).map(|i| chord(mean, [self.x[i], self.y[i], self.z[i]])).fold(0.0, larger);
        (mean, radius)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.x.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }

    /// Their unit vectors, by coordinate.
    pub fn coordinates(&self) -> [&[f64]; 3] {
        [&self.x, &self.y, &self.z]
    }

    /// Of each [`BLOCK`] of them, a centre and how far its points lie from it, as chords of the unit sphere.
    pub fn blocks(&self) -> &[([f64; 3], f64)] {
        &self.blocks
    }

    /// Whether any block of them may lie within so many metres of a centre.
    pub(super) fn may_reach(&self, centre: [f64; 3], reach: f64) -> bool {
        self.blocks.iter().any(|(middle, radius)| near(centre, *middle, *radius, reach))
    }
}

fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

#[inline(always)]
fn chord(a: [f64; 3], b: [f64; 3]) -> f64 {
    let [x, y, z] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    x.mul_add(x, y.mul_add(y, z * z)).sqrt()
}

/// Whether a ball of points may hold one within reach: a chord is shorter than its arc, and the last term is
/// above what rounding can do.
#[inline(always)]
fn near(centre: [f64; 3], middle: [f64; 3], radius: f64, reach: f64) -> bool {
    chord(centre, middle) <= reach / EARTH_RADIUS_M + radius + 1e-9
}

for_each_isa! {
    /// The square of the strongest wind of all nodes at every point.
    ///
    /// *Panics*: when `strongest` has another length than the points.
    pub fn strongest_squared(nodes: &[Node], reach: f64, points: &Points, strongest: &mut [f64]) = strongest_body;
}

#[inline(always)]
fn strongest_body(nodes: &[Node], reach: f64, points: &Points, strongest: &mut [f64]) {
    assert_eq!(strongest.len(), points.len(), "one wind to a point");
    let mut lanes =
        Lanes { distance: [reach; BLOCK], east: [0.0; BLOCK], north: [0.0; BLOCK], share: [0.0; BLOCK] };
    let mut around = [0.0; BLOCK];
    for (block, (middle, radius)) in points.blocks.iter().enumerate() {
        let start = block * BLOCK;
        let end = if points.len() - start < BLOCK { points.len() } else { start + BLOCK };
        let [x, y, z] = [&points.x[start..end], &points.y[start..end], &points.z[start..end]];
        let strongest = &mut strongest[start..end];
        strongest.fill(0.0);
        for node in nodes.iter().filter(|node| near(node.centre, *middle, *radius, reach)) {
            lanes.look(node, reach, x, y, z);
            // Lanes past the block's last point hold numbers of an earlier one, as harmless.
            for (around, distance) in around.iter_mut().zip(&lanes.distance) {
                *around = profile(node, *distance);
            }
            lanes.combine(node, &around, strongest);
        }
    }
}

/// What is [`Seen`] of a block's points. Three short loops over a block vectorise where one long loop does not.
struct Lanes {
    distance: [f64; BLOCK],
    east: [f64; BLOCK],
    north: [f64; BLOCK],
    share: [f64; BLOCK],
}

impl Lanes {
    #[inline(always)]
    fn look(&mut self, node: &Node, reach: f64, x: &[f64], y: &[f64], z: &[f64]) {
        for i in 0..x.len() {
            let seen = seen(node, reach, [x[i], y[i], z[i]]);
            self.distance[i] = seen.distance;
            self.east[i] = seen.east;
            self.north[i] = seen.north;
            self.share[i] = seen.share;
        }
    }

    #[inline(always)]
    fn combine(&self, node: &Node, around: &[f64; BLOCK], strongest: &mut [f64]) {
        for i in 0..strongest.len() {
            let seen = Seen {
                distance: self.distance[i],
                east: self.east[i],
                north: self.north[i],
                share: self.share[i],
            };
            let wind = combined(node, seen, around[i]);
            strongest[i] = if wind > strongest[i] { wind } else { strongest[i] };
        }
    }
}
