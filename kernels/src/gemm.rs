//! Matrix products: `C = alpha * op(A) * op(B) + beta * C`, the same bits on every machine.
//!
//! Owns the definition of an element, dense `f32` and `f64` products ([`gemm`]), their triangles
//! ([`syrk`]), and a check that is cheaper than the product ([`freivalds`]). It starts no threads:
//! whoever has many computes tiles side by side.
//!
//! # The definition
//!
//! For element `(i, j)` and a panel of columns `k0..k1` of `op(A)`, in the type's own arithmetic:
//!
//! ```text
//! acc = +0
//! acc = fma(op(A)[i,k], op(B)[k,j], acc)      for k ascending
//! P0  = alpha * acc                           the panel that starts at 0, when beta = 0: C is not read
//! P0  = fma(alpha, acc, beta * C[i,j])        otherwise; beta * C is rounded first
//! Pp  = alpha * acc                           every later panel
//! C'  = ((P0 + P1) + P2) + …                  each addition rounded, by whoever gathers the panels
//! ```
//!
//! One panel is the whole of `k` unless a plan says otherwise. Shape of tiles, blocks, packing,
//! instruction set and threads change nothing: they choose when an element's next step is done, never
//! which.

mod blocked;
mod element;
pub mod freivalds;
mod microkernel;
mod packing;
#[cfg(target_arch = "x86_64")]
mod transpose;
mod vector;
mod view;

use std::fmt;
use std::ops::Range;

use blocked::{Block, Out, Region};
pub use element::Element;
pub use view::View;

use crate::isa::Isa;

/// `alpha * A * B + beta * C`: what is computed, not yet computed.
///
/// `op` is [`View::transposed`]. Whoever owns the data sees to it that it is finite
/// ([`View::first_not_finite`]).
#[derive(Clone, Copy, Debug)]
pub struct Product<'a, T> {
    alpha: T,
    a: View<'a, T>,
    b: View<'a, T>,
    /// `beta`, which is not zero, and `C`.
    addend: Option<(T, View<'a, T>)>,
}

impl<'a, T: Element> Product<'a, T> {
    /// `alpha * A * B`.
    ///
    /// *Errors*: [`GemmError::Shape`] if `A` has not as many columns as `B` has rows,
    /// [`GemmError::Coefficient`] if `alpha` is not finite.
    pub fn new(alpha: T, a: View<'a, T>, b: View<'a, T>) -> Result<Self, GemmError> {
        if a.cols() != b.rows() {
            let expected = [a.cols(), b.cols()];
            return Err(GemmError::Shape { operand: "B", expected, found: [b.rows(), b.cols()] });
        }
        if !alpha.finite() {
            return Err(GemmError::Coefficient { name: "alpha" });
        }
        Ok(Product { alpha, a, b, addend: None })
    }

    /// `alpha * A * Aᵀ`. For `AᵀA` transpose the view.
    ///
    /// *Errors*: [`GemmError::Coefficient`] if `alpha` is not finite.
    pub fn gram(alpha: T, a: View<'a, T>) -> Result<Self, GemmError> {
        Product::new(alpha, a, a.transposed())
    }

    /// Adds `beta * C`. With a `beta` of zero `C` is not read.
    ///
    /// *Errors*: [`GemmError::Shape`] if `C` has another shape than the product,
    /// [`GemmError::Coefficient`] if `beta` is not finite.
    pub fn adding(self, beta: T, c: View<'a, T>) -> Result<Self, GemmError> {
        let found = [c.rows(), c.cols()];
        if found != [self.rows(), self.cols()] {
            return Err(GemmError::Shape { operand: "C", expected: [self.rows(), self.cols()], found });
        }
        if !beta.finite() {
            return Err(GemmError::Coefficient { name: "beta" });
        }
        Ok(Product { addend: (beta != T::ZERO).then_some((beta, c)), ..self })
    }

    /// These rows and columns of the result, as a product of its own.
    ///
    /// *Errors*: [`GemmError::Tile`] if there are not so many.
    pub fn tile(self, rows: Range<usize>, cols: Range<usize>) -> Result<Self, GemmError> {
        let addend = match self.addend {
            Some((beta, c)) => Some((beta, c.tile(rows.clone(), cols.clone())?)),
            None => None,
        };
        let a = self.a.tile(rows, 0..self.depth())?;
        Ok(Product { a, b: self.b.tile(0..self.depth(), cols)?, addend, ..self })
    }

