//! Negative controls of what keeps a machine's own arithmetic out of the kernels.
//!
//! A lint that reports nothing may be a lint that looks at nothing. Here the kernels' own `clippy.toml` meets a
//! crate that calls every method it bans, and a C compiler shows what contraction would do to the bits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CLIPPY_TOML: &str = include_str!("../../kernels/clippy.toml");

/// A banned method, and whether no stable compiler has it.
struct Banned {
    path: &'static str,
    unstable: bool,
}

fn banned() -> Vec<Banned> {
    let entries = CLIPPY_TOML.lines().filter_map(|line| Some((line, line.split("path = \"").nth(1)?)));
    entries
        .map(|(line, rest)| Banned {
            path: rest.split('"').next().expect("a closing quote"),
            unstable: line.contains("allow-invalid = true"),
        })
        .collect()
}

/// A function that calls the method as kernels would.
fn call(number: usize, path: &str) -> String {
    let Some((kind, method)) = path.split_once("::").filter(|(kind, _)| ["f64", "f32"].contains(kind)) else {
        return format!("pub fn control_{number}(x: f64) -> f64 {{ unsafe {{ {path}(x, x) }} }}\n");
    };
    let argument = match method {
        "powi" => "3",
        "log" | "powf" | "hypot" | "atan2" | "max" | "min" | "abs_sub" => "x",
        _ if method.starts_with("algebraic_") => "x",
        _ => "",
    };
    format!("pub fn control_{number}(x: {kind}) {{ let _ = x.{method}({argument}); }}\n")
}

/// What clippy, its warnings denied, says about a crate of this text under the kernels' configuration.
fn clippy(text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write(
        "Cargo.toml",
        "[package]\nname = \"control\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n[workspace]\n",
    );
    write("clippy.toml", CLIPPY_TOML);
    write("lib.rs", text);
    Command::new(env!("CARGO"))
        .args(["clippy", "--offline", "--quiet", "--", "-D", "warnings"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CLIPPY_CONF_DIR")
        .output()
        .expect("cargo runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_banned_method_is_reported() {
    let stable: Vec<&str> =
        banned().iter().filter(|banned| !banned.unstable).map(|banned| banned.path).collect();
    assert!(stable.len() >= 60, "the list was not read: {} methods", stable.len());
    let calls: String = stable.iter().enumerate().map(|(number, path)| call(number, path)).collect();
    let output = clippy(&format!("#![allow(deprecated)]\n{calls}"));
    let errors = errors(&output);
    assert!(!output.status.success(), "clippy let banned methods pass");
    for path in &stable {
        assert_eq!(errors.matches(&format!("disallowed method `{path}`")).count(), 1, "{path}: {errors}");
    }
    assert_eq!(errors.matches("disallowed method").count(), stable.len());
}

#[test]
fn methods_that_no_stable_compiler_has_are_refused_too() {
    for unstable in banned().iter().filter(|banned| banned.unstable && banned.path.starts_with("f64")) {
        // The compiler refuses them; when it no longer does, clippy must.
        let output = clippy(&call(0, unstable.path));
        assert!(!output.status.success(), "{} was let pass", unstable.path);
    }
}

#[test]
fn a_crate_that_keeps_to_ieee_754_passes() {
    let output = clippy(
        "pub fn kept(x: f64, y: f64) -> f64 { (x * y + x / y - x).sqrt().mul_add(x % y, x.abs().copysign(y)) }\n\
         pub fn bits(x: f64) -> u64 { x.to_bits() ^ u64::from(x < 0.0).max(1) }\n",
    );
    assert!(output.status.success(), "{}", errors(&output));
}

/// Prints the bits of `a * b + c`; the arguments are volatile so that nothing is computed in advance.
const PRODUCT_AND_SUM: &str = r#"
#include <stdio.h>
#include <string.h>
static double product_and_sum(double a, double b, double c) { return a * b + c; }
int main(void) {
    volatile double a = 1.0 + 0x1p-30, b = 1.0 - 0x1p-30, c = -1.0;
    double value = product_and_sum(a, b, c);
    unsigned long long bits;
    memcpy(&bits, &value, sizeof bits);
    printf("%016llx\n", bits);
    return 0;
}
"#;

/// The bits that the program prints when built with these flags, or nothing where there is no gcc.
fn built_by_gcc(folder: &Path, flags: &[&str]) -> Option<u64> {
    let (source, program): (PathBuf, PathBuf) = (folder.join("control.c"), folder.join("control"));
    std::fs::write(&source, PRODUCT_AND_SUM).expect("written");
    let fused = if cfg!(target_arch = "x86_64") { &["-mfma"][..] } else { &[] };
    let built =
        Command::new("gcc").arg("-O2").args(fused).args(flags).arg("-o").arg(&program).arg(&source).output();
    let built = match built {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        built => built.expect("gcc runs"),
    };
    assert!(built.status.success(), "{}", errors(&built));
    let printed = Command::new(&program).output().expect("the program runs");
    assert!(printed.status.success(), "the program ended with {}", printed.status);
    let text = String::from_utf8(printed.stdout).expect("digits");
    Some(u64::from_str_radix(text.trim(), 16).expect("bits"))
}

#[test]
fn contraction_changes_bits_and_rust_does_not_contract() {
    if tessera_kernels::isa::Isa::detect() == tessera_kernels::isa::Isa::PLAIN && cfg!(target_arch = "x86_64")
    {
        println!("skipped: this machine has no fused multiply-add");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let Some(contracted) = built_by_gcc(folder.path(), &[]) else {
        println!("skipped: gcc is not installed (scripts/setup installs it)");
        return;
    };
    let separate = built_by_gcc(folder.path(), &["-ffp-contract=off"]).expect("it was there a moment ago");
    let tiny = std::hint::black_box(2f64.powi(-30));
    let (a, b, c) = (1.0 + tiny, 1.0 - tiny, std::hint::black_box(-1.0f64));
    assert_ne!(contracted, separate, "the control does not bite: this gcc does not contract");
    assert_eq!((a * b + c).to_bits(), separate, "Rust rounds twice");
    assert_eq!(a.mul_add(b, c).to_bits(), contracted, "a fused operation is what gcc made of it");
}
