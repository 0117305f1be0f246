//! What each instruction computes, and which are refused.
//!
//! Owns the table of opcodes. A register holds 64 bits; narrower values are zero-extended, so that every operation can
//! be a function of whole registers.

use super::PtxError;

/// An operation on registers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// Of one.
    One(fn(u64) -> u64),
    /// Of two.
    Two(fn(u64, u64) -> u64),
    /// Of three.
    Three(fn(u64, u64, u64) -> u64),
    /// Of four.
    Four(fn(u64, u64, u64, u64) -> u64),
}

use Operation::{Four, One, Three, Two};

/// Refuses instructions whose bits would depend on the machine.
///
/// *Errors*: [`PtxError::NotReproducible`].
pub(super) fn lint(opcode: &str) -> Result<(), PtxError> {
    let mut parts = opcode.split('.');
    let base = parts.next().unwrap_or_default();
    let modifiers: Vec<&str> = parts.collect();
    let has = |name: &str| modifiers.contains(&name);
    let float = modifiers.iter().any(|part| {
        part.strip_prefix("bf")
            .or_else(|| part.strip_prefix('f'))
            .is_some_and(|bits| bits.starts_with(|first: char| first.is_ascii_digit()))
    });
    let arithmetic = matches!(base, "add" | "sub" | "mul" | "mad" | "fma" | "div" | "sqrt" | "rcp");
    let approximate = has("approx")
        || has("ftz")
        || has("full")
        || has("sat")
        || matches!(base, "sin" | "cos" | "ex2" | "lg2" | "rsqrt" | "tanh" | "mma" | "wmma" | "wgmma");
    let unordered = matches!(base, "atom" | "red") && float;
    if approximate || unordered || (float && arithmetic && !has("rn")) {
        return Err(PtxError::NotReproducible { instruction: opcode.to_owned() });
    }
    Ok(())
}

