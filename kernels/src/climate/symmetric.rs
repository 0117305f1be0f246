//! Eigenvalues and eigenvectors of a symmetric matrix, the same bits on every machine.
//!
//! Householder reflections make the matrix tridiagonal, the implicit QL iteration finds all eigenvalues,
//! and the reflections take the vectors that are wanted back. *Order*: every operation has its place; sums
//! of products run in eight lanes that are added in a fixed order. Nothing here calls a library.
//!
//! *Source*: Martin, Reinsch and Wilkinson (1968), Numerische Mathematik 11, 181 (`tred2`); Dubrulle, Martin
//! and Wilkinson (1968), Numerische Mathematik 12, 377 (`imtql2`), with what is negligible as in Bowdler, Martin, Reinsch
//! and Wilkinson (1968), Numerische Mathematik 11, 293 (`tql2`).

use crate::isa::{Isa, for_each_isa};

/// Lanes of a sum of products.
const LANES: usize = 8;
/// Columns of the vectors that are rotated together: all rotations of a batch pass over 512 KiB at most.
const STRIP: usize = 16;
/// Rotations that are gathered before they are applied: 6 MiB of them.
const BATCH: usize = 1 << 18;
/// QL iterations for one eigenvalue. *Source*: `imtql2`; two are usual.
const ITERATIONS_MAX: usize = 30;

/// The largest eigenvalues, descending, and their vectors.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Leading {
    pub(super) values: Vec<f64>,
    /// One after the other, each of length one.
    pub(super) vectors: Vec<f64>,
}

/// Why there are no eigenvalues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EigenError {
    Cancelled,
    /// An iteration did not end, or the matrix is not finite.
    NotConverged,
}

/// The `count` largest eigenvalues and vectors of a symmetric matrix, of which the lower triangle is read.
///
/// *Shape*: `side × side` elements by rows; they are overwritten.
pub(super) fn leading(
    isa: Isa,
    matrix: &mut [f64],
    side: usize,
    count: usize,
    cancelled: &dyn Fn() -> bool,
) -> Result<Leading, EigenError> {
    assert_eq!(matrix.len(), side * side);
    assert!((1..=side).contains(&count));
    let exponent = scale(matrix)?;
    let mut reduced = tridiagonal(isa, matrix, side, cancelled)?;
    let mut vectors = Vectors::identity(side);
    ql(isa, &mut reduced, &mut vectors, cancelled)?;

    let mut order: Vec<usize> = (0..side).collect();
    // Stable: of equal values the earlier one comes first.
    order.sort_by(|a, b| reduced.diagonal[*b].total_cmp(&reduced.diagonal[*a]));
    let mut all = Leading { values: Vec::with_capacity(count), vectors: Vec::with_capacity(count * side) };
    for position in order.into_iter().take(count) {
        let mut vector = vectors.row(position);
        for row in 1..side {
            let (u, norm) = (&matrix[row * side..][..row], reduced.norms[row]);
            if norm != 0.0 {
                let along = dot(isa, u, &vector[..row]) / norm;
                add_multiple(isa, -along, u, &mut vector[..row]);
            }
        }
        all.values.push(power_of_two_times(reduced.diagonal[position], exponent));
        all.vectors.extend(vector);
    }
    Ok(all)
}

/// Divides by the power of two of the largest element, so that squares neither overflow nor vanish.
fn scale(matrix: &mut [f64]) -> Result<i32, EigenError> {
    let largest = matrix.iter().map(|element| element.abs().to_bits()).max().unwrap_or(0);
    if largest >= f64::INFINITY.to_bits() {
        return Err(EigenError::NotConverged);
    }
    // Of subnormal matrices, and of zero, nothing is left to scale.
    let exponent = if largest >> 52 == 0 { 0 } else { (largest >> 52) as i32 - 1023 };
    matrix.iter_mut().for_each(|element| *element = power_of_two_times(*element, -exponent));
    Ok(exponent)
}

/// `value * 2^exponent`, for exponents of doubles: in two steps, since one factor might not be a double.
fn power_of_two_times(value: f64, exponent: i32) -> f64 {
    let power = |exponent: i32| f64::from_bits(((1023 + exponent) as u64) << 52);
    let half = exponent / 2;
    value * power(half) * power(exponent - half)
}

