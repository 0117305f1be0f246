//! Two pictures as SVG: the footprint of a storm and the exceedance curves, drawn by `plotters`.
//!
//! Owns where everything lies, in whole pixels computed here: the library's own axes go through the platform's libm,
//! and a picture's bytes are part of a result. Text needs no font here; whoever shows the picture has one.

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoFont, RGBColor, TextStyle, WHITE};

use super::KernelError;
use super::outline::POLYGONS;
use super::wind::Node;
use crate::elementary::{atan2, cos, log};

const WIDTH: i32 = 860;
const HEIGHT: i32 = 560;
/// Left, top, right and bottom of the plot.
const FRAME: [i32; 4] = [90, 44, 840, 500];
/// Side of a cell in which the strongest wind is shown. *Units*: pixels.
const CELL: i32 = 6;
const DEGREES: f64 = 57.295_779_513_082_32;

const GREY: RGBColor = RGBColor(150, 150, 150);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const BLUE: RGBColor = RGBColor(31, 90, 180);
const ORANGE: RGBColor = RGBColor(214, 100, 20);
/// Colours of winds from each speed on. *Units*: m/s; the Saffir–Simpson scale's bounds.
const WINDS: [(f64, RGBColor, &str); 7] = [
    (0.0, RGBColor(200, 225, 240), "under 18"),
    (18.0, RGBColor(130, 190, 220), "18"),
    (33.0, RGBColor(250, 225, 120), "33"),
    (43.0, RGBColor(250, 180, 70), "43"),
    (50.0, RGBColor(235, 120, 50), "50"),
    (58.0, RGBColor(200, 50, 45), "58"),
    (70.0, RGBColor(120, 20, 70), "70"),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn picture(draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, KernelError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        area.fill(&WHITE)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present())
            .map_err(|_| KernelError::Output("a picture"))?;
    }
    Ok(text)
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, across: HPos) -> Drawn {
    let style =
        TextStyle::from(("sans-serif", size).into_font()).color(&BLACK).pos(Pos::new(across, VPos::Center));
    area.draw(&Text::new(text.to_string(), at, style))
}

fn line(area: &Area<'_>, points: Vec<(i32, i32)>, color: RGBColor, width: u32) -> Drawn {
    area.draw(&PathElement::new(points, color.stroke_width(width)))
}

