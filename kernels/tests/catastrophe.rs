//! The catastrophe kernel against CLIMADA's formulas, hand-worked portfolios, files that are wrong, and itself on
//! other cuts and instruction sets.

#![allow(clippy::disallowed_methods, reason = "reference positions are computed with the platform's libm")]

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use tessera_kernels::catastrophe::damage::Curve;
use tessera_kernels::catastrophe::wind::{Node, profile, squared, unit_vector};
use tessera_kernels::catastrophe::{holland_1980, holland_2008, run};
use tessera_kernels::isa::Isa;
use tessera_protocol::catastrophe::{
    DecayOf, FileName, Finish, FinishHead, Model, Perturbation, Summary, Survey, SurveyHead, Task, Tracks,
    Vulnerability, Wind,
};
use tessera_protocol::id::Digest;
use tessera_protocol::product::{Product, ProductView};

const WINDS: &str = include_str!("../reference/catastrophe_winds.csv");
const DAMAGE: &str = include_str!("../reference/catastrophe_damage.csv");

fn rows(text: &str) -> Vec<BTreeMap<String, f64>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let number = |cell: &str| cell.parse::<f64>().expect("a number");
    lines
        .map(|line| names.iter().map(|name| name.to_string()).zip(line.split(',').map(number)).collect())
        .collect()
}

#[track_caller]
fn assert_close(found: f64, expected: f64, relative: f64, what: &str) {
    let distance = (found - expected).abs();
    assert!(distance <= relative * expected.abs(), "{what}: {found}, expected {expected}");
}

/// A place so far from another, in metres, along a bearing whose sine and cosine are given.
fn place_from(lat: f64, distance: f64, east: f64, north: f64) -> [f64; 3] {
    let (arc, lat) = (distance / 6_371_008.8, lat.to_radians());
    let up = arc.cos();
    let [e, n] = [east * arc.sin(), north * arc.sin()];
    // The centre lies at longitude zero: up, east and north there are these axes.
    [up * lat.cos() - n * lat.sin(), e, up * lat.sin() + n * lat.cos()]
}

#[test]
fn winds_agree_with_climada_to_a_trillionth() {
    for (line, row) in rows(WINDS).iter().enumerate() {
        let of = |name: &str| row[name];
        let (lat, deficit) = (of("lat"), of("deficit_hpa"));
        let motion = [of("motion_east"), of("motion_north")];
        let speed = motion[0].hypot(motion[1]);
        let gradient = (of("wind_ms") - speed).max(0.0) / 0.9;
        for (year, exponent, reduction, contained) in [
            ("1980", holland_1980(gradient, 1.15, deficit * 100.0), 0.9, 0.0),
            ("2008", holland_2008(deficit, of("rise_hpa_h"), lat, speed, 0.9), 1.0, speed),
        ] {
            let what = |name: &str| format!("{name}, {year}, row {line}");
            assert_close(exponent, of(&format!("b_{year}")), 1e-12, &what("B"));
            let (sine, cosine) = lat.to_radians().sin_cos();
            let node = Node {
                centre: unit_vector(lat, 0.0),
                east: [0.0, 1.0],
                north: [-sine, 0.0, cosine],
                radius: of("radius_km") * 1000.0,
                exponent,
                strength: exponent / 1.15 * deficit * 100.0,
                half_coriolis: 7.292_115e-5 * sine.abs(),
                reduction,
                contained,
                motion,
                turn: lat.signum(),
            };
            let distance = of("distance_km") * 1000.0;
            assert_close(profile(&node, distance), of(&format!("around_{year}")), 1e-12, &what("profile"));
            let place = place_from(lat, distance, of("east"), of("north"));
            let wind = squared(&node, 1e6, place).sqrt();
            // A place's coordinates are rounded to a nanometre or so, which near the centre shows.
            assert_close(wind, of(&format!("total_{year}")), 1e-11, &what("wind"));
        }
    }
}

#[test]
fn damage_agrees_with_climada_to_a_trillionth() {
    let curve = Curve::Emanuel { threshold: 25.7, half: 74.7 };
    for row in rows(DAMAGE) {
        assert_close(curve.share(row["wind_ms"]), row["share"], 1e-12, "share");
    }
}

/// The files of a job and what is computed from them.
struct Job {
    files: BTreeMap<[u8; 32], Bytes>,
    model: Model,
}

