//! What the parameters of the catastrophe workload may be.

use alloc::format;
use alloc::string::ToString;

use super::Findings;
use crate::catastrophe::{EVENTS_MAX, FILE_BYTES_MAX, RETURN_PERIODS_MAX, STORMS_NAMED_MAX, YEARS_MAX};
use crate::spec::{CatastropheParams, EmanuelSpec, Input, PerturbationSpec, TracksSpec, WindSpec};

impl Findings {
    pub(super) fn catastrophe(&mut self, params: &CatastropheParams, inputs: &[Input]) {
        self.tracks(&params.tracks, inputs);
        file(self, "params.exposure", &params.exposure, inputs);
        if let Some(curves) = &params.curves {
            file(self, "params.curves", curves, inputs);
        }
        self.emanuel(&params.emanuel);
        self.integer("params.samples", params.samples.into(), 1, EVENTS_MAX);
        self.perturbation(&params.perturbation);
        self.wind(&params.wind);
        if let Some(mask) = &params.land.mask {
            file(self, "params.land.mask", mask, inputs);
        }
        self.integer("params.years", params.years.into(), 1, YEARS_MAX.into());
        self.return_periods(&params.return_periods, params.years);
        if let Some(size) = params.shard_size {
            self.integer("params.shard_size", size, 1, EVENTS_MAX);
        }
    }

    fn tracks(&mut self, tracks: &TracksSpec, inputs: &[Input]) {
        file(self, "params.tracks.input", &tracks.input, inputs);
        if let Some([first, last]) = tracks.years
            && !(1 <= first && first <= last && last <= 9999)
        {
            self.add("params.tracks.years", &format!("[{first}, {last}]"), "must be a first and a last year");
        }
        if tracks.storms.len() > STORMS_NAMED_MAX {
            let allowed = format!("at most {STORMS_NAMED_MAX}: choose by params.tracks.years instead");
            self.add("params.tracks.storms", &format!("{} storms", tracks.storms.len()), &allowed);
        }
        for (position, storm) in tracks.storms.iter().take(STORMS_NAMED_MAX).enumerate() {
            self.name(&format!("params.tracks.storms[{position}]"), storm);
        }
        if let Some(rate) = tracks.annual_rate {
            self.number("params.tracks.annual_rate", rate, 0.0, 100.0);
        }
        between(self, "params.tracks.environment_hpa", tracks.environment_hpa, 900.0, 1100.0);
        between(self, "params.tracks.ten_to_one_minute", tracks.ten_to_one_minute, 0.5, 1.0);
    }

    fn emanuel(&mut self, emanuel: &EmanuelSpec) {
        between(self, "params.emanuel.threshold_ms", emanuel.threshold_ms, 0.0, 200.0);
        between(self, "params.emanuel.half_ms", emanuel.half_ms, 0.0, 1000.0);
        if emanuel.threshold_ms >= emanuel.half_ms {
            let allowed = format!("must be above the threshold, {}", emanuel.threshold_ms);
            self.add("params.emanuel.half_ms", &emanuel.half_ms.to_string(), &allowed);
        }
    }

    fn perturbation(&mut self, perturbation: &PerturbationSpec) {
        between(self, "params.perturbation.position_km", perturbation.position_km, 0.0, 1000.0);
        between(self, "params.perturbation.intensity", perturbation.intensity, 0.0, 1.0);
        between(self, "params.perturbation.radius", perturbation.radius, 0.0, 1.0);
    }

    fn wind(&mut self, wind: &WindSpec) {
        between(self, "params.wind.reach_km", wind.reach_km, 1.0, 1000.0);
        between(self, "params.wind.least_ms", wind.least_ms, 0.0, 200.0);
        between(self, "params.wind.step_minutes", wind.step_minutes, 1.0, 1440.0);
        between(self, "params.wind.gust_factor", wind.gust_factor, 0.5, 3.0);
        between(self, "params.wind.gradient_to_surface", wind.gradient_to_surface, 0.1, 1.0);
        between(self, "params.wind.air_density", wind.air_density, 0.5, 2.0);
    }

    fn return_periods(&mut self, periods: &[f64], years: u32) {
        if periods.is_empty() || periods.len() > RETURN_PERIODS_MAX {
            let allowed = format!("must be 1 to {RETURN_PERIODS_MAX}");
            self.add("params.return_periods", &format!("{} periods", periods.len()), &allowed);
        }
        for (position, period) in periods.iter().take(RETURN_PERIODS_MAX).enumerate() {
            let above = if position == 0 { 1.0 } else { periods[position - 1] };
            let most = f64::from(years);
            if !(*period > above && *period <= most) {
                let allowed = format!("must be above {above} and at most the years drawn, {most}");
                self.add(&format!("params.return_periods[{position}]"), &period.to_string(), &allowed);
            }
        }
    }
}

fn file(found: &mut Findings, field: &str, name: &str, inputs: &[Input]) {
    match inputs.iter().find(|input| input.name == name) {
        None => found.add(field, &format!("{name:?}"), "must be the name of an entry of `inputs`"),
        Some(input) if input.bytes > FILE_BYTES_MAX => {
            let allowed = format!("may have at most {FILE_BYTES_MAX} bytes");
            found.add(field, &format!("{name:?} with {} bytes", input.bytes), &allowed);
        }
        Some(_) => {}
    }
}

/// The number lies in `[least, most]`.
fn between(found: &mut Findings, field: &str, value: f64, least: f64, most: f64) {
    if !(least..=most).contains(&value) {
        found.add(field, &value.to_string(), &format!("must be from {least} to {most}"));
    }
}
