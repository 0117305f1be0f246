//! Parameters of the catastrophe workload.
//!
//! Owns their names, units and defaults. Names end in their unit: `_km`, `_ms` (metres a second), `_hpa`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Losses of a portfolio under tropical cyclones: tracks are perturbed, blown over the portfolio and turned
/// into losses, and losses into exceedance curves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatastropheParams {
    /// The storms.
    pub tracks: TracksSpec,
    /// What stands where: the name of an entry of the job's inputs, a CSV of lat, lon, value, class, deductible, limit.
    pub exposure: String,
    /// Damage by wind for each construction class: the name of an input, a CSV of class, wind_ms, ratio. Without
    /// it every class follows `emanuel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curves: Option<String>,
    /// The damage function where there are no curves.
    #[serde(default)]
    pub emanuel: EmanuelSpec,
    /// Tracks made of each storm: the first as recorded, the others perturbed.
    #[serde(default = "default_samples")]
    pub samples: u32,
    /// How much the others differ.
    #[serde(default)]
    pub perturbation: PerturbationSpec,
    /// The wind of a storm.
    #[serde(default)]
    pub wind: WindSpec,
    /// What land does to a storm.
    #[serde(default)]
    pub land: LandSpec,
    /// Years drawn for the curves.
    #[serde(default = "default_years")]
    pub years: u32,
    /// Return periods whose losses the result names. *Units*: years.
    #[serde(default = "default_return_periods")]
    pub return_periods: Vec<f64>,
    /// Events to a shard; the planner chooses when absent. Never changes a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_size: Option<u64>,
}

/// Where the storms come from and which are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracksSpec {
    /// The name of an entry of the job's inputs.
    pub input: String,
    /// How the file is written.
    #[serde(default)]
    pub format: TrackFormat,
    /// First and last year of the catalogue; storms that begin in others are left out. Those of the file when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub years: Option<[i32; 2]>,
    /// Ids of the storms to take; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storms: Vec<String>,
    /// How often each storm happens in a year. When absent, as the file says, or else once in the catalogue's years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annual_rate: Option<f64>,
    /// Pressure around the storms where the file gives none.
    #[serde(default = "default_environment")]
    pub environment_hpa: f64,
    /// Over which time the file's winds are means.
    #[serde(default)]
    pub averaging: Averaging,
    /// A one-minute mean to a ten-minute mean, which divides winds of the other convention.
    #[serde(default = "default_ten_minutes")]
    pub ten_to_one_minute: f64,
}

/// How a file of tracks is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackFormat {
    /// NOAA's HURDAT2 text.
    #[default]
    Hurdat2,
    /// A CSV whose header names columns and units.
    Csv,
}

/// The time over which a wind is a mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Averaging {
    /// The United States' convention, and HURDAT2's.
    #[default]
    OneMinute,
    /// The World Meteorological Organization's.
    TenMinutes,
}

/// Emanuel's damage function, `x³ / (1 + x³)` with `x = (v − threshold) / (half − threshold)`.
/// *Source*: Emanuel (2011), Weather, Climate, and Society 3, 261–268.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmanuelSpec {
    /// Wind below which nothing breaks.
    #[serde(default = "default_threshold")]
    pub threshold_ms: f64,
    /// Wind at which half of the value is lost.
    #[serde(default = "default_half")]
    pub half_ms: f64,
}

impl Default for EmanuelSpec {
    fn default() -> EmanuelSpec {
        EmanuelSpec { threshold_ms: default_threshold(), half_ms: default_half() }
    }
}

/// Standard deviations of what is drawn for each perturbed track.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerturbationSpec {
    /// The whole track moves, north and east, by normal numbers of this deviation.
    #[serde(default = "default_position")]
    pub position_km: f64,
    /// The logarithm of its winds' factor; the mean factor is one.
    #[serde(default = "default_intensity")]
    pub intensity: f64,
    /// The logarithm of its radii's factor; the mean factor is one.
    #[serde(default = "default_radius")]
    pub radius: f64,
}

impl Default for PerturbationSpec {
    fn default() -> PerturbationSpec {
        PerturbationSpec {
            position_km: default_position(),
            intensity: default_intensity(),
            radius: default_radius(),
        }
    }
}

/// The wind that a storm blows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindSpec {
    /// Which exponent the profile takes.
    #[serde(default)]
    pub holland_b: HollandB,
    /// Whether the storm's own motion is added.
    #[serde(default = "default_true")]
    pub asymmetry: bool,
    /// Winds farther from the centre are zero.
    #[serde(default = "default_reach")]
    pub reach_km: f64,
    /// Winds below are zero.
    #[serde(default = "default_least")]
    pub least_ms: f64,
    /// Longest step along a track.
    #[serde(default = "default_step")]
    pub step_minutes: f64,
    /// Turns the one-minute mean into what the damage functions take.
    #[serde(default = "default_gust")]
    pub gust_factor: f64,
    /// Wind at 10 m to wind of the gradient level.
    #[serde(default = "default_surface")]
    pub gradient_to_surface: f64,
    /// *Units*: kg/m³.
    #[serde(default = "default_density")]
    pub air_density: f64,
}

impl Default for WindSpec {
    fn default() -> WindSpec {
        WindSpec {
            holland_b: HollandB::default(),
            asymmetry: true,
            reach_km: default_reach(),
            least_ms: default_least(),
            step_minutes: default_step(),
            gust_factor: default_gust(),
            gradient_to_surface: default_surface(),
            air_density: default_density(),
        }
    }
}

/// How the exponent B of Holland's profile is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HollandB {
    /// From the recorded wind and pressure. *Source*: Holland (1980), equations 5 and 6.
    #[default]
    Holland1980,
    /// From pressure, its change, latitude and motion. *Source*: Holland (2008), equation 11.
    Holland2008,
}

/// What land does to a storm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LandSpec {
    /// Which tracks decay over land by Kaplan and DeMaria's model.
    #[serde(default)]
    pub decay: Decay,
    /// Where land is: the name of an input, an Esri ASCII grid, positive on land. A coarse outline of the western
    /// Atlantic's coasts when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// Which tracks decay over land.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// None.
    Off,
    /// Those that were moved: a recorded track has its own decay in it.
    #[default]
    Perturbed,
    /// All.
    All,
}

fn default_samples() -> u32 {
    1
}

fn default_years() -> u32 {
    10_000
}

fn default_return_periods() -> Vec<f64> {
    alloc::vec![2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0, 250.0, 500.0, 1000.0]
}

fn default_environment() -> f64 {
    1010.0
}

/// Ten-minute to one-minute mean at sea. *Source*: Harper, Kepert and Ginger (2010), WMO/TD-No. 1555, section 1.5.
fn default_ten_minutes() -> f64 {
    0.93
}

fn default_threshold() -> f64 {
    25.7
}

fn default_half() -> f64 {
    74.7
}

fn default_position() -> f64 {
    30.0
}

fn default_intensity() -> f64 {
    0.08
}

fn default_radius() -> f64 {
    0.25
}

fn default_true() -> bool {
    true
}

fn default_reach() -> f64 {
    300.0
}

fn default_least() -> f64 {
    17.5
}

fn default_step() -> f64 {
    15.0
}

fn default_gust() -> f64 {
    1.0
}

/// *Source*: Franklin, Black and Valde (2003), Weather and Forecasting 18, 32–44.
fn default_surface() -> f64 {
    0.9
}

/// *Source*: Holland (1980).
fn default_density() -> f64 {
    1.15
}