impl Job {
    fn new(tracks: &str, exposure: &str) -> Job {
        let mut files = BTreeMap::new();
        let mut add = |text: &str| named(&mut files, text);
        let model = Model {
            key: [7, 11],
            samples: 1,
            tracks: Tracks {
                file: add(tracks),
                csv: true,
                years: None,
                storms: Vec::new(),
                annual_rate: None,
                environment_hpa: 1010.0,
                to_one_minute: 1.0,
            },
            exposure: add(exposure),
            vulnerability: Vulnerability::Emanuel { threshold: 25.7, half: 74.7 },
            perturbation: Perturbation { position_km: 30.0, intensity: 0.1, radius: 0.2 },
            wind: Wind {
                holland_2008: false,
                asymmetry: true,
                reach_km: 300.0,
                least: 17.5,
                step_minutes: 15.0,
                gust_factor: 1.0,
                gradient_to_surface: 0.9,
                air_density: 1.15,
            },
            decay: DecayOf::Perturbed,
            mask: None,
        };
        Job { files, model }
    }

    fn curves(mut self, text: &str) -> Job {
        self.model.vulnerability = Vulnerability::Curves(named(&mut self.files, text));
        self
    }

    fn run(&self, task: &Task, first: u64, count: u64, isa: Isa) -> Product {
        // As an agent gets it.
        let task = Task::decode(&task.encode()).expect("a task of ours");
        let find = |digest: &[u8; 32]| self.files.get(digest).cloned();
        run(&task, first, count, &find, isa, &|| false).unwrap_or_else(|error| panic!("{error}"))
    }

    fn survey(&self) -> SurveyHead {
        let product = self.run(&Task::Survey(self.model.clone()), 0, 1, Isa::detect());
        SurveyHead::decode(&product.head).expect("a head of ours")
    }

    fn fault(&self) -> String {
        match self.survey() {
            SurveyHead::Fault(fault) => fault,
            SurveyHead::Found(found) => panic!("passed: {found:?}"),
        }
    }

    fn found(&self) -> Survey {
        match self.survey() {
            SurveyHead::Found(found) => found,
            SurveyHead::Fault(fault) => panic!("{fault}"),
        }
    }

    /// The losses of all events in shards of a size, the last shard first, each on another instruction set.
    fn losses(&self, shard: u64) -> Vec<Product> {
        let task = Task::Losses { model: self.model.clone(), storms: self.found().storms };
        let all = Isa::available();
        let starts: Vec<u64> = (0..task.units()).step_by(shard as usize).collect();
        let mut products: Vec<Product> = starts
            .into_iter()
            .rev()
            .enumerate()
            .map(|(turn, first)| {
                self.run(&task, first, shard.min(task.units() - first), all[turn % all.len()])
            })
            .collect();
        products.reverse();
        products
    }

    fn finish(&self, losses: Vec<Product>, years: u32, return_periods: &[f64]) -> Product {
        let mut whole = Job { files: self.files.clone(), model: self.model.clone() };
        let mut parts = Vec::new();
        for product in losses {
            let bytes = product.encode().expect("a product within its limits");
            let blake3 = Digest::of(&bytes).0;
            parts.push(FileName { blake3, bytes: bytes.len() as u64 });
            whole.files.insert(blake3, bytes.into());
        }
        let finish = Finish {
            model: self.model.clone(),
            storms: self.found().storms,
            parts,
            years,
            return_periods: return_periods.to_vec(),
        };
        whole.run(&Task::Finish(finish), 0, 1, Isa::detect())
    }

    fn summary(&self, years: u32, return_periods: &[f64]) -> (Summary, Product) {
        let product = self.finish(self.losses(3), years, return_periods);
        match FinishHead::decode(&product.head).expect("a head of ours") {
            FinishHead::Found(summary) => (summary, product),
            FinishHead::Fault(fault) => panic!("{fault}"),
        }
    }
}

fn named(files: &mut BTreeMap<[u8; 32], Bytes>, text: &str) -> FileName {
    let blake3 = Digest::of(text.as_bytes()).0;
    files.insert(blake3, Bytes::copy_from_slice(text.as_bytes()));
    FileName { blake3, bytes: text.len() as u64 }
}

fn file(product: &Product, name: &str) -> String {
    let bytes = product.encode().expect("a product within its limits");
    let view = ProductView::decode(&bytes).expect("its own encoding");
    String::from_utf8(view.file(name).unwrap_or_else(|| panic!("{name} is there")).to_vec()).expect("text")
}