/// A tridiagonal matrix, and what took it there: row `i` of the reduced matrix holds a reflection's vector
/// in its first `i` elements.
struct Reduced {
    diagonal: Vec<f64>,
    /// Element `i` stands between `i` and `i + 1`; the last is zero.
    beside: Vec<f64>,
    /// Half the squared length of each reflection's vector; zero where nothing is reflected.
    norms: Vec<f64>,
}

fn tridiagonal(
    isa: Isa,
    matrix: &mut [f64],
    side: usize,
    cancelled: &dyn Fn() -> bool,
) -> Result<Reduced, EigenError> {
    let mut beside = vec![0.0; side];
    let mut norms = vec![0.0; side];
    let mut product = vec![0.0; side];
    for row in (1..side).rev() {
        if cancelled() {
            return Err(EigenError::Cancelled);
        }
        let (above, u) = matrix.split_at_mut(row * side);
        let u = &mut u[..row];
        let last = u[row - 1];
        // What lies left of the place beside the diagonal; where it is zero already, nothing is done.
        if dot(isa, &u[..row - 1], &u[..row - 1]) == 0.0 {
            beside[row - 1] = last;
            continue;
        }
        let squares = dot(isa, u, u);
        let length = squares.sqrt();
        let reflected = if last > 0.0 { -length } else { length };
        beside[row - 1] = reflected;
        let norm = squares - last * reflected;
        u[row - 1] = last - reflected;
        norms[row] = norm;

        // p = A u / norm, of the lower triangle of A.
        let p = &mut product[..row];
        p.fill(0.0);
        for (position, line) in above.chunks_exact(side).enumerate() {
            let factor = u[position];
            p[position] += dot(isa, &line[..=position], &u[..=position]);
            add_multiple(isa, factor, &line[..position], &mut p[..position]);
        }
        p.iter_mut().for_each(|element| *element /= norm);
        // q = p − (uᵀp / 2 norm) u; A − u qᵀ − q uᵀ.
        let half = dot(isa, u, p) / (norm + norm);
        add_multiple(isa, -half, u, p);
        for (position, line) in above.chunks_exact_mut(side).enumerate() {
            subtract_two(
                isa,
                [u[position], p[position]],
                &p[..=position],
                &u[..=position],
                &mut line[..=position],
            );
        }
    }
    let diagonal = (0..side).map(|row| matrix[row * side + row]).collect();
    Ok(Reduced { diagonal, beside, norms })
}

fn ql(
    isa: Isa,
    reduced: &mut Reduced,
    vectors: &mut Vectors,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), EigenError> {
    let Reduced { diagonal: d, beside: e, .. } = reduced;
    let side = d.len();
    let larger = |largest: f64, (d, e): (&f64, &f64)| {
        let size = d.abs() + e.abs();
        if size > largest { size } else { largest }
    };
    // Below this an element is what rounding left of the whole, and an iteration on it need not end.
    let nothing = f64::EPSILON * d.iter().zip(e.iter()).fold(0.0, larger);
    let mut batch = Vec::new();
    for first in 0..side {
        let mut iterations = 0;
        loop {
            if cancelled() {
                return Err(EigenError::Cancelled);
            }
            let small = |at: &usize| {
                let beside = e[*at].abs();
                beside <= f64::EPSILON * (d[*at].abs() + d[*at + 1].abs()) || beside <= nothing
            };
            let last = (first..side - 1).find(small).unwrap_or(side - 1);
            if last == first {
                break;
            }
            iterations += 1;
            if iterations > ITERATIONS_MAX {
                return Err(EigenError::NotConverged);
            }
            sweep(d, e, first, last, &mut batch);
            if batch.len() >= BATCH {
                vectors.rotate(isa, &batch);
                batch.clear();
            }
        }
    }
    vectors.rotate(isa, &batch);
    Ok(())
}

