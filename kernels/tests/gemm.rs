//! Products of matrices against three loops that say what an element is, bit for bit, and against the truth.
//!
//! The committed hashes are what a result's digest rests on: a change here changes every product's digest.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use support::Random;
use tessera_kernels::gemm::freivalds::{Band, Check, Vectors, Verdict};
use tessera_kernels::gemm::{Element, GemmError, Product, Triangle, View, gemm, syrk};
use tessera_kernels::isa::Isa;
use tessera_kernels::philox::Schedule;
use tessera_protocol::exact::ExactSum;

/// The operations the definition is written in, and bits to compare.
trait Real: Element {
    fn fused(self, b: Self, c: Self) -> Self;
    fn times(self, b: Self) -> Self;
    fn plus(self, b: Self) -> Self;
    fn to_bits64(self) -> u64;
    fn from_f64(value: f64) -> Self;
    /// Any exponent in the range, any mantissa, either sign.
    fn wild(random: &mut Random, exponents: std::ops::Range<i32>) -> Self {
        let span = (exponents.end - exponents.start) as u64;
        let exponent = exponents.start + (random.next() % span) as i32;
        let scale = f64::from_bits(((1023 + exponent) as u64) << 52);
        Self::from_f64((random.unit() * 2.0 - 1.0) * scale)
    }
}

macro_rules! real {
    ($type:ident) => {
        impl Real for $type {
            fn fused(self, b: Self, c: Self) -> Self {
                self.mul_add(b, c)
            }
            fn times(self, b: Self) -> Self {
                self * b
            }
            fn plus(self, b: Self) -> Self {
                self + b
            }
            fn to_bits64(self) -> u64 {
                self.to_bits().into()
            }
            fn from_f64(value: f64) -> Self {
                value as $type
            }
        }
    };
}
real!(f32);
real!(f64);

/// A matrix with gaps between its elements, of any order.
struct Matrix<T> {
    data: Vec<T>,
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<T: Real> Matrix<T> {
    fn random(
        random: &mut Random,
        [rows, cols]: [usize; 2],
        mut element: impl FnMut(&mut Random) -> T,
    ) -> Self {
        let (gap, pad) = (1 + random.next() as usize % 3, random.next() as usize % 3);
        let strides = match random.next() % 3 {
            0 => [cols + pad, 1],
            1 => [1, rows + pad],
            _ => [gap * (cols + pad), gap],
        };
        let elements = rows * strides[0] + cols * strides[1] + 1;
        Matrix { data: (0..elements).map(|_| element(random)).collect(), shape: [rows, cols], strides }
    }

    fn view(&self) -> View<'_, T> {
        View::new(&self.data, self.shape, self.strides).unwrap()
    }
}

/// The definition, in the order it is written in.
fn defined<T: Real>(
    [alpha, beta]: [T; 2],
    [a, b, c]: [View<'_, T>; 3],
    [k0, k1]: [usize; 2],
    [i, j]: [usize; 2],
) -> T {
    let mut acc = T::ZERO;
    for k in k0..k1 {
        acc = a.at(i, k).fused(b.at(k, j), acc);
    }
    if k0 > 0 || beta == T::ZERO { alpha.times(acc) } else { alpha.fused(acc, beta.times(c.at(i, j))) }
}

fn bits<T: Real>(values: &[T]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits64()).collect()
}

/// As whoever gathers panels adds a later one to the sum of those before it.
fn add_to<T: Real>(sum: &mut [T], panel: &[T]) {
    sum.iter_mut().zip(panel).for_each(|(sum, panel)| *sum = sum.plus(*panel));
}

fn never() -> bool {
    false
}

/// Edges of every micro-kernel's tile, or anything below 70.
fn side(random: &mut Random) -> usize {
    const EDGES: [usize; 16] = [0, 1, 2, 5, 6, 7, 8, 9, 15, 16, 17, 24, 25, 47, 48, 49];
    match random.next() % 3 {
        0 => EDGES[random.next() as usize % EDGES.len()],
        _ => random.next() as usize % 70,
    }
}

