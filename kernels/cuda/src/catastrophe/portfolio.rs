//! Points, what stands there and damage curves as the kernel reads them.
//!
//! Owns their layout on the device, and that of a node.

use tessera_kernels::catastrophe::damage::Curve;
use tessera_kernels::catastrophe::losses::Season;
use tessera_kernels::catastrophe::wind::Node;

use super::THREADS;
use crate::backend::{Argument, Backend, Scope};
use crate::error::CudaError;

/// `Node` in `cu/catastrophe.cu`: 17 doubles.
pub(super) const NODE_BYTES: usize = 8 * 17;
/// Coordinates, value, deductible, limit and class.
const POINT_BYTES: usize = 6 * 8 + 4;
/// A middle and a radius.
const BALL_BYTES: usize = 4 * 8;
/// Two doubles and two integers.
const CURVE_BYTES: usize = 24;
/// A wind and a share.
const KNOT_BYTES: usize = 16;

/// A job's portfolio on the device.
pub(super) struct Portfolio {
    balls: u64,
    sites: u64,
    classes: u64,
    curves: u64,
    knots: u64,
    reach: f64,
    least: f64,
    gust_factor: f64,
    points: u32,
}

impl Portfolio {
    /// What it takes.
    pub(super) fn bytes(season: &Season<'_>) -> usize {
        let knots = season.curves().iter().map(|curve| match curve {
            Curve::Emanuel { .. } => 0,
            Curve::Points { winds, .. } => winds.len(),
        });
        season.points().len() * POINT_BYTES
            + season.points().blocks().len() * BALL_BYTES
            + season.curves().len() * CURVE_BYTES
            + knots.sum::<usize>() * KNOT_BYTES
    }

    /// Copies it to the device.
    pub(super) fn new<B: Backend>(
        scope: &mut Scope<'_, B>,
        season: &Season<'_>,
    ) -> Result<Portfolio, CudaError> {
        let (points, exposure, wind) = (season.points(), season.exposure(), &season.model().wind);
        let mut balls = Vec::with_capacity(points.blocks().len() * BALL_BYTES);
        for (middle, radius) in points.blocks() {
            put(middle, &mut balls);
            put(&[*radius], &mut balls);
        }
        let mut sites = Vec::with_capacity(points.len() * POINT_BYTES);
        points.coordinates().into_iter().for_each(|column| put(column, &mut sites));
        for column in [&exposure.values, &exposure.deductibles, &exposure.limits] {
            put(column, &mut sites);
        }
        let classes: Vec<u8> = exposure.classes.iter().flat_map(|class| class.to_le_bytes()).collect();
        let (curves, knots) = tables(season.curves());
        Ok(Portfolio {
            balls: scope.upload(&balls)?,
            sites: scope.upload(&sites)?,
            classes: scope.upload(&classes)?,
            curves: scope.upload(&curves)?,
            knots: scope.upload(&knots)?,
            reach: wind.reach_km * 1000.0,
            least: wind.least,
            gust_factor: wind.gust_factor,
            points: points.len() as u32,
        })
    }

    /// Blocks of threads that hold every point once.
    pub(super) fn blocks(&self) -> u32 {
        self.points.div_ceil(THREADS)
    }

    /// The kernel's arguments behind the nodes.
    pub(super) fn arguments(&self, events: u64, arguments: &mut Vec<Argument>) {
        let addresses = [self.balls, self.sites, self.classes, self.curves, self.knots, events];
        arguments.extend(addresses.map(Argument::Address));
        arguments.extend([self.reach, self.least, self.gust_factor].map(Argument::F64));
        arguments.push(Argument::U32(self.points));
    }
}

/// A node as the kernel reads it.
pub(super) fn put_node(node: &Node, bytes: &mut Vec<u8>) {
    put(&node.centre, bytes);
    put(&node.east, bytes);
    put(&node.north, bytes);
    put(&[node.radius, node.exponent, node.strength, node.half_coriolis], bytes);
    put(&[node.reduction, node.contained], bytes);
    put(&node.motion, bytes);
    put(&[node.turn], bytes);
}

fn put(numbers: &[f64], bytes: &mut Vec<u8>) {
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// Curves, and the knots of all of them.
fn tables(all: &[Curve]) -> (Vec<u8>, Vec<u8>) {
    let (mut curves, mut knots) = (Vec::new(), Vec::new());
    for curve in all {
        let first = (knots.len() / KNOT_BYTES) as u32;
        let (numbers, count) = match curve {
            // The processor takes this difference anew for each point, and gets the same.
            Curve::Emanuel { threshold, half } => ([*threshold, half - threshold], 0),
            Curve::Points { winds, shares } => {
                winds.iter().zip(shares).for_each(|(wind, share)| put(&[*wind, *share], &mut knots));
                ([0.0; 2], winds.len() as u32)
            }
        };
        put(&numbers, &mut curves);
        [first, count].iter().for_each(|number| curves.extend(number.to_le_bytes()));
    }
    (curves, knots)
}