const TRACK_HEADER: &str = "storm,time,lat,lon,central_pressure_hpa,environmental_pressure_hpa,max_wind_ms,radius_max_wind_km,annual_rate\n";

/// A storm that goes along the equator in eight hours, where nothing turns it: from 1° W to 1° E.
fn equator(storm: &str, wind: f64, centre: f64, rate: f64) -> String {
    let row =
        |time: &str, lon: f64| format!("{storm},2000-01-01T{time},0,{lon},{centre},1010,{wind},50,{rate}\n");
    row("00:00", -1.0) + &row("08:00", 1.0)
}

/// Degrees of latitude of 50 km on a sphere of 6,371,008.8 m.
const FIFTY_KM: f64 = 0.449_660_181_862;

#[test]
fn a_portfolio_of_three_houses_under_one_storm_is_as_worked_out_by_hand() {
    // Wind 60 m/s at the radius of 50 km, over 0.9 is 66.6667 m/s at the gradient level; deficit 80 hPa.
    //   B = 66.6667² · e · 1.15 / 8000 = 1.736680.
    // House 1, 50 km north of the track at 0° E, sees the centre pass at the radius of the strongest wind. Without
    // rotation (equator) and motion (asymmetry off) that is 60 m/s exactly.
    //   x = (60 − 25.7) / 49 = 0.7, x³ = 0.343, share = 0.343 / 1.343 = 0.255398362.
    //   1,000,000 lose 255,398.36; deductible 50,000 leaves 205,398.36; limit 200,000.
    // House 2, at 100 km: (1/2)^B = 0.3000594, wind = 60 √(0.3000594 e^(1 − 0.3000594)) = 46.638549 m/s.
    //   x = 20.938549 / 49 = 0.4273173, x³ = 0.07802818, share = 0.07238047.
    //   500,000 lose 36,190.23; deductible 10,000 leaves 26,190.23.
    // House 3 stands 5° north, beyond 300 km: nothing.
    let tracks = TRACK_HEADER.to_string() + &equator("A", 60.0, 930.0, 0.1);
    let exposure = format!(
        "lat,lon,value,class,deductible,limit\n{FIFTY_KM},0,1000000,wood,50000,200000\n{},0,500000,wood,10000,\n5,0,7e6,,,\n",
        2.0 * FIFTY_KM
    );
    let mut job = Job::new(&tracks, &exposure);
    job.model.wind.asymmetry = false;
    let (summary, product) = job.summary(1000, &[5.0, 20.0]);
    let gross = 200_000.0 + 26_190.234;
    assert_close(summary.average_annual_loss, 0.1 * gross, 1e-6, "average annual loss");
    // The loss of a year is a Poisson number of the event's: its variance is rate times square.
    assert_close(summary.standard_deviation, 0.1f64.sqrt() * gross, 1e-6, "standard deviation");
    let ground_up = 255_398.362 + 36_190.234;
    assert_close(summary.average_annual_ground_up, 0.1 * ground_up, 1e-6, "ground up");
    let largest = summary.largest.clone().expect("a loss");
    assert_eq!((largest.storm.as_str(), largest.sample), ("A", 0));
    assert_close(largest.wind_ms, 60.0, 1e-9, "largest wind");
    // One year in 10.5 has the storm: the loss of 20 years is its, that of 5 years is none.
    assert_eq!(summary.return_periods[0].occurrence_exact, 0.0);
    assert_close(summary.return_periods[1].occurrence_exact, gross, 1e-6, "20 years");
    assert_close(summary.return_periods[1].occurrence.loss, gross, 1e-6, "20 years, drawn");
    assert_eq!(summary.return_periods[0].occurrence.loss, 0.0);
    let table = file(&product, "event_losses.csv");
    let row: Vec<&str> = table.lines().nth(1).expect("one event").split(',').collect();
    assert_eq!((row[0], row[1], row[3], row[8]), ("0", "A", "0", "2"));
    assert_eq!(table.lines().count(), 2);
}