fn frame(area: &Area<'_>, title: &str) -> Drawn {
    let [left, top, right, bottom] = FRAME;
    line(area, vec![(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], BLACK, 1)?;
    write(area, title, (left, 20), 16, HPos::Left)
}

/// A linear map from numbers to pixels.
#[derive(Clone, Copy)]
struct Scale {
    from: f64,
    pixel: f64,
    per_unit: f64,
}

impl Scale {
    fn new(from: f64, to: f64, first: i32, last: i32) -> Scale {
        Scale { from, pixel: first.into(), per_unit: f64::from(last - first) / (to - from) }
    }

    fn at(self, value: f64) -> i32 {
        (self.pixel + (value - self.from) * self.per_unit).round() as i32
    }
}

/// A step of 1, 2 or 5 times a power of ten of which at most six fit.
fn step(range: f64) -> f64 {
    let mut step = 1e-6;
    while range / step > 6.0 {
        for factor in [2.0, 2.5, 2.0] {
            if range / step > 6.0 {
                step *= factor;
            }
        }
    }
    step
}

/// Both curves over return periods. Losses descend, one a year.
pub(super) fn exceedance(largest: &[f64], total: &[f64]) -> Result<String, KernelError> {
    let [left, top, right, bottom] = FRAME;
    let years = largest.len();
    let most = total.first().copied().unwrap_or_default();
    let most = if most > 0.0 { most } else { 1.0 };
    let longest = if years > 2 { years as f64 } else { 2.0 };
    let (across, up) =
        (Scale::new(0.0, log(longest), left, right), Scale::new(0.0, most * 1.05, bottom, top));
    picture(|area| {
        let mut decade = 1.0;
        while decade <= longest {
            for period in [decade, 2.0 * decade, 5.0 * decade].into_iter().filter(|period| *period <= longest)
            {
                let x = across.at(log(period));
                line(area, vec![(x, top), (x, bottom)], FAINT, 1)?;
                write(area, &period.to_string(), (x, bottom + 14), 12, HPos::Center)?;
            }
            decade *= 10.0;
        }
        let step = step(most);
        for number in 0..=(most / step) as i32 {
            let y = up.at(step * f64::from(number));
            line(area, vec![(left, y), (right, y)], FAINT, 1)?;
            write(area, &money(step * f64::from(number)), (left - 8, y), 12, HPos::Right)?;
        }
        for (losses, color) in [(total, ORANGE), (largest, BLUE)] {
            line(area, curve(losses, across, up), color, 2)?;
        }
        frame(area, "Loss exceeded once in so many years")?;
        write(area, "return period, years", ((left + right) / 2, HEIGHT - 22), 13, HPos::Center)?;
        for (place, (words, color)) in
            [("all events of a year", ORANGE), ("largest event of a year", BLUE)].into_iter().enumerate()
        {
            let y = top + 18 + 20 * place as i32;
            line(area, vec![(left + 14, y), (left + 44, y)], color, 2)?;
            write(area, words, (left + 52, y), 13, HPos::Left)?;
        }
        Ok(())
    })
}

/// The curve's pixels, from the rarest loss on, no more of them than can be seen.
fn curve(losses: &[f64], across: Scale, up: Scale) -> Vec<(i32, i32)> {
    let mut points: Vec<(i32, i32)> = Vec::new();
    for rank in super::exceedance::curve_ranks(losses.len()) {
        let point = (across.at(log(losses.len() as f64 / rank as f64)), up.at(losses[rank - 1]));
        if points.last() != Some(&point) {
            points.push(point);
        }
    }
    points
}

/// A sum of money in a few characters.
fn money(value: f64) -> String {
    for (unit, name) in [(1e12, "tn"), (1e9, "bn"), (1e6, "m"), (1e3, "k")] {
        if value >= unit {
            return format!("{} {name}", (value / unit * 100.0).round() / 100.0);
        }
    }
    ((value * 100.0).round() / 100.0).to_string()
}

/// The strongest winds of a storm at a portfolio's places, the storm's way, and the shipped outline of coasts.
pub(super) fn footprint(
    title: &str,
    places: &[[f64; 2]],
    winds: &[f64],
    nodes: &[Node],
) -> Result<String, KernelError> {
    let map = Map::of(places);
    picture(|area| {
        for ((column, row), wind) in cells(&map, places, winds) {
            let class = WINDS.iter().rev().find(|(from, _, _)| wind >= *from).filter(|_| wind > 0.0);
            let color = class.map_or(FAINT, |(_, color, _)| *color);
            let (x, y) = (column * CELL, row * CELL);
            area.draw(&Rectangle::new([(x, y), (x + CELL, y + CELL)], color.filled()))?;
        }
        for polygon in POLYGONS {
            let corners: Vec<(i32, i32)> =
                polygon.iter().chain(polygon.first()).map(|[lon, lat]| map.at(*lat, *lon)).collect();
            pieces(area, &corners, GREY, 1)?;
        }
        let way: Vec<(i32, i32)> =
            nodes.iter().map(|node| place(node.centre)).map(|[lat, lon]| map.at(lat, lon)).collect();
        pieces(area, &way, BLACK, 2)?;
        map.ticks(area)?;
        frame(area, title)?;
        for (place, (_, color, words)) in WINDS.iter().enumerate() {
            let (x, y) = (FRAME[0] + 105 * place as i32, HEIGHT - 22);
            area.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], color.filled()))?;
            let words = if place == 0 { (*words).to_string() } else { format!("from {words}") };
            write(area, &words, (x + 18, y), 12, HPos::Left)?;
        }
        Ok(())
    })
}

/// Latitude and longitude of a unit vector. *Units*: degrees.
fn place([x, y, z]: [f64; 3]) -> [f64; 2] {
    [atan2(z, x.mul_add(x, y * y).sqrt()) * DEGREES, atan2(y, x) * DEGREES]
}

/// A map of the places and a margin, a degree of latitude as long as one of longitude is in its middle.
struct Map {
    across: Scale,
    up: Scale,
    /// South, north, west, east.
    bounds: [f64; 4],
}