    /// `alpha`, `A` and `B`.
    pub fn factors(&self) -> (T, View<'a, T>, View<'a, T>) {
        (self.alpha, self.a, self.b)
    }

    /// `beta` and `C`, where `C` is read.
    pub fn addend(&self) -> Option<(T, View<'a, T>)> {
        self.addend
    }

    /// Rows of the result.
    pub fn rows(&self) -> usize {
        self.a.rows()
    }

    /// Columns of the result.
    pub fn cols(&self) -> usize {
        self.b.cols()
    }

    /// How many products are summed for an element: the whole of `k`.
    pub fn depth(&self) -> usize {
        self.a.cols()
    }

    /// Whether so many elements hold the result of a panel.
    ///
    /// *Errors*: [`GemmError::Panel`], [`GemmError::Shape`] if not.
    pub fn takes(&self, k: &Range<usize>, elements: usize) -> Result<(), GemmError> {
        let (rows, cols, depth) = (self.rows(), self.cols(), self.depth());
        if k.start > k.end || k.end > depth || (k.is_empty() && depth != 0) {
            return Err(GemmError::Panel { k: k.clone(), depth });
        }
        if rows.checked_mul(cols) != Some(elements) {
            let (expected, found) = ([rows, cols], [1, elements]);
            return Err(GemmError::Shape { operand: "the output", expected, found });
        }
        Ok(())
    }
}

/// Computes one panel of a product into a row-major tile: `P0` if it starts at 0, else `Pp`.
///
/// *Shape*: `out` has the product's rows and columns; what it holds is not read. `cancelled` is asked
/// every few milliseconds at most.
///
/// *Errors*: [`GemmError::NotFinite`] if a result is; [`GemmError::Panel`], [`GemmError::Shape`],
/// [`GemmError::FloatingPointMode`], [`GemmError::Cancelled`]. `out` then holds nothing of use.
pub fn gemm<T: Element>(
    isa: Isa,
    product: &Product<'_, T>,
    k: Range<usize>,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), GemmError> {
    compute(isa, product, k, None, Stretch::WHOLE, out, cancelled)
}

/// Which half of a symmetric result is computed; both hold the diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Triangle {
    /// Rows at or below the diagonal: `j <= i`.
    Lower,
    /// Rows at or above the diagonal: `j >= i`.
    Upper,
}

/// As [`gemm`] for a tile on the diagonal of a [`Product::gram`]: the other triangle becomes +0.
///
/// An element has the same bits as [`gemm`] gives it, and tiles off the diagonal are [`gemm`]'s. Of `C`
/// only the triangle is read.
///
/// *Errors*: those of [`gemm`], and [`GemmError::NotGram`] if the product is not one of a matrix by its
/// own transpose.
pub fn syrk<T: Element>(
    isa: Isa,
    product: &Product<'_, T>,
    triangle: Triangle,
    k: Range<usize>,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), GemmError> {
    compute(isa, product, k, Some(triangle), Stretch::WHOLE, out, cancelled)
}

/// Which of a panel's terms a call of [`stretch`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Not its first ones: the output holds the accumulators of those before.
    pub resume: bool,
    /// Its last ones: accumulators become results.
    pub last: bool,
}

impl Stretch {
    const WHOLE: Stretch = Stretch { resume: false, last: true };
}

/// As [`gemm`], or [`syrk`] with a triangle, of a panel that comes in several products, one after another. The bits are
/// those of one: accumulators rest in the output between two calls. `C` is added with the last.
///
/// *Errors*: as theirs.
pub fn stretch<T: Element>(
    isa: Isa,
    product: &Product<'_, T>,
    triangle: Option<Triangle>,
    stretch: Stretch,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), GemmError> {
    compute(isa, product, 0..product.depth(), triangle, stretch, out, cancelled)
}

