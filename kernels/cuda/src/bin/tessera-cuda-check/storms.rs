//! Storms over portfolios that reach every branch of the kernel.
//!
//! Owns the catastrophe models that are compared between processor, interpreter and device; tests use it too.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use tessera_protocol::catastrophe::{
    DecayOf, FileName, Model, Perturbation, Task, Tracks, Vulnerability, Wind,
};
use tessera_protocol::spec::WindSpec;

/// The losses of a model's events, and its files.
pub(crate) struct Season {
    pub(crate) task: Task,
    files: BTreeMap<[u8; 32], Bytes>,
}

impl Season {
    /// Of `storms` storms in `tracks`, a CSV.
    pub(crate) fn new(tracks: &str, storms: u32, exposure: &str) -> Season {
        let mut files = BTreeMap::new();
        let model = Model {
            key: [7, 11],
            samples: 1,
            tracks: Tracks {
                file: named(&mut files, tracks),
                csv: true,
                years: None,
                storms: Vec::new(),
                annual_rate: None,
                environment_hpa: 1010.0,
                to_one_minute: 1.0,
            },
            exposure: named(&mut files, exposure),
            vulnerability: Vulnerability::Emanuel { threshold: 25.7, half: 74.7 },
            perturbation: Perturbation { position_km: 60.0, intensity: 0.2, radius: 0.3 },
            wind: Wind::of(&WindSpec { gust_factor: 1.1, ..WindSpec::default() }),
            decay: DecayOf::Perturbed,
            mask: None,
        };
        Season { task: Task::Losses { model, storms }, files }
    }

    /// The same with other numbers.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Model)) -> Season {
        if let Task::Losses { model, .. } = &mut self.task {
            change(model);
        }
        self
    }

    /// The same with damage curves by class.
    pub(crate) fn curves(mut self, text: &str) -> Season {
        let file = named(&mut self.files, text);
        self.with(|model| model.vulnerability = Vulnerability::Curves(file))
    }

    /// An input by its digest.
    pub(crate) fn find(&self, blake3: &[u8; 32]) -> Option<Bytes> {
        self.files.get(blake3).cloned()
    }
}

fn named(files: &mut BTreeMap<[u8; 32], Bytes>, text: &str) -> FileName {
    let blake3 = *blake3::hash(text.as_bytes()).as_bytes();
    files.insert(blake3, Bytes::copy_from_slice(text.as_bytes()));
    FileName { blake3, bytes: text.len() as u64 }
}

/// A storm along the coast, one over it, one on the southern half of the Earth, and one far from everything.
const TRACKS: &str = "\
storm,time,lat,lon,central_pressure_hpa,environmental_pressure_hpa,max_wind_ms,radius_max_wind_km,annual_rate
A,2000-08-01T00:00,24.8,-79.0,930,1010,62,30,0.1
A,2000-08-01T06:00,25.6,-80.2,925,1010,66,25,0.1
A,2000-08-01T11:30,26.9,-81.9,960,1012,45,40,0.1
B,2001-09-01T00:00,27.5,-79.9,955,1010,50,55,0.2
B,2001-09-01T07:00,25.1,-80.0,948,1010,55,45,0.2
C,2002-02-01T00:00,-18.0,-179.6,920,1008,70,20,0.05
C,2002-02-01T05:00,-18.4,179.8,915,1008,72,18,0.05
D,2003-09-01T00:00,45.0,-40.0,990,1010,25,90,0.3
D,2003-09-01T02:00,45.5,-39.0,992,1010,24,95,0.3
";

/// Houses of four classes along two coasts, one of them under a storm's very path, and some where no storm comes. On the
/// southern coast values are of all sizes; on the other none hides the rounding of another.
fn houses(rows: u32) -> String {
    let mut text = "lat,lon,value,class,deductible,limit\n25.6,-80.2,300000,wood,1000,\n".to_owned();
    for house in 0..rows {
        // Multiples of an odd number, mixed well in their upper bits.
        let mixed = f64::from(house.wrapping_mul(2_654_435_769) >> 12) / f64::from(1u32 << 20);
        let (lat, lon) = match house % 8 {
            0 => (-18.6 + mixed, 179.5 + f64::from(house % 11) * 0.1),
            1 => (25.0, 5.0 + mixed),
            _ => (24.6 + 3.0 * mixed, -80.6 + f64::from(house % 13) * 0.08),
        };
        let value = match house % 8 {
            0 => ["1e15", "3e-7", "0", "1e-300", "250000"][house as usize % 5],
            _ => ["250000", "81234.56", "999999", "120000.07", "0"][house as usize % 5],
        };
        let class = ["wood", "brick", "steel", "straw"][house as usize % 4];
        let terms = ["0,", "500,100000", "1e9,", "0,0", "1000,"][house as usize % 6 % 5];
        writeln!(text, "{lat:.6},{lon:.6},{value},{class},{terms}").expect("text takes text");
    }
    text
}

/// Wood breaks early and brick late, steel below the least wind and not above, straw at once.
const CURVES: &str = "\
class,wind_ms,ratio
wood,20,0
wood,35,0.1
wood,50,0.35
wood,80,1
brick,45,0.05
brick,46,0.3
steel,10,0
steel,15,1e-9
straw,0,0.5
straw,18,1
";

/// Models with so many rows and samples of each storm: Emanuel's function and both profiles; curves and no least wind.
pub(crate) fn seasons(rows: u32, samples: u32) -> Vec<(&'static str, Season)> {
    let season = || Season::new(TRACKS, 4, &houses(rows)).with(|model| model.samples = samples);
    let curves = season().curves(CURVES).with(|model| {
        model.wind.least = 0.0;
        model.wind.asymmetry = false;
        model.decay = DecayOf::All;
    });
    let later = season().with(|model| {
        model.wind.holland_2008 = true;
        model.wind.reach_km = 1000.0;
    });
    vec![("storms, Emanuel", season()), ("storms, curves", curves), ("storms, Holland 2008", later)]
}