#[test]
fn a_portfolio_with_curves_under_two_storms_is_as_worked_out_by_hand() {
    // House 1 of wood sees 60 m/s of storm A and 40 m/s of storm B (as in the other portfolio), house 2 of brick too.
    // Curves: wood 30 → 0, 50 → 0.4, 70 → 0.9; brick 30 → 0, 60 → 0.3.
    //   A: wood 0.65, brick 0.3. 100,000 and 200,000 lose 65,000 and 60,000: 125,000.
    //      Deductible 5,000 each: 60,000 + 55,000; limit of the brick house 50,000: 60,000 + 50,000 = 110,000.
    //   B: wood 0.2, brick 0.1. They lose 20,000 each; 15,000 each are paid: 30,000.
    // Rates 0.02 and 0.2 a year:
    //   average annual loss 0.02 · 110,000 + 0.2 · 30,000 = 8,200
    //   variance 0.02 · 110,000² + 0.2 · 30,000² = 242e6 + 180e6 = 422e6, deviation 20,542.64
    // The largest loss of a year exceeds 30,000 in 1 − e^−0.02 of the years, one of 50.5, and is at least 30,000 in
    // 1 − e^−0.22, one of 5.06.
    let tracks =
        TRACK_HEADER.to_string() + &equator("A", 60.0, 930.0, 0.02) + &equator("B", 40.0, 970.0, 0.2);
    let exposure = format!(
        "lat,lon,value,class,deductible,limit\n{FIFTY_KM},0,100000,wood,5000,\n-{FIFTY_KM},0,200000,brick,5000,50000\n"
    );
    let curves = "class,wind_ms,ratio\nwood,30,0\nwood,50,0.4\nbrick,30,0\nwood,70,0.9\nbrick,60,0.3\n";
    let mut job = Job::new(&tracks, &exposure).curves(curves);
    job.model.wind.asymmetry = false;
    let (summary, _) = job.summary(100_000, &[5.0, 5.2, 50.0, 51.0]);
    assert_close(summary.average_annual_loss, 8_200.0, 1e-9, "average annual loss");
    assert_close(summary.standard_deviation, 422e6f64.sqrt(), 1e-9, "standard deviation");
    assert_close(summary.average_annual_ground_up, 0.02 * 125_000.0 + 0.2 * 40_000.0, 1e-9, "ground up");
    let exact: Vec<f64> =
        summary.return_periods.iter().map(|period| period.occurrence_exact.round()).collect();
    assert_eq!(exact, [0.0, 30_000.0, 30_000.0, 110_000.0]);
    let error = summary.simulated_standard_error;
    assert_close(error, 20_542.64 / 100_000f64.sqrt(), 0.05, "standard error");
    assert!((summary.simulated_average - 8_200.0).abs() < 4.0 * error, "{}", summary.simulated_average);
    for period in &summary.return_periods {
        assert!(
            period.occurrence.low <= period.occurrence.loss
                && period.occurrence.loss <= period.aggregate.loss
        );
        assert!(period.occurrence.high.is_some_and(|high| high >= period.occurrence.loss));
        assert!(period.occurrence.low <= period.occurrence_exact);
    }
    assert_eq!((summary.events, summary.events_with_loss), (2, 2));
}

#[test]
fn conventions_of_wind_do_what_they_say() {
    let loss = |change: &dyn Fn(&mut Job), wind: f64| {
        let tracks = TRACK_HEADER.to_string() + &equator("A", wind, 930.0, 0.1);
        let mut job = Job::new(&tracks, &format!("lat,lon,value\n{FIFTY_KM},0,1000000\n"));
        job.model.wind.asymmetry = false;
        change(&mut job);
        job.summary(10, &[2.0]).0.largest.map_or(0.0, |largest| largest.loss)
    };
    // One-minute winds of 60 m/s cost 255,398; as ten-minute winds they are 55.8 m/s.
    assert_close(loss(&|_| {}, 60.0), 255_398.362, 1e-8, "one minute");
    let ten = |job: &mut Job| job.model.tracks.to_one_minute = 1.0 / 0.93;
    assert_close(loss(&ten, 55.8), 255_398.362, 1e-8, "ten minutes");
    // A gust factor of 1.1 makes 66 m/s of them: x = 40.3 / 49 = 0.8224490, x³ = 0.5563229, share = 0.3574598.
    assert_close(loss(&|job| job.model.wind.gust_factor = 1.1, 60.0), 357_459.798, 1e-8, "gusts");
    // Winds below the least count for nothing, nor do those beyond reach.
    assert_eq!(loss(&|job| job.model.wind.least = 60.5, 60.0), 0.0);
    assert_eq!(loss(&|job| job.model.wind.reach_km = 49.9, 60.0), 0.0);
    // Sea everywhere but where the storm begins leaves the decay nothing to do; land everywhere after it does.
    let mask = |rows: &'static str| {
        move |job: &mut Job| {
            job.model.decay = DecayOf::All;
            let grid = format!("ncols 3\nnrows 1\nxllcorner -1.5\nyllcorner -0.5\ncellsize 1\n{rows}\n");
            job.model.mask = Some(named(&mut job.files, &grid));
        }
    };
    assert_close(loss(&mask("1 0 0"), 60.0), 255_398.362, 1e-8, "no landfall");
    assert!(loss(&mask("0 1 1"), 60.0) < 150_000.0);
}

