//! Makes a function's scalar and slice forms out of one branch-free core, so that their bits are the same.
//!
//! A core answers NaN where it does not hold. The slice form runs it over a block, which vectorises, and
//! then replaces each NaN by the rare cases' answer; the scalar form is the core, then the rare cases. A core
//! is called by its name: through a closure the compiler may leave it out of line, without its instructions.

/// Arguments whose results are looked through for NaN together.
pub(super) const BLOCK: usize = 256;

/// Defines `$name` and `$slice` from a core and the function of the arguments where the core is NaN.
macro_rules! elementary {
    (
        $(#[$meta:meta])*
        $name:ident, $slice:ident ($first:ident $(, $other:ident)*) = $core:path, $rare:path
    ) => {
        $(#[$meta])*
        #[inline]
        pub fn $name($first: f64 $(, $other: f64)*) -> f64 {
            let value = $core($first $(, $other)*);
            if value.is_nan() { $rare($first $(, $other)*) } else { value }
        }

        #[doc = concat!("[`", stringify!($name), "()`] at every position, with the same bits.")]
        ///
        /// *Panics*: when the slices differ in length.
        pub fn $slice(isa: $crate::isa::Isa, $first: &[f64] $(, $other: &[f64])*, out: &mut [f64]) {
            #[inline(always)]
            fn body($first: &[f64] $(, $other: &[f64])*, out: &mut [f64]) {
                use $crate::elementary::slice::BLOCK;
                let length = out.len();
                assert!($first.len() == length $(&& $other.len() == length)*, "slices differ in length");
                for start in (0..length).step_by(BLOCK) {
                    let end = if length - start < BLOCK { length } else { start + BLOCK };
                    let out = &mut out[start..end];
                    let $first = &$first[start..end];
                    $(let $other = &$other[start..end];)*
                    let mut strange = 0u64;
                    for i in 0..out.len() {
                        out[i] = $core($first[i] $(, $other[i])*);
                        strange |= u64::from(out[i].is_nan());
                    }
                    if strange != 0 {
                        for i in 0..out.len() {
                            if out[i].is_nan() {
                                out[i] = $rare($first[i] $(, $other[i])*);
                            }
                        }
                    }
                }
            }
            $crate::isa::for_each_isa! {
                fn run($first: &[f64] $(, $other: &[f64])*, out: &mut [f64]) = body;
            }
            run(isa, $first $(, $other)*, out);
        }
    };
}
pub(super) use elementary;
