//! The way through the driver, with a driver that puts everything off until it must and computes on the processor.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The folder of our `libcuda.so`, made once.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("driver");
        std::fs::create_dir_all(&folder).expect("a folder");
        let status = Command::new("g++")
            .args([
                "-std=c++20",
                "-O2",
                "-ffp-contract=off",
                "-Wno-unknown-pragmas",
                "-shared",
                "-fPIC",
                "-I",
            ])
            .arg(source.join("src/cu"))
            .arg("-o")
            .args([folder.join("libcuda.so"), source.join("tests/host/driver.cpp")])
            .status()
            .expect("g++ runs");
        assert!(status.success(), "g++ compiles the driver");
        folder
    })
}

/// Runs the check program on a device with these settings.
fn check(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tessera-cuda-check"))
        .args(["--quick", "--no-timing"])
        .env("LD_LIBRARY_PATH", folder())
        .envs(settings.iter().copied())
        .output()
        .expect("the program runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), text)
}

#[test]
fn a_device_that_does_everything_as_late_or_as_early_as_it_may_gives_the_processors_digests() {
    // Neither stream at once, the first, the second.
    for eager in ["0", "1", "2"] {
        let (code, text) = check(&[("EAGER", eager)]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("all digests agree"), "{text}");
    }
}

#[test]
fn a_device_with_one_wrong_bit_is_found_out() {
    let (code, text) = check(&[("FAULT", "1")]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("DIFFERENT"), "{text}");
}

#[test]
fn a_machine_whose_gpu_cannot_be_used_is_told_so_in_one_line() {
    for (settings, says) in [
        ([("DEVICES", "0")], "finds no device"),
        ([("VERSION", "11080")], "CUDA 11.8 and our kernels need 12.2"),
        ([("CAPABILITY", "75")], "compute capability 7.5 and our kernels need 8.0"),
        ([("MEMORY", "500000000")], "476 MiB of memory and our kernels need 1024"),
    ] {
        let (code, text) = check(&settings);
        assert_eq!(code, Some(3), "{text}");
        assert!(
            text.starts_with("no GPU: ") && text.contains(says) && text.trim_end().lines().count() == 1,
            "{text}"
        );
    }
}