/// Andrew's week in Florida with some invented fixes and a made-up second storm, over a grid of houses.
fn florida() -> Job {
    let tracks = TRACK_HEADER.to_string()
        + "ANDREW,1992-08-23T18:00,25.4,-75.8,922,1010,77,19,\n\
           ANDREW,1992-08-24T06:00,25.4,-79.3,937,1010,67,19,\n\
           ANDREW,1992-08-24T09:05,25.5,-80.3,922,1010,74.6,18,\n\
           ANDREW,1992-08-24T12:00,25.6,-81.2,951,1010,59,,\n\
           ANDREW,1992-08-24T18:00,25.8,-83.1,947,1010,59,,\n\
           OTHER,1995-09-01T00:00,24.0,-82.5,960,,50,40,\n\
           OTHER,1995-09-01T18:00,28.0,-81.0,,,45,,\n";
    let mut exposure = String::from("lat,lon,value,class,deductible,limit\n");
    for number in 0..700 {
        let (row, column) = (number / 28, number % 28);
        let (lat, lon) = (25.2 + 0.07 * f64::from(row), -81.6 + 0.06 * f64::from(column));
        exposure += &format!("{lat},{lon},{},,{},\n", 100_000 + 1_000 * number, 1_000);
    }
    let mut job = Job::new(&tracks, &exposure);
    job.model.samples = 6;
    job
}

#[test]
fn losses_are_the_same_on_every_cut_and_every_instruction_set() {
    let job = florida();
    let whole = job.losses(12);
    for shard in [1, 5, 7] {
        let bytes = |products: Vec<Product>| -> Vec<u8> {
            products
                .into_iter()
                .flat_map(|product| product.files.into_iter().flat_map(|file| file.bytes))
                .collect()
        };
        assert_eq!(bytes(job.losses(shard)), bytes(whole.clone()), "shards of {shard}");
    }
    let task = Task::Losses { model: job.model.clone(), storms: 2 };
    for isa in Isa::available() {
        assert_eq!(job.run(&task, 0, 12, isa), whole[0], "on {isa}");
    }
    let product = job.finish(job.losses(5), 5_000, &[10.0, 100.0]);
    let again = job.finish(whole, 5_000, &[10.0, 100.0]);
    assert_eq!(product, again);
    let digest = Digest::of(&product.encode().expect("within limits")).to_string();
    assert_eq!(digest, FLORIDA);
}

/// Of the last product: what every machine has to give. A change here changes every job's result.
const FLORIDA: &str = "e20872817c42a1b728978158c02bc290148ea2a7dee832e0ba8cad67c64bc3a3";

#[test]
fn parquet_holds_the_same_table_as_the_csv_and_pictures_are_svg() {
    let (summary, product) = florida().summary(5_000, &[100.0]);
    assert!(summary.events_with_loss > 5);
    // Of 5,000 years the curve shows 310.
    for (name, rows) in [("event_losses", summary.events_with_loss as usize), ("exceedance", 310)] {
        let csv = file(&product, &format!("{name}.csv"));
        let bytes =
            product.files.iter().find(|file| file.name == format!("{name}.parquet")).expect("it is there");
        let reader = SerializedFileReader::new(Bytes::from(bytes.bytes.clone())).expect("a Parquet file");
        let mut lines = csv.lines();
        let header = lines.next().expect("a header");
        let mut count = 0;
        for (row, line) in reader.get_row_iter(None).expect("rows").zip(lines) {
            let row = row.expect("a row");
            let names: Vec<&str> = row.get_column_iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names.join(","), header);
            let cells = row.get_column_iter().map(|(_, field)| match field {
                Field::Double(number) => number.to_string(),
                Field::Long(number) => number.to_string(),
                Field::Str(text) => text.clone(),
                other => panic!("{other}"),
            });
            assert_eq!(cells.collect::<Vec<_>>().join(","), line);
            count += 1;
        }
        assert_eq!((count, csv.lines().count()), (rows, rows + 1), "{name}");
    }
    let map = file(&product, "footprint.svg");
    assert!(map.starts_with("<svg ") && map.trim_end().ends_with("</svg>"));
    assert!(map.contains("ANDREW") || map.contains("OTHER"), "the title names the storm");
    assert!(file(&product, "exceedance.svg").contains("return period, years"));
}

