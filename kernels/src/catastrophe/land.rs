//! Where land is: a grid from a file, or the shipped outline.
//!
//! Owns the reading of Esri ASCII grids and the question whether a place is land.

use super::fault::{Fault, Role, text};
use super::outline::POLYGONS;

/// Most cells: a hundredth of a degree over the Gulf of Mexico and the Caribbean are 14 million.
const CELLS_MAX: usize = 1 << 25;

/// A map of land.
#[derive(Clone, Debug, PartialEq)]
pub enum Land {
    /// The shipped outline of the western Atlantic's coasts.
    Outline,
    /// Cells of equal size.
    Grid(Grid),
}

/// Cells by rows from the north.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    land: Vec<bool>,
    columns: usize,
    /// *Units*: degrees, as all that follow.
    west: f64,
    north: f64,
    cell: f64,
}

impl Land {
    /// Whether a place is land. What lies outside a grid is sea.
    pub fn is_land(&self, lat: f64, lon: f64) -> bool {
        match self {
            Land::Outline => {
                let lon = if lon > 180.0 { lon - 360.0 } else { lon };
                POLYGONS.iter().any(|polygon| inside(polygon, lat, lon))
            }
            Land::Grid(grid) => grid.is_land(lat, lon),
        }
    }
}

impl Grid {
    fn is_land(&self, lat: f64, lon: f64) -> bool {
        let row = (self.north - lat) / self.cell;
        // A grid may count longitudes from 0 or from -180.
        [lon, lon + 360.0, lon - 360.0].iter().any(|lon| {
            let column = (lon - self.west) / self.cell;
            let there = row >= 0.0 && column >= 0.0 && column < self.columns as f64;
            // A row too far south lies behind the last cell.
            there && self.land.get(row as usize * self.columns + column as usize).copied().unwrap_or(false)
        })
    }
}

/// Whether a line to the east crosses the polygon's border an odd number of times.
fn inside(polygon: &[[f64; 2]], lat: f64, lon: f64) -> bool {
    let mut within = false;
    let mut last = polygon[polygon.len() - 1];
    for &corner in polygon {
        let ([x, y], [last_x, last_y]) = (corner, last);
        if (y > lat) != (last_y > lat) && lon < (last_x - x) * (lat - y) / (last_y - y) + x {
            within = !within;
        }
        last = corner;
    }
    within
}

/// Reads an Esri ASCII grid: `ncols`, `nrows`, `xllcorner` or `xllcenter`, `yllcorner` or `yllcenter`, `cellsize`,
/// perhaps `NODATA_value`, then the cells by rows from the north. A cell above zero is land.
pub(super) fn read(bytes: &[u8]) -> Result<Land, Fault> {
    let wrong = |line: u64, what: String| Fault::at(Role::Mask, line, what);
    let mut lines = (1..).zip(text(Role::Mask, bytes)?.lines()).peekable();
    let mut header = Header::default();
    while let Some((line, content)) =
        lines.next_if(|(_, line)| line.trim_start().starts_with(char::is_alphabetic))
    {
        header
            .take(content)
            .ok_or_else(|| wrong(line, format!("{content:?} is no header of an Esri ASCII grid")))?;
    }
    let Header {
        columns: Some(columns),
        rows: Some(rows),
        west: Some(west),
        south: Some(south),
        cell: Some(cell),
        ..
    } = header
    else {
        return Err(wrong(1, "needs ncols, nrows, xllcorner, yllcorner and cellsize".into()));
    };
    let sane = columns >= 1.0 && rows >= 1.0 && cell > 0.0 && columns * rows <= CELLS_MAX as f64;
    if !sane || columns.fract() != 0.0 || rows.fract() != 0.0 {
        return Err(wrong(
            1,
            format!("{columns} x {rows} cells of {cell} degrees: must be 1 to {CELLS_MAX} cells"),
        ));
    }
    let (west, south) = if header.centred { (west - cell / 2.0, south - cell / 2.0) } else { (west, south) };
    let count = columns as usize * rows as usize;
    let mut land = Vec::with_capacity(count);
    for (line, content) in lines {
        for word in content.split_ascii_whitespace() {
            let value: f64 = word.parse().map_err(|_| wrong(line, format!("{word:?} is no number")))?;
            land.push(value > 0.0 && Some(value) != header.missing);
        }
        if land.len() > count {
            return Err(wrong(line, format!("more than the {count} cells that its header names")));
        }
    }
    if land.len() < count {
        return Err(wrong(
            0,
            format!("{} of the {count} cells that its header names: it was cut short", land.len()),
        ));
    }
    Ok(Land::Grid(Grid { land, columns: columns as usize, west, north: rows.mul_add(cell, south), cell }))
}