fn f64_of(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn bits64(value: f64) -> u64 {
    value.to_bits()
}

fn bits32(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn low(value: u64) -> u64 {
    u64::from(value as u32)
}

fn signed32(value: u64) -> i64 {
    i64::from(value as i32)
}

/// Shifts of the width and more give what is left: nothing, or the sign.
fn shift_right_signed(value: i64, by: u64) -> u64 {
    (value >> (by as u32).min(63)) as u64
}

/// What a computing instruction does; None for one that moves data, branches or waits, and for unknown ones.
pub(super) fn operation(opcode: &str) -> Option<Operation> {
    float(opcode).or_else(|| integer(opcode)).or_else(|| comparison(opcode))
}

fn float(opcode: &str) -> Option<Operation> {
    Some(match opcode {
        "add.rn.f64" => Two(|a, b| bits64(f64_of(a) + f64_of(b))),
        "sub.rn.f64" => Two(|a, b| bits64(f64_of(a) - f64_of(b))),
        "mul.rn.f64" => Two(|a, b| bits64(f64_of(a) * f64_of(b))),
        "div.rn.f64" => Two(|a, b| bits64(f64_of(a) / f64_of(b))),
        "fma.rn.f64" => Three(|a, b, c| bits64(f64_of(a).mul_add(f64_of(b), f64_of(c)))),
        "rcp.rn.f64" => One(|a| bits64(1.0 / f64_of(a))),
        "sqrt.rn.f64" => One(|a| bits64(f64_of(a).sqrt())),
        "add.rn.f32" => Two(|a, b| bits32(f32_of(a) + f32_of(b))),
        "mul.rn.f32" => Two(|a, b| bits32(f32_of(a) * f32_of(b))),
        "fma.rn.f32" => Three(|a, b, c| bits32(f32_of(a).mul_add(f32_of(b), f32_of(c)))),
        "abs.f64" => One(|a| a & (u64::MAX >> 1)),
        "neg.f64" => One(|a| a ^ (1 << 63)),
        "max.f64" => Two(|a, b| larger(a, b, false)),
        "min.f64" => Two(|a, b| larger(a, b, true)),
        _ => return None,
    })
}

/// The larger number (or the smaller); the other of a NaN; of two zeros the positive is larger.
fn larger(a: u64, b: u64, smaller: bool) -> u64 {
    let (x, y) = (f64_of(a), f64_of(b));
    if x.is_nan() || y.is_nan() {
        return if x.is_nan() { b } else { a };
    }
    let a_is_larger = x > y || (x == y && a >> 63 == 0);
    if a_is_larger != smaller { a } else { b }
}

fn integer(opcode: &str) -> Option<Operation> {
    Some(match opcode {
        "mov.u32" | "mov.b32" | "mov.f32" | "mov.u64" | "mov.b64" | "mov.f64" | "mov.pred"
        | "cvta.to.global.u64" | "cvta.to.shared.u64" | "cvt.u64.u32" => One(|a| a),
        "cvt.u32.u64" => One(low),
        "cvt.s64.s32" => One(|a| signed32(a) as u64),
        "add.s32" | "add.u32" => Two(|a, b| low(a.wrapping_add(b))),
        "sub.s32" | "sub.u32" => Two(|a, b| low(a.wrapping_sub(b))),
        "mul.lo.s32" | "mul.lo.u32" => Two(|a, b| low(a.wrapping_mul(b))),
        "mad.lo.s32" | "mad.lo.u32" => Three(|a, b, c| low(a.wrapping_mul(b).wrapping_add(c))),
        "add.s64" | "add.u64" => Two(u64::wrapping_add),
        "sub.s64" | "sub.u64" => Two(u64::wrapping_sub),
        "mul.lo.s64" | "mul.lo.u64" => Two(u64::wrapping_mul),
        "mad.lo.s64" | "mad.lo.u64" => Three(|a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        "mul.wide.u32" => Two(u64::wrapping_mul),
        "mul.wide.s32" => Two(|a, b| signed32(a).wrapping_mul(signed32(b)) as u64),
        "mul.hi.u32" => Two(|a, b| a.wrapping_mul(b) >> 32),
        "neg.s32" => One(|a| low(a.wrapping_neg())),
        "neg.s64" => One(u64::wrapping_neg),
        "and.b32" | "and.b64" | "and.pred" => Two(|a, b| a & b),
        "or.b32" | "or.b64" | "or.pred" => Two(|a, b| a | b),
        "xor.b32" | "xor.b64" | "xor.pred" => Two(|a, b| a ^ b),
        "not.b32" => One(|a| low(!a)),
        "not.b64" => One(|a| !a),
        "not.pred" => One(|a| a ^ 1),
        "shl.b32" => Two(|a, b| if b < 32 { low(a << b) } else { 0 }),
        "shl.b64" => Two(|a, b| if b < 64 { a << b } else { 0 }),
        "shr.u32" => Two(|a, b| if b < 32 { a >> b } else { 0 }),
        "shr.u64" => Two(|a, b| if b < 64 { a >> b } else { 0 }),
        "shr.s32" => Two(|a, b| low(shift_right_signed(signed32(a), b))),
        "shr.s64" => Two(|a, b| shift_right_signed(a as i64, b)),
        "min.u32" | "min.u64" => Two(|a, b| if b < a { b } else { a }),
        "max.u32" | "max.u64" => Two(|a, b| if b > a { b } else { a }),
        "bfi.b32" => Four(|a, b, from, bits| low(insert(a, b, from, bits))),
        "bfi.b64" => Four(insert),
        _ if opcode.starts_with("selp.") => Three(|a, b, chosen| if chosen != 0 { a } else { b }),
        _ => return None,
    })
}

/// `b` with `bits` of its bits from `from` on replaced by the lowest of `a`.
fn insert(a: u64, b: u64, from: u64, bits: u64) -> u64 {
    if from > 63 || bits == 0 {
        return b;
    }
    let mask = (if bits < 64 { (1u64 << bits) - 1 } else { u64::MAX }) << from;
    (b & !mask) | (a << from & mask)
}

fn comparison(opcode: &str) -> Option<Operation> {
    let (relation, kind) = opcode.strip_prefix("setp.")?.split_once('.')?;
    Some(match kind {
        "f64" => Two(float_comparison(relation)?),
        "u32" | "u64" | "b32" | "b64" => Two(match relation {
            "eq" => |a, b| u64::from(a == b),
            "ne" => |a, b| u64::from(a != b),
            "lt" | "lo" => |a, b| u64::from(a < b),
            "le" | "ls" => |a, b| u64::from(a <= b),
            "gt" | "hi" => |a, b| u64::from(a > b),
            "ge" | "hs" => |a, b| u64::from(a >= b),
            _ => return None,
        }),
        "s32" => Two(match relation {
            "eq" => |a, b| u64::from(a == b),
            "ne" => |a, b| u64::from(a != b),
            "lt" => |a, b| u64::from(signed32(a) < signed32(b)),
            "le" => |a, b| u64::from(signed32(a) <= signed32(b)),
            "gt" => |a, b| u64::from(signed32(a) > signed32(b)),
            "ge" => |a, b| u64::from(signed32(a) >= signed32(b)),
            _ => return None,
        }),
        "s64" => Two(match relation {
            "eq" => |a, b| u64::from(a == b),
            "ne" => |a, b| u64::from(a != b),
            "lt" => |a, b| u64::from((a as i64) < b as i64),
            "le" => |a, b| u64::from(a as i64 <= b as i64),
            "gt" => |a, b| u64::from(a as i64 > b as i64),
            "ge" => |a, b| u64::from(a as i64 >= b as i64),
            _ => return None,
        }),
        _ => return None,
    })
}

/// Relations ending in `u` hold for NaNs too.
fn float_comparison(relation: &str) -> Option<fn(u64, u64) -> u64> {
    Some(match relation {
        "eq" => |a, b| u64::from(f64_of(a) == f64_of(b)),
        "ne" => |a, b| u64::from(f64_of(a) < f64_of(b) || f64_of(a) > f64_of(b)),
        "lt" => |a, b| u64::from(f64_of(a) < f64_of(b)),
        "le" => |a, b| u64::from(f64_of(a) <= f64_of(b)),
        "gt" => |a, b| u64::from(f64_of(a) > f64_of(b)),
        "ge" => |a, b| u64::from(f64_of(a) >= f64_of(b)),
        "equ" => |a, b| u64::from(!(f64_of(a) < f64_of(b) || f64_of(a) > f64_of(b))),
        "neu" => |a, b| u64::from(f64_of(a) != f64_of(b)),
        "ltu" => |a, b| u64::from(f64_of(a).partial_cmp(&f64_of(b)).is_none_or(|order| order.is_lt())),
        "leu" => |a, b| u64::from(f64_of(a).partial_cmp(&f64_of(b)).is_none_or(|order| order.is_le())),
        "gtu" => |a, b| u64::from(f64_of(a).partial_cmp(&f64_of(b)).is_none_or(|order| order.is_gt())),
        "geu" => |a, b| u64::from(f64_of(a).partial_cmp(&f64_of(b)).is_none_or(|order| order.is_ge())),
        "num" => |a, b| u64::from(!f64_of(a).is_nan() && !f64_of(b).is_nan()),
        "nan" => |a, b| u64::from(f64_of(a).is_nan() || f64_of(b).is_nan()),
        _ => return None,
    })
}