#[test]
fn a_sample_does_not_depend_on_how_many_there_are_or_on_other_storms() {
    let many = florida();
    let mut few = florida();
    few.model.samples = 3;
    few.model.tracks.storms = vec!["OTHER".into()];
    let bytes = |job: &Job| job.losses(100).remove(0).files.remove(0).bytes;
    // Events 6 to 8 of the one are events 0 to 2 of the other.
    assert_eq!(bytes(&many)[6 * 32..9 * 32], bytes(&few)[..]);
}

#[test]
fn the_date_line_is_a_line_like_any_other() {
    let shifted = |degrees: f64| {
        let lon = |lon: f64| {
            let lon = lon + degrees;
            if lon > 180.0 { lon - 360.0 } else { lon }
        };
        let mut tracks = TRACK_HEADER.to_string();
        for (hour, at) in [(0, -2.0), (6, -0.7), (12, 0.4), (18, 2.1)] {
            tracks += &format!(
                "T,2001-03-0{}T{:02}:00,-17.5,{},950,1008,55,35,0.1\n",
                1 + hour / 24,
                hour % 24,
                lon(at)
            );
        }
        let mut exposure = String::from("lat,lon,value\n");
        for number in 0..40 {
            exposure += &format!(
                "{},{},1000000\n",
                -18.2 + 0.03 * f64::from(number),
                lon(-1.0 + 0.05 * f64::from(number))
            );
        }
        let mut job = Job::new(&tracks, &exposure);
        job.model.samples = 3;
        job.model.decay = DecayOf::None;
        job.summary(1_000, &[20.0]).0
    };
    let (plain, across) = (shifted(100.0), shifted(180.0));
    assert!(plain.average_annual_loss > 1e5, "{}", plain.average_annual_loss);
    assert_close(across.average_annual_loss, plain.average_annual_loss, 1e-9, "average annual loss");
    assert_close(across.standard_deviation, plain.standard_deviation, 1e-9, "standard deviation");
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    let tracks = || TRACK_HEADER.to_string() + &equator("A", 60.0, 930.0, 0.1);
    let house = format!("lat,lon,value,class\n{FIFTY_KM},0,1000,wood\n");
    let of_tracks = |rows: &str| Job::new(&(TRACK_HEADER.to_string() + rows), &house).fault();
    let of_exposure = |rows: &str| Job::new(&tracks(), &format!("lat,lon,value\n{rows}")).fault();
    let of_curves =
        |rows: &str| Job::new(&tracks(), &house).curves(&format!("class,wind_ms,ratio\n{rows}")).fault();
    let cases = [
        (
            of_tracks("A,2000-01-01T00:00,0,1,930,1010,60,50,\n"),
            "the file of tracks, line 2: storm A has one point with a wind: a track needs two",
        ),
        (of_tracks(""), "the file of tracks: holds no storm"),
        (
            of_tracks("A,yesterday,0,1,930,1010,60,50,\n"),
            "the file of tracks, line 2: time = \"yesterday\": must be as 1992-08-24T09:05",
        ),
        (
            of_tracks("A,2000-01-01T06:00,0,1,930,1010,60,50,\nA,2000-01-01T06:00,0,2,930,1010,60,50,\n"),
            "the file of tracks, line 3: storm A is not later here",
        ),
        (
            of_tracks("A,2000-01-01T00:00,0,80,930,1010,60,50,\nA,2000-01-01T06:00,0,-80,930,1010,60,50,\n"),
            "the file of tracks, line 3: storm A would have moved 17792 km",
        ),
        (
            of_tracks("A,2000-01-01T00:00,95,1,930,1010,60,50,\n"),
            "the file of tracks, line 2: lat = 95: must be from -90 to 90",
        ),
        (of_exposure("0,0,1000\n91,0,1000\n"), "the exposure file, line 3: lat = 91: must be from -90 to 90"),
        (of_exposure("0,0,NaN\n"), "the exposure file, line 2: value = NaN: must be from 0"),
        (of_exposure("0,0,\n"), "the exposure file, line 2: value is empty"),
        (of_exposure("0,0\n"), "the exposure file, line 2: 2 cells where the header has 3"),
        (of_exposure(""), "the exposure file: holds no row"),
        (
            of_exposure("40,80,1000\n"),
            "the exposure file: no row lies within 420 km of any track: check the signs",
        ),
        (
            of_curves("wood,30,0\nwood,40,0.5\nwood,50,0.4\n"),
            "the file of damage curves, line 4: ratio = 0.4 of class \"wood\": must not be below the row before, 0.5",
        ),
        (
            of_curves("wood,30,0\nwood,30,0.5\n"),
            "the file of damage curves, line 3: wind_ms = 30 of class \"wood\": must be above",
        ),
        (of_curves("wood,30,1.5\n"), "the file of damage curves, line 2: ratio = 1.5: must be from 0 to 1"),
        (
            of_curves("brick,30,0\n"),
            "the exposure file, line 2: class \"wood\" has no damage curve: there are curves of brick",
        ),
        (
            Job::new(&tracks(), "lat,lon,value,deductable\n0,0,1,1\n").fault(),
            "the exposure file, line 1: \"deductable\" is no column of this file",
        ),
        (
            Job::new(&tracks(), "lat,value\n0,0\n").fault(),
            "the exposure file, line 1: the column \"lon\" is missing",
        ),
        (
            Job::new(&tracks(), "lat,lon,value\n0,0,\u{1}\n").fault(),
            "the exposure file, line 2: value = \u{1}: must be",
        ),
    ];
    for (fault, expected) in cases {
        assert!(fault.starts_with(expected), "{fault}\nexpected: {expected}");
    }
}