#[derive(Default)]
struct Header {
    columns: Option<f64>,
    rows: Option<f64>,
    west: Option<f64>,
    south: Option<f64>,
    cell: Option<f64>,
    missing: Option<f64>,
    centred: bool,
}

impl Header {
    /// Takes a line; nothing where it is none of a header.
    fn take(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let (name, value) = (words.next()?.to_ascii_lowercase(), words.next()?.parse::<f64>().ok()?);
        let place = match name.as_str() {
            "ncols" => &mut self.columns,
            "nrows" => &mut self.rows,
            "xllcorner" | "xllcenter" => &mut self.west,
            "yllcorner" | "yllcenter" => &mut self.south,
            "cellsize" => &mut self.cell,
            "nodata_value" => &mut self.missing,
            _ => return None,
        };
        self.centred |= name == "xllcenter";
        *place = value.is_finite().then_some(value);
        place.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outline_knows_towns_from_waters() {
        let land = [
            (25.8, -80.4, "west of Miami"),
            (28.5, -81.4, "Orlando"),
            (29.76, -95.4, "Houston"),
            (30.45, -91.15, "Baton Rouge"),
            (33.75, -84.4, "Atlanta"),
            (40.8, -74.5, "New Jersey"),
            (22.8, -82.2, "south of Havana"),
            (19.0, -71.0, "Hispaniola"),
            (18.2, -66.4, "Puerto Rico"),
            (18.1, -77.3, "Jamaica"),
            (20.5, -89.5, "Yucatan"),
            (19.4, -99.1, "Mexico City"),
            (14.6, -86.5, "Honduras"),
        ];
        let sea = [
            (25.7, -79.3, "Florida Strait"),
            (26.0, -87.0, "Gulf of Mexico"),
            (15.0, -72.0, "Caribbean Sea"),
            (30.0, -75.0, "Atlantic"),
            (24.0, -76.5, "Bahamas' banks"),
            (29.0, -84.5, "Apalachee Bay"),
            (20.2, -86.0, "Yucatan Channel"),
            (18.5, -95.0 + 1.5, "Bay of Campeche"),
            (36.0, -73.0, "off Hatteras"),
        ];
        for (lat, lon, place) in land {
            assert!(Land::Outline.is_land(lat, lon), "{place}");
            assert!(Land::Outline.is_land(lat, lon + 360.0), "{place}");
        }
        for (lat, lon, place) in sea {
            assert!(!Land::Outline.is_land(lat, lon), "{place}");
        }
    }

    #[test]
    fn a_grid_is_read_from_the_north_and_ends_in_the_sea() {
        let text =
            b"ncols 3\nnrows 2\nxllcorner 279\nyllcorner 25\ncellsize 1\nNODATA_value 9\n0 1 9\n1 0 0\n";
        let land = read(text).unwrap();
        let at = |lat, lon| land.is_land(lat, lon);
        assert_eq!(
            [at(26.5, 280.5), at(26.5, -79.5), at(26.5, 281.5), at(25.5, -80.5)],
            [true, true, false, true]
        );
        assert_eq!([at(24.5, 279.5), at(27.5, 280.5), at(25.5, 282.5), at(25.5, 278.5)], [false; 4]);
    }

    #[test]
    fn a_grid_cut_short_or_too_long_is_refused_in_words() {
        let fault = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        let header = "ncols 2\nnrows 2\nxllcorner 0\nyllcorner 0\ncellsize 1\n";
        assert_eq!(
            fault(&format!("{header}1 0\n")),
            "the land mask: 2 of the 4 cells that its header names: it was cut short"
        );
        assert_eq!(
            fault(&format!("{header}1 0\n1 0 1\n")),
            "the land mask, line 7: more than the 4 cells that its header names"
        );
        assert_eq!(fault(&format!("{header}1 x\n")), "the land mask, line 6: \"x\" is no number");
        assert!(fault("1 0 1\n").contains("needs ncols"));
    }
}