fn compute<T: Element>(
    isa: Isa,
    product: &Product<'_, T>,
    k: Range<usize>,
    triangle: Option<Triangle>,
    stretch: Stretch,
    out: &mut [T],
    cancelled: &dyn Fn() -> bool,
) -> Result<(), GemmError> {
    product.takes(&k, out.len())?;
    if triangle.is_some() && !product.a.is_same(&product.b.transposed()) {
        return Err(GemmError::NotGram);
    }
    let region = triangle.map_or(Region::All, Region::Of);
    let whole = Out::new(out, product.rows(), product.cols());
    let finite =
        blocked::compute(Block { isa, product: *product, k, region, stretch, out: whole }, cancelled)?;
    if finite { Ok(()) } else { all_finite(out, product.cols()) }
}

/// Whether all elements of a row-major tile are.
///
/// *Errors*: [`GemmError::NotFinite`] with the first that is not row by row, so that it does not depend on who found it.
pub fn all_finite<T: Element>(tile: &[T], cols: usize) -> Result<(), GemmError> {
    match tile.iter().position(|value| !value.finite()) {
        Some(place) => Err(GemmError::NotFinite { row: place / cols, col: place % cols }),
        None => Ok(()),
    }
}

/// Why there is no product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GemmError {
    /// The caller said to stop.
    Cancelled,
    /// This thread rounds otherwise than to nearest, or drops subnormals.
    FloatingPointMode,
    /// A result is NaN or infinite. What a NaN's bits are differs between machines, so none is returned.
    NotFinite {
        /// Of the tile.
        row: usize,
        /// Of the tile.
        col: usize,
    },
    /// `alpha` or `beta` is NaN or infinite.
    Coefficient {
        /// Which.
        name: &'static str,
    },
    /// Two matrices do not fit each other.
    Shape {
        /// The one that does not fit.
        operand: &'static str,
        /// Rows and columns that would.
        expected: [usize; 2],
        /// Rows and columns it has.
        found: [usize; 2],
    },
    /// A view would reach past its data.
    OutOfBounds {
        /// Rows and columns.
        shape: [usize; 2],
        /// Elements from row to row, from column to column.
        strides: [usize; 2],
        /// How many there are.
        elements: usize,
    },
    /// A tile would reach past its matrix.
    Tile {
        /// Rows asked for.
        rows: Range<usize>,
        /// Columns asked for.
        cols: Range<usize>,
        /// Rows and columns there are.
        shape: [usize; 2],
    },
    /// A panel that is empty, or reaches past `k`.
    Panel {
        /// Asked for.
        k: Range<usize>,
        /// How many there are.
        depth: usize,
    },
    /// A triangle was asked of a product that is not one of a matrix by its own transpose.
    NotGram,
}

impl fmt::Display for GemmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GemmError::Cancelled => f.write_str("stopped because the caller said so"),
            GemmError::FloatingPointMode => f.write_str(
                "this thread rounds or flushes subnormals in a way that changes results: \
                 unload the library that set it (often one built with -ffast-math) and start again",
            ),
            GemmError::NotFinite { row, col } => write!(
                f,
                "element ({row}, {col}) of the tile is NaN or infinite: the product leaves the range of its \
                 type, or an input holds such a number; scale the matrices or use f64"
            ),
            GemmError::Coefficient { name } => write!(f, "{name} is NaN or infinite: give a finite number"),
            GemmError::Shape { operand, expected: [rows, cols], found } => write!(
                f,
                "{operand} is {}x{} where {rows}x{cols} fits: check shapes and transposes",
                found[0], found[1]
            ),
            GemmError::OutOfBounds { shape, strides, elements } => write!(
                f,
                "a view of {}x{} elements with strides {} and {} does not fit in {elements} elements: \
                 check shape and strides",
                shape[0], shape[1], strides[0], strides[1]
            ),
            GemmError::Tile { rows, cols, shape } => write!(
                f,
                "rows {rows:?} and columns {cols:?} are not inside a matrix of {}x{}",
                shape[0], shape[1]
            ),
            GemmError::Panel { k, depth } => {
                write!(
                    f,
                    "the panel {k:?} is empty or not inside 0..{depth}: cut k into panels that are not empty"
                )
            }
            GemmError::NotGram => f.write_str(
                "a triangle needs a product of a matrix by its own transpose: tiles off the diagonal are \
                 computed in full",
            ),
        }
    }
}

impl std::error::Error for GemmError {}