#[test]
fn hurdat2_is_read_with_its_gaps_and_its_mistakes_are_named() {
    let andrew = "AL041992,             ANDREW,      3,\n\
        19920824, 0600,  , HU, 25.4N,  79.3W, 130,  937, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999\n\
        19920824, 0905, L, HU, 25.5N,  80.3W, 145,  922, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999, -999,   10\n\
        19920824, 1200,  , HU, 25.6N,  81.2W, 115, -999\n";
    let house = "lat,lon,value\n25.6,-80.35,1000000\n";
    let job = |text: &str| {
        let mut job = Job::new(text, house);
        job.model.tracks.csv = false;
        job
    };
    let found = job(andrew).found();
    assert_eq!((found.storms, found.years, found.annual_rate), (1, [1992, 1992], 1.0));
    let (summary, _) = job(andrew).summary(100, &[2.0]);
    let largest = summary.largest.expect("Andrew was there");
    assert_eq!((largest.storm.as_str(), largest.name.as_str()), ("AL041992", "ANDREW"));
    // 145 knots are 74.6 m/s; the house stands north of the track, where the motion adds.
    assert!((55.0..85.0).contains(&largest.wind_ms), "{}", largest.wind_ms);
    // With the years of a longer catalogue the storm is rarer.
    let mut longer = job(andrew);
    longer.model.tracks.years = Some([1983, 2002]);
    assert_eq!(longer.found().annual_rate, 0.05);
    let cases = [
        (
            andrew.replace("3,\n", "4,\n"),
            "the file of tracks, line 1: the file ends after 3 of the 4 points of storm AL041992",
        ),
        (andrew.replace("79.3W", "79.3X"), "the file of tracks, line 2: \"79.3X\" is no longitude as 80.3W"),
        (andrew.replace("0905", "2505"), "the file of tracks, line 3: \"19920824 2505\" is no date and time"),
        (andrew.replace(" 145,", " 945,"), "the file of tracks, line 3: wind \"945\": must be from 0 to 250"),
        (andrew.replace("      3,\n", "      2,\n"), "the file of tracks, line 4: not the header of a storm"),
    ];
    for (text, expected) in cases {
        let fault = job(&text).fault();
        assert!(fault.starts_with(expected), "{fault}\nexpected: {expected}");
    }
    let mut unknown = job(andrew);
    unknown.model.tracks.storms = vec!["AL011900".into()];
    assert_eq!(unknown.fault(), "the file of tracks: holds no storm \"AL011900\"");
    let mut none = job(andrew);
    none.model.tracks.years = Some([2000, 2001]);
    assert!(none.fault().starts_with("the file of tracks: 0 storms of the years 2000 to 2001 are taken"));
}