impl Map {
    fn of(places: &[[f64; 2]]) -> Map {
        let [left, top, right, bottom] = FRAME;
        let first = places.first().copied().unwrap_or_default();
        let mut bounds = [first[0], first[0], first[1], first[1]];
        for [lat, lon] in places {
            let beyond = |a: f64, b: f64, less: bool| if (a < b) == less { a } else { b };
            bounds = [
                beyond(*lat, bounds[0], true),
                beyond(*lat, bounds[1], false),
                beyond(*lon, bounds[2], true),
                beyond(*lon, bounds[3], false),
            ];
        }
        let [south, north, west, east] = bounds;
        let (lat, lon) = (0.5 * (south + north), 0.5 * (west + east));
        let narrow = cos(lat / DEGREES);
        // Degrees of latitude to a pixel, so that both ranges and a margin of a quarter degree fit.
        let by_height = (north - south + 0.5) / f64::from(bottom - top);
        let by_width = (east - west + 0.5) * narrow / f64::from(right - left);
        let pixel = if by_height > by_width { by_height } else { by_width };
        let (half_height, half_width) =
            (0.5 * pixel * f64::from(bottom - top), 0.5 * pixel / narrow * f64::from(right - left));
        Map {
            across: Scale::new(lon - half_width, lon + half_width, left, right),
            up: Scale::new(lat - half_height, lat + half_height, bottom, top),
            bounds: [lat - half_height, lat + half_height, lon - half_width, lon + half_width],
        }
    }

    /// Its pixel. Longitudes are taken on the map's side of the world.
    fn at(&self, lat: f64, lon: f64) -> (i32, i32) {
        let middle = 0.5 * (self.bounds[2] + self.bounds[3]);
        let turns = ((lon - middle) / 360.0).round();
        (self.across.at((-360.0f64).mul_add(turns, lon)), self.up.at(lat))
    }

    fn ticks(&self, area: &Area<'_>) -> Drawn {
        let [left, _, _, bottom] = FRAME;
        let [south, north, west, east] = self.bounds;
        let along = |from: f64, to: f64| {
            let step = step(to - from);
            ((from / step).ceil() as i32..=(to / step).floor() as i32)
                .map(move |number| step * f64::from(number))
        };
        for lat in along(south, north) {
            write(area, &degrees(lat, "N", "S"), (left - 8, self.up.at(lat)), 12, HPos::Right)?;
        }
        for lon in along(west, east) {
            write(area, &degrees(lon, "E", "W"), (self.across.at(lon), bottom + 14), 12, HPos::Center)?;
        }
        Ok(())
    }
}

fn degrees(value: f64, plus: &str, minus: &str) -> String {
    let rounded = (value.abs() * 1000.0).round() / 1000.0;
    format!("{rounded}°{}", if value < 0.0 { minus } else { plus })
}

/// Cells by column and row with the strongest wind of their places.
fn cells(map: &Map, places: &[[f64; 2]], winds: &[f64]) -> Vec<((i32, i32), f64)> {
    let mut cells: std::collections::BTreeMap<(i32, i32), f64> = std::collections::BTreeMap::new();
    for ([lat, lon], wind) in places.iter().zip(winds) {
        let (x, y) = map.at(*lat, *lon);
        let strongest = cells.entry((x / CELL, y / CELL)).or_insert(*wind);
        *strongest = if *wind > *strongest { *wind } else { *strongest };
    }
    cells.into_iter().collect()
}

/// The parts of a line that lie in the frame: a piece with an end outside is cut at the frame.
fn pieces(area: &Area<'_>, points: &[(i32, i32)], color: RGBColor, width: u32) -> Drawn {
    for pair in points.windows(2) {
        if let Some((from, to)) = cut(pair[0], pair[1]) {
            line(area, vec![from, to], color, width)?;
        }
    }
    Ok(())
}

/// What of a straight line lies in the frame. *Source*: Liang and Barsky (1984), ACM Transactions on Graphics 3, 1–22.
fn cut(from: (i32, i32), to: (i32, i32)) -> Option<((i32, i32), (i32, i32))> {
    let [left, top, right, bottom] = FRAME.map(f64::from);
    let (x, y) = (f64::from(from.0), f64::from(from.1));
    let (dx, dy) = (f64::from(to.0) - x, f64::from(to.1) - y);
    let (mut first, mut last) = (0.0, 1.0);
    for (direction, room) in [(-dx, x - left), (dx, right - x), (-dy, y - top), (dy, bottom - y)] {
        let at = room / direction;
        if direction == 0.0 {
            if room < 0.0 {
                return None;
            }
        } else if direction < 0.0 {
            first = if at > first { at } else { first };
        } else {
            last = if at < last { at } else { last };
        }
    }
    let at = |share: f64| ((x + share * dx).round() as i32, (y + share * dy).round() as i32);
    (first < last).then(|| (at(first), at(last)))
}