fn op<T: Real>(view: View<'_, T>, swap: bool) -> View<'_, T> {
    if swap { view.transposed() } else { view }
}

fn coefficient<T: Real>(random: &mut Random) -> T {
    T::from_f64([0.0, 1.0, -1.0, 0.3][random.next() as usize % 4])
}

fn compare_with_the_definition<T: Real>(seed: u64, cases: usize, exponents: std::ops::Range<i32>) {
    let mut random = Random::new(seed);
    for case in 0..cases {
        let [m, n, depth] = [side(&mut random), side(&mut random), side(&mut random)];
        let element = |random: &mut Random| match random.next() % 16 {
            0 => T::from_f64(0.0),
            1 => T::from_f64(-0.0),
            _ => T::wild(random, exponents.clone()),
        };
        let swapped = [random.next() & 1 == 0, random.next() & 1 == 0];
        let stored = |shape: [usize; 2], swap: bool| if swap { [shape[1], shape[0]] } else { shape };
        let a = Matrix::random(&mut random, stored([m, depth], swapped[0]), element);
        let b = Matrix::random(&mut random, stored([depth, n], swapped[1]), element);
        let c = Matrix::random(&mut random, [m, n], element);
        let views = [op(a.view(), swapped[0]), op(b.view(), swapped[1]), c.view()];
        let [alpha, beta] = [coefficient(&mut random), coefficient(&mut random)];
        let product = Product::new(alpha, views[0], views[1]).unwrap().adding(beta, views[2]).unwrap();
        let cut = if depth < 2 { depth } else { 1 + random.next() as usize % (depth - 1) };
        // Without a cut they are all the same.
        for k in [0..cut, if cut == depth { 0..depth } else { cut..depth }, 0..depth] {
            let expected: Vec<T> = (0..m * n)
                .map(|place| defined([alpha, beta], views, [k.start, k.end], [place / n, place % n]))
                .collect();
            for isa in Isa::available() {
                let mut out = vec![T::from_f64(f64::NAN); m * n];
                gemm(isa, &product, k.clone(), &mut out, &never).unwrap();
                assert_eq!(
                    bits(&out),
                    bits(&expected),
                    "{isa}, seed {seed}, case {case}: {m}x{n}x{depth}, {k:?}"
                );
            }
        }
    }
}

#[test]
fn every_element_has_the_bits_of_its_definition_on_every_instruction_set() {
    compare_with_the_definition::<f64>(1, 250, -3..4);
    compare_with_the_definition::<f32>(2, 250, -3..4);
}

#[test]
fn subnormal_numbers_and_wide_scales_keep_their_bits() {
    compare_with_the_definition::<f64>(3, 60, -545..-500);
    compare_with_the_definition::<f32>(4, 60, -80..-55);
    compare_with_the_definition::<f64>(5, 60, -300..300);
    compare_with_the_definition::<f32>(6, 60, -50..50);
}

/// 340 deep, 600 wide: more than one block in every direction but that of the rows, on every instruction set.
#[test]
fn blocks_of_every_cache_level_leave_no_trace() {
    fn compare<T: Real>(shape: [usize; 3]) {
        let [m, n, depth] = shape;
        let mut random = Random::new(7);
        let element = |random: &mut Random| T::wild(random, -3..4);
        let (a, b) = (
            Matrix::random(&mut random, [m, depth], element),
            Matrix::random(&mut random, [depth, n], element),
        );
        let product = Product::new(T::from_f64(0.3), a.view(), b.view()).unwrap();
        for isa in Isa::available() {
            let mut out = vec![T::ZERO; m * n];
            gemm(isa, &product, 0..depth, &mut out, &never).unwrap();
            for _ in 0..2000 {
                let [i, j] = [random.next() as usize % m, random.next() as usize % n];
                let zero = [T::from_f64(0.3), T::ZERO];
                let expected = defined(zero, [a.view(), b.view(), a.view()], [0, depth], [i, j]);
                assert_eq!(out[i * n + j].to_bits64(), expected.to_bits64(), "{isa} {shape:?} ({i}, {j})");
            }
        }
    }
    compare::<f64>([30, 700, 900]);
    compare::<f32>([30, 700, 1700]);
    compare::<f64>([3100, 20, 30]);
}

#[test]
fn a_product_without_depth_is_alpha_times_zero_plus_beta_c() {
    let c = [1.5, -0.0, 3.0, -2.0];
    let empty = View::row_major(&[], 2, 0).unwrap();
    let product = Product::new(-1.0, empty, empty.transposed()).unwrap();
    let scaled = product.adding(0.3, View::row_major(&c, 2, 2).unwrap()).unwrap();
    for isa in Isa::available() {
        let mut out = [f64::NAN; 4];
        gemm(isa, &product, 0..0, &mut out, &never).unwrap();
        assert_eq!(bits(&out), bits(&[-0.0; 4]));
        gemm(isa, &scaled, 0..0, &mut out, &never).unwrap();
        assert_eq!(bits(&out), bits(&c.map(|c| (-1.0f64).mul_add(0.0, 0.3 * c))));
    }
}

/// If `k` were padded with zeros, −0 would become +0.
#[test]
fn negative_zeros_survive() {
    let tiny = f64::from_bits(1);
    let a = [-tiny; 3];
    for isa in Isa::available() {
        let (a, b) = (View::row_major(&a, 3, 1).unwrap(), View::row_major(&[0.25; 5], 1, 5).unwrap());
        let mut out = [1.0; 15];
        gemm(isa, &Product::new(1.0, a, b).unwrap(), 0..1, &mut out, &never).unwrap();
        assert_eq!(bits(&out), bits(&[-0.0; 15]), "{isa}");
    }
}

#[test]
fn c_is_not_read_when_beta_is_zero() {
    let (ones, nans) = ([1.0; 4], [f64::NAN; 4]);
    let view = View::row_major(&ones, 2, 2).unwrap();
    let product = Product::new(1.0, view, view).unwrap();
    let product = product.adding(-0.0, View::row_major(&nans, 2, 2).unwrap()).unwrap();
    let mut out = nans;
    gemm(Isa::detect(), &product, 0..2, &mut out, &never).unwrap();
    assert_eq!(out, [2.0; 4]);
}

#[test]
fn panels_are_added_in_order_and_rounded_each_time() {
    let mut random = Random::new(8);
    let element = |random: &mut Random| f64::wild(random, -3..4);
    let (a, b) =
        (Matrix::random(&mut random, [9, 50], element), Matrix::random(&mut random, [50, 11], element));
    let c = Matrix::random(&mut random, [9, 11], element);
    let product = Product::new(0.3, a.view(), b.view()).unwrap().adding(-1.0, c.view()).unwrap();
    let cuts = [[0, 20], [20, 21], [21, 50]];
    for isa in Isa::available() {
        let (mut sum, mut panel) = (vec![0.0; 99], vec![0.0; 99]);
        gemm(isa, &product, 0..20, &mut sum, &never).unwrap();
        for [start, end] in &cuts[1..] {
            gemm(isa, &product, *start..*end, &mut panel, &never).unwrap();
            add_to(&mut sum, &panel);
        }
        let expected: Vec<f64> = (0..99)
            .map(|place| {
                let part =
                    |cut| defined([0.3, -1.0], [a.view(), b.view(), c.view()], cut, [place / 11, place % 11]);
                (part(cuts[0]) + part(cuts[1])) + part(cuts[2])
            })
            .collect();
        assert_eq!(bits(&sum), bits(&expected), "{isa}");
    }
}

#[test]
fn tiles_are_the_whole_cut_up() {
    let mut random = Random::new(9);
    let element = |random: &mut Random| f32::wild(random, -3..4);
    let (a, b) =
        (Matrix::random(&mut random, [61, 33], element), Matrix::random(&mut random, [33, 67], element));
    let c = Matrix::random(&mut random, [61, 67], element);
    let product = Product::new(0.3, a.view(), b.view()).unwrap().adding(-1.0, c.view()).unwrap();
    let mut whole = vec![0.0; 61 * 67];
    gemm(Isa::detect(), &product, 0..33, &mut whole, &never).unwrap();
    for (rows, cols) in [(0..20, 0..67), (20..61, 5..30), (60..61, 66..67), (3..3, 0..9)] {
        let mut tile = vec![0.0; rows.len() * cols.len()];
        let part = product.tile(rows.clone(), cols.clone()).unwrap();
        gemm(Isa::detect(), &part, 0..33, &mut tile, &never).unwrap();
        let expected: Vec<f32> = rows.flat_map(|row| whole[row * 67..][cols.clone()].to_vec()).collect();
        assert_eq!(bits(&tile), bits(&expected));
    }
}

#[test]
fn a_triangle_is_that_of_the_whole_product_and_the_rest_is_zero() {
    let mut random = Random::new(11);
    let element = |random: &mut Random| f64::wild(random, -3..4);
    for case in 0..40 {
        let [n, depth] = [side(&mut random), side(&mut random)];
        let a = Matrix::random(&mut random, [n, depth], element);
        let t = Matrix::random(&mut random, [depth, n], element);
        let c = Matrix::random(&mut random, [n, n], element);
        for view in [a.view(), t.view().transposed()] {
            let product = Product::gram(-1.0, view).unwrap().adding(0.3, c.view()).unwrap();
            for isa in Isa::available() {
                let mut whole = vec![0.0; n * n];
                gemm(isa, &product, 0..depth, &mut whole, &never).unwrap();
                for triangle in [Triangle::Lower, Triangle::Upper] {
                    let mut half = vec![f64::NAN; n * n];
                    syrk(isa, &product, triangle, 0..depth, &mut half, &never).unwrap();
                    let expected: Vec<f64> = (0..n * n)
                        .map(|place| match (triangle, place / n, place % n) {
                            (Triangle::Lower, row, col) if col > row => 0.0,
                            (Triangle::Upper, row, col) if col < row => 0.0,
                            _ => whole[place],
                        })
                        .collect();
                    assert_eq!(
                        bits(&half),
                        bits(&expected),
                        "{isa}, case {case}, {triangle:?} of {n}x{depth}"
                    );
                }
            }
        }
    }
}

fn made<T: Real>(stream: u32, elements: usize) -> Vec<T> {
    let schedule = Schedule::new([0x6765_6d6d, 1]);
    let number = |place| schedule.block(place as u64, 0, stream)[0] as i64 as f64;
    (0..elements).map(|place| T::from_f64(number(place) * f64::from_bits((1023 - 63) << 52))).collect()
}

#[test]
fn products_give_the_committed_bits() {
    fn hash<T: Real>(isa: Isa) -> String {
        let [m, n, depth] = [131, 157, 300];
        let [a, b, c] = [made::<T>(0, m * depth), made::<T>(1, depth * n), made::<T>(2, m * n)];
        let product = Product::new(
            T::from_f64(0.3),
            View::row_major(&a, m, depth).unwrap(),
            View::column_major(&b, depth, n).unwrap(),
        );
        let product = product.unwrap().adding(T::from_f64(-1.0), View::row_major(&c, m, n).unwrap()).unwrap();
        let (mut sum, mut panel) = (vec![T::ZERO; m * n], vec![T::ZERO; m * n]);
        gemm(isa, &product, 0..200, &mut sum, &never).unwrap();
        gemm(isa, &product, 200..depth, &mut panel, &never).unwrap();
        add_to(&mut sum, &panel);
        let gram = Product::gram(T::ONE, View::row_major(&a, m, depth).unwrap()).unwrap();
        let mut triangle = vec![T::ZERO; m * m];
        syrk(isa, &gram, Triangle::Lower, 0..depth, &mut triangle, &never).unwrap();
        let mut hasher = blake3::Hasher::new();
        for value in sum.iter().chain(&triangle) {
            hasher.update(&value.to_bits64().to_le_bytes());
        }
        hasher.finalize().to_hex()[..32].to_string()
    }
    for isa in Isa::available() {
        assert_eq!(hash::<f64>(isa), "5f9f63cdec3f97a0aee6e1fbe996f3cf", "f64, {isa}");
        assert_eq!(hash::<f32>(isa), "eac53b82d58537564b63666f4c10e34f", "f32, {isa}");
    }
}

#[test]
fn results_are_as_close_to_the_true_product_as_rounding_allows() {
    let mut random = Random::new(12);
    let [m, n, depth] = [20, 20, 300];
    let element = |random: &mut Random| f64::wild(random, -20..20);
    let (a, b) =
        (Matrix::random(&mut random, [m, depth], element), Matrix::random(&mut random, [depth, n], element));
    let (a, b) = (a.view(), b.view());
    let mut out = vec![0.0; m * n];
    gemm(Isa::detect(), &Product::new(1.0, a, b).unwrap(), 0..depth, &mut out, &never).unwrap();
    for (place, result) in out.into_iter().enumerate() {
        let (mut error, mut absolute) = (ExactSum::new(), 0.0);
        error.add(-result).unwrap();
        for k in 0..depth {
            let (x, y) = (a.at(place / n, k), b.at(k, place % n));
            let rounded = x * y;
            error.add(rounded).unwrap();
            error.add(x.mul_add(y, -rounded)).unwrap();
            absolute += rounded.abs();
        }
        let gamma = depth as f64 * f64::EPSILON / 2.0 * 1.001;
        assert!(error.to_f64().abs() <= gamma * absolute, "({}, {})", place / n, place % n);
    }
}

#[test]
fn what_is_not_finite_is_refused_with_its_place() {
    let huge = [1e200, 1.0, 1.0, 1e200];
    let view = View::row_major(&huge, 2, 2).unwrap();
    for isa in Isa::available() {
        let product = Product::new(1.0, view, view).unwrap();
        let found = gemm(isa, &product, 0..2, &mut [0.0; 4], &never);
        assert_eq!(found, Err(GemmError::NotFinite { row: 0, col: 0 }));
        let last = product.tile(1..2, 0..2).unwrap();
        let found = gemm(isa, &last, 0..2, &mut [0.0; 2], &never);
        assert_eq!(found, Err(GemmError::NotFinite { row: 0, col: 1 }));
    }
    let nan = [1.0, 2.0, f64::NEG_INFINITY, f64::NAN, 0.0, 0.0];
    assert_eq!(View::row_major(&nan, 2, 3).unwrap().first_not_finite(), Some([0, 2]));
    assert_eq!(View::column_major(&nan, 2, 3).unwrap().first_not_finite(), Some([0, 1]));
    assert_eq!(view.first_not_finite(), None);
    let message = GemmError::NotFinite { row: 3, col: 4 }.to_string();
    assert!(message.contains("(3, 4)") && message.contains("use f64"), "{message}");
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let data = [1.0; 12];
    let bounds = |view: Result<View<'_, f64>, GemmError>| matches!(view, Err(GemmError::OutOfBounds { .. }));
    assert!(bounds(View::new(&data, [3, 4], [5, 1])));
    assert!(bounds(View::new(&data, [2, 2], [usize::MAX, 1])));
    assert!(bounds(View::new(&data, [usize::MAX, usize::MAX], [0, 0])));
    assert!(bounds(View::row_major(&data, usize::MAX, 2)));
    assert!(View::new(&data, [3, 4], [4, 1]).is_ok() && View::new(&data, [2, 5], [7, 1]).is_ok());
    let view = View::row_major(&data, 3, 4).unwrap();
    assert!(matches!(view.tile(0..4, 0..1), Err(GemmError::Tile { .. })));
    assert_eq!(view.tile(1..3, 2..4).unwrap().transposed().rows(), 2);
    assert!(matches!(Product::new(1.0, view, view), Err(GemmError::Shape { operand: "B", .. })));
    assert!(matches!(
        Product::new(f64::NAN, view, view.transposed()),
        Err(GemmError::Coefficient { name: "alpha" })
    ));
    let product = Product::new(1.0, view, view.transposed()).unwrap();
    assert!(matches!(product.adding(1.0, view), Err(GemmError::Shape { operand: "C", .. })));
    let run = |k, out: &mut [f64]| gemm(Isa::detect(), &product, k, out, &never);
    assert!(matches!(run(0..4, &mut [0.0; 8]), Err(GemmError::Shape { .. })));
    assert!(matches!(run(0..5, &mut [0.0; 9]), Err(GemmError::Panel { .. })));
    assert!(matches!(run(2..2, &mut [0.0; 9]), Err(GemmError::Panel { .. })));
    let tile = product.tile(0..1, 2..3).unwrap();
    assert_eq!(
        syrk(Isa::detect(), &tile, Triangle::Lower, 0..4, &mut [0.0], &never),
        Err(GemmError::NotGram)
    );
}

#[test]
fn a_product_stops_when_told_to() {
    let data = vec![1.0; 300 * 300];
    let view = View::row_major(&data, 300, 300).unwrap();
    let product = Product::new(1.0, view, view).unwrap();
    let asked = AtomicUsize::new(0);
    let third = || asked.fetch_add(1, Ordering::Relaxed) >= 2;
    let mut out = vec![0.0; 300 * 300];
    assert_eq!(gemm(Isa::detect(), &product, 0..300, &mut out, &third), Err(GemmError::Cancelled));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

fn checked<T: Real>(product: &Product<'_, T>, tile: &[T], panels: usize, key: u32, rounds: u32) -> Verdict {
    let verdicts = Isa::available().into_iter().map(|isa| {
        let [rows, cols] = [product.rows(), product.cols()];
        let vectors = Vectors { key: [key, 7], rounds };
        let check = Check::new(isa, *product, panels, cols, vectors, &never).unwrap();
        check.rows(&Band { first: 0, cols: 0..cols, elements: tile, half: None }, 0..rows, &never).unwrap()
    });
    let verdicts: Vec<Verdict> = verdicts.collect();
    assert!(verdicts.windows(2).all(|pair| pair[0] == pair[1]), "{verdicts:?}");
    verdicts[0]
}

#[test]
fn no_honest_product_is_called_inconsistent() {
    fn honest<T: Real>(seed: u64, exponents: std::ops::Range<i32>) {
        let mut random = Random::new(seed);
        for case in 0..40 {
            let [m, n, depth] = [side(&mut random), 3 * side(&mut random), 3 * side(&mut random)];
            let wild = |random: &mut Random| T::wild(random, exponents.clone());
            let a = Matrix::random(&mut random, [m, depth], wild);
            let mut b = Matrix::random(&mut random, [depth, n], wild);
            if case % 2 == 0 {
                // Neighbours cancel but for their last bits.
                let opposite: Vec<T> =
                    b.data.iter().map(|value| value.times(T::from_f64(-1.0000001))).collect();
                b.data.iter_mut().zip(opposite).skip(1).step_by(2).for_each(|(value, other)| *value = other);
            }
            let c = Matrix::random(&mut random, [m, n], wild);
            let [alpha, beta] = [coefficient(&mut random), coefficient(&mut random)];
            let product = Product::new(alpha, a.view(), b.view()).unwrap().adding(beta, c.view()).unwrap();
            let mut tile = vec![T::ZERO; m * n];
            let cut = if depth < 2 { depth } else { depth / 2 };
            gemm(Isa::detect(), &product, 0..cut, &mut tile, &never).unwrap();
            if cut < depth {
                let mut panel = tile.clone();
                gemm(Isa::detect(), &product, cut..depth, &mut panel, &never).unwrap();
                add_to(&mut tile, &panel);
            }
            let verdict = checked(&product, &tile, 2, case, 3);
            assert_eq!(verdict, Verdict::Consistent, "seed {seed}, case {case}: {m}x{n}x{depth}");
        }
    }
    honest::<f64>(13, -3..4);
    honest::<f32>(14, -3..4);
    honest::<f64>(15, -300..300);
    honest::<f32>(16, -50..50);
    honest::<f64>(17, -560..-500);
    honest::<f32>(18, -80..-60);
}

/// Sums of absolute values leave the range though no sum of the product does.
#[test]
fn an_honest_product_near_the_end_of_the_range_passes() {
    let a = [1e154, -1e154, 1e154, -1e154];
    let b = vec![1.7e154; 4 * 300];
    let product = Product::new(1.0, View::row_major(&a, 1, 4).unwrap(), View::row_major(&b, 4, 300).unwrap());
    let product = product.unwrap();
    let mut tile = vec![0.0; 300];
    gemm(Isa::detect(), &product, 0..4, &mut tile, &never).unwrap();
    assert_eq!(checked(&product, &tile, 1, 1, 4), Verdict::Consistent);
    tile[7] = 1e300;
    assert!(matches!(checked(&product, &tile, 1, 1, 1), Verdict::Inconsistent { row: 0, .. }));
}

#[test]
fn wrong_elements_columns_and_tiles_are_found() {
    fn find<T: Real>(detectable: f64) {
        let side = 200;
        let [a, b] = [made::<T>(3, side * side), made::<T>(4, side * side)];
        let (a, b) = (View::row_major(&a, side, side).unwrap(), View::row_major(&b, side, side).unwrap());
        let product = Product::new(T::ONE, a, b).unwrap();
        let mut honest = vec![T::ZERO; side * side];
        gemm(Isa::detect(), &product, 0..side, &mut honest, &never).unwrap();
        assert_eq!(checked(&product, &honest, 1, 5, 1), Verdict::Consistent);
        let mut random = Random::new(19);
        for key in 0..20 {
            // An element of such a product is about a third of the root of its depth.
            let place = random.next() as usize % (side * side);
            let mut wrong = honest.clone();
            wrong[place] = wrong[place].plus(T::from_f64(detectable * (side as f64).sqrt() / 3.0));
            let verdict = checked(&product, &wrong, 1, key, 1);
            assert!(
                matches!(verdict, Verdict::Inconsistent { row, .. } if row == place / side),
                "{verdict:?}"
            );
        }
        let mut wrong = honest.clone();
        for row in 0..side {
            wrong.swap(row * side + 3, row * side + 150);
        }
        assert_ne!(checked(&product, &wrong, 1, 6, 4), Verdict::Consistent, "two columns are swapped");
        let mut wrong = honest.clone();
        for row in 0..side {
            wrong[row * side + 77] = T::ZERO;
        }
        assert_ne!(checked(&product, &wrong, 1, 7, 1), Verdict::Consistent, "a column is missing");
        let [upper, lower] = [product.tile(0..100, 0..200).unwrap(), product.tile(100..200, 0..200).unwrap()];
        let (first, second) = honest.split_at(100 * side);
        assert_ne!(checked(&upper, second, 1, 8, 1), Verdict::Consistent, "another tile");
        assert_eq!(checked(&lower, second, 1, 8, 1), Verdict::Consistent);
        assert_eq!(checked(&upper, first, 1, 8, 1), Verdict::Consistent);
    }
    find::<f64>(1e-9);
    find::<f32>(0.15);
}