/// One implicit QL iteration on the block from `first` to `last`.
fn sweep(d: &mut [f64], e: &mut [f64], first: usize, last: usize, batch: &mut Vec<Rotation>) {
    let ratio = (d[first + 1] - d[first]) / (2.0 * e[first]);
    let length = (ratio * ratio + 1.0).sqrt();
    let signed = if ratio < 0.0 { ratio - length } else { ratio + length };
    let mut g = d[last] - d[first] + e[first] / signed;
    let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
    for at in (first..last).rev() {
        let f = sine * e[at];
        let b = cosine * e[at];
        let radius = (f * f + g * g).sqrt();
        e[at + 1] = radius;
        if radius == 0.0 {
            // The block falls apart here.
            d[at + 1] -= shift;
            e[last] = 0.0;
            return;
        }
        sine = f / radius;
        cosine = g / radius;
        g = d[at + 1] - shift;
        let r = (d[at] - g) * sine + 2.0 * cosine * b;
        shift = sine * r;
        d[at + 1] = g + shift;
        g = cosine * r - b;
        batch.push(Rotation { row: at, sine, cosine });
    }
    d[first] -= shift;
    e[first] = g;
    e[last] = 0.0;
}

/// Of row `row` and the next.
#[derive(Clone, Copy, Debug)]
struct Rotation {
    row: usize,
    sine: f64,
    cosine: f64,
}

/// Eigenvectors as rows, in strips of columns.
struct Vectors {
    strips: Vec<[f64; STRIP]>,
    side: usize,
}

impl Vectors {
    fn identity(side: usize) -> Vectors {
        let mut strips = vec![[0.0; STRIP]; side.div_ceil(STRIP) * side];
        for row in 0..side {
            strips[row / STRIP * side + row][row % STRIP] = 1.0;
        }
        Vectors { strips, side }
    }

    fn row(&self, row: usize) -> Vec<f64> {
        let strips = self.strips.chunks_exact(self.side);
        let mut all: Vec<f64> = strips.flat_map(|strip| strip[row]).collect();
        all.truncate(self.side);
        all
    }

    fn rotate(&mut self, isa: Isa, batch: &[Rotation]) {
        self.strips.chunks_exact_mut(self.side).for_each(|strip| rotate(isa, strip, batch));
    }
}

for_each_isa! {
    fn rotate(strip: &mut [[f64; STRIP]], batch: &[Rotation]) = rotate_body;
}

#[inline(always)]
fn rotate_body(strip: &mut [[f64; STRIP]], batch: &[Rotation]) {
    for Rotation { row, sine, cosine } in batch {
        let [low, high] = [strip[*row], strip[row + 1]];
        for lane in 0..STRIP {
            strip[row + 1][lane] = sine.mul_add(low[lane], cosine * high[lane]);
            strip[*row][lane] = cosine.mul_add(low[lane], -(sine * high[lane]));
        }
    }
}

for_each_isa! {
    fn dot(a: &[f64], b: &[f64]) -> f64 = dot_body;
}

