//! The workspace is what the architecture page says it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned()
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// One row of the page's table: crate, folder, arrows (`None` for "any"), pure.
struct Row {
    folder: String,
    arrows: Option<BTreeSet<String>>,
    pure: bool,
}

fn page() -> BTreeMap<String, Row> {
    let text = std::fs::read_to_string(root().join("docs/src/architecture.md")).expect("the page is there");
    let unquoted = |cell: &str| cell.trim().trim_matches('`').to_owned();
    text.lines()
        .filter(|line| line.starts_with("| `tessera-"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let arrows = match cells[2].trim() {
                "any" => None,
                list => Some(list.split(',').map(unquoted).filter(|name| !name.is_empty()).collect()),
            };
            let row = Row { folder: unquoted(cells[1]), arrows, pure: cells[3].trim() == "yes" };
            (unquoted(cells[0]), row)
        })
        .collect()
}

#[test]
fn crates_and_arrows_are_those_of_the_architecture_page() {
    let (metadata, page) = (metadata(), page());
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    assert_eq!(names, page.keys().map(String::as_str).collect(), "crates of the workspace and of the page");
    for package in packages {
        let row = &page[package["name"].as_str().expect("a name")];
        let manifest = package["manifest_path"].as_str().expect("a path");
        assert_eq!(Path::new(manifest), root().join(&row.folder).join("Cargo.toml"));
        let Some(arrows) = &row.arrows else { continue };
        let found: BTreeSet<String> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| name.starts_with("tessera-"))
            .map(str::to_owned)
            .collect();
        assert_eq!(&found, arrows, "arrows of {}", package["name"]);
    }
}

#[test]
fn pure_crates_are_no_std_and_hold_no_unsafe_code() {
    let pure: Vec<Row> = page().into_values().filter(|row| row.pure).collect();
    assert_eq!(pure.len(), 4);
    for row in pure {
        let source = std::fs::read_to_string(root().join(&row.folder).join("src/lib.rs")).expect("lib.rs");
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            assert!(source.contains(attribute), "{} lacks {attribute}", row.folder);
        }
        assert!(!source.contains("extern crate std"), "{}", row.folder);
    }
}

#[test]
fn every_package_shares_edition_licence_and_lints() {
    for package in metadata()["packages"].as_array().expect("packages") {
        assert_eq!(package["edition"], "2024", "{}", package["name"]);
        assert_eq!(package["license"], "Apache-2.0 OR MIT", "{}", package["name"]);
        let manifest =
            std::fs::read_to_string(package["manifest_path"].as_str().expect("a path")).expect("readable");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", package["name"]);
    }
}

#[test]
fn every_chapter_of_the_book_is_there_and_none_is_left_out() {
    let source = root().join("docs/src");
    let summary = std::fs::read_to_string(source.join("SUMMARY.md")).expect("the summary is there");
    let listed: BTreeSet<PathBuf> = summary
        .split('(')
        .filter_map(|piece| piece.split_once(')'))
        .map(|(path, _)| source.join(path))
        .collect();
    let mut found = BTreeSet::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") && !path.ends_with("SUMMARY.md") {
                found.insert(path);
            }
        }
    }
    assert_eq!(listed, found);
}

/// Crates of which two versions are built, and who wants the older one. `docs/decisions` says why.
const TWO_VERSIONS: [&str; 12] = [
    "ahash",
    "fastrand",
    "getrandom",
    "hashbrown",
    "itertools",
    "libloading",
    "nix",
    "num-bigint",
    "object",
    "shlex",
    "socket2",
    "syn",
];

#[test]
fn no_dependency_has_two_versions_but_those_that_were_decided() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--duplicates", "--workspace", "--edges", "normal,build", "--depth", "0", "--offline"])
        // What may be left out counts too.
        .args(["--features", "tessera-hub/foundationdb"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            found.entry(name).or_default().insert(version);
        }
    }
    // One version may be built twice, with other features for build scripts: that is one version.
    found.retain(|_, versions| versions.len() > 1);
    let listed: BTreeSet<&str> = TWO_VERSIONS.into_iter().collect();
    let unknown: Vec<&&str> = found.keys().filter(|name| !listed.contains(**name)).collect();
    assert!(unknown.is_empty(), "two versions of {unknown:?}");
}