#[inline(always)]
fn dot_body(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    for (lane, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] = a.mul_add(*b, lanes[lane]);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

for_each_isa! {
    fn add_multiple(factor: f64, from: &[f64], to: &mut [f64]) = add_multiple_body;
}

#[inline(always)]
fn add_multiple_body(factor: f64, from: &[f64], to: &mut [f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = factor.mul_add(*from, *to);
    }
}

for_each_isa! {
    fn subtract_two(factors: [f64; 2], a: &[f64], b: &[f64], from: &mut [f64]) = subtract_two_body;
}

#[inline(always)]
fn subtract_two_body(factors: [f64; 2], a: &[f64], b: &[f64], from: &mut [f64]) {
    for ((from, a), b) in from.iter_mut().zip(a).zip(b) {
        let less = (-factors[0]).mul_add(*a, *from);
        *from = (-factors[1]).mul_add(*b, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Elements from a few bits, symmetric.
    fn matrix(side: usize, entry: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let places = (0..side).flat_map(|row| (0..side).map(move |col| (row, col)));
        places.map(|(row, col)| if row < col { entry(col, row) } else { entry(row, col) }).collect()
    }

    fn mixed(row: usize, col: usize) -> f64 {
        ((row * 31 + col * 17 + row * col * 7) % 101) as f64 / 101.0 - 0.5
    }

    fn of(matrix: &[f64], side: usize, count: usize, isa: Isa) -> Leading {
        leading(isa, &mut matrix.to_vec(), side, count, &|| false).unwrap()
    }

    #[test]
    fn vectors_are_orthonormal_and_solve_the_equation() {
        for side in [1, 2, 3, 5, 16, 17, 64, 131] {
            let matrix = matrix(side, mixed);
            let found = of(&matrix, side, side, Isa::detect());
            let vectors: Vec<&[f64]> = found.vectors.chunks_exact(side).collect();
            let norm = found.values.iter().fold(1.0, |norm: f64, value| norm + value.abs());
            for (value, vector) in found.values.iter().zip(&vectors) {
                for row in 0..side {
                    let product: f64 = (0..side).map(|col| matrix[row * side + col] * vector[col]).sum();
                    assert!((product - value * vector[row]).abs() <= 1e-14 * norm, "{side}");
                }
                for other in &vectors {
                    let product: f64 = vector.iter().zip(*other).map(|(a, b)| a * b).sum();
                    let expected = f64::from(std::ptr::eq(vector.as_ptr(), other.as_ptr()));
                    assert!((product - expected).abs() <= 1e-13, "{side}");
                }
            }
            assert!(found.values.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn known_eigenvalues_come_out() {
        // The second difference of 40 places: 2 − 2 cos(πk/41).
        let side = 40;
        let second = matrix(side, |row, col| match row - col {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        });
        let found = of(&second, side, side, Isa::detect());
        for (position, value) in found.values.iter().enumerate() {
            let angle = std::f64::consts::PI * (side - position) as f64 / 41.0;
            assert!((value - (2.0 - 2.0 * crate::elementary::cos(angle))).abs() < 4e-15);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let side = 77;
        let matrix = matrix(side, mixed);
        let first = of(&matrix, side, 5, Isa::PLAIN);
        for isa in Isa::available() {
            let found = of(&matrix, side, 5, isa);
            let bits = |leading: &Leading| -> Vec<u64> {
                leading.values.iter().chain(&leading.vectors).map(|number| number.to_bits()).collect()
            };
            assert_eq!(bits(&found), bits(&first), "{isa}");
        }
    }

    #[test]
    fn few_of_the_vectors_are_those_of_all() {
        let matrix = matrix(30, mixed);
        let (all, few) = (of(&matrix, 30, 30, Isa::detect()), of(&matrix, 30, 4, Isa::detect()));
        assert_eq!(few.values, all.values[..4]);
        assert_eq!(few.vectors, all.vectors[..4 * 30]);
    }

    #[test]
    fn zero_huge_and_tiny_matrices_and_those_of_rank_one_have_eigenvalues() {
        let zero = of(&[0.0; 9], 3, 3, Isa::detect());
        assert_eq!(zero.values, [0.0; 3]);
        for power in [-900, 0, 900] {
            let unit = power_of_two_times(1.0, power);
            let found = of(&matrix(4, |_, _| unit), 4, 4, Isa::detect());
            assert!((found.values[0] / unit - 4.0).abs() < 1e-14, "2^{power}");
            assert!(found.values[1..].iter().all(|value| (value / unit).abs() < 1e-14), "2^{power}");
        }
    }

    #[test]
    fn a_spectrum_that_falls_into_rounding_has_its_largest_eigenvalues() {
        // Squares of a field whose modes fall by a factor each: most eigenvalues are rounding.
        let (side, cells, falls) = (200, 210, 0.9);
        let wave =
            |place: usize, mode: usize| crate::elementary::cos((place * (2 * mode + 1)) as f64 * 0.0075);
        let mut field = vec![0.0; side * cells];
        let mut size = 1.0;
        for mode in 0..side {
            for (at, element) in field.iter_mut().enumerate() {
                *element += size * wave(at / cells, mode) * wave(at % cells, mode);
            }
            size *= falls;
        }
        let squares = matrix(side, |row, col| {
            dot(Isa::PLAIN, &field[row * cells..][..cells], &field[col * cells..][..cells])
        });
        let found = of(&squares, side, 40, Isa::detect());
        let trace: f64 = (0..side).map(|row| squares[row * side + row]).sum();
        let sum: f64 = found.values.iter().sum();
        assert!(sum <= trace && sum > 0.999 * trace, "{sum} of {trace}");
    }

    #[test]
    fn a_matrix_that_is_not_finite_is_refused() {
        let found = leading(Isa::detect(), &mut [1.0, 0.0, 0.0, f64::NAN], 2, 1, &|| false);
        assert_eq!(found, Err(EigenError::NotConverged));
    }
}
