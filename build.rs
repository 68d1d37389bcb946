//! Tells the program the commit it is built from: `BUILD_COMMIT` of the environment (for those who package it), else
//! what git says of this folder, else that it is not known (a tarball).
//!
//! Only `HEAD` itself is watched, not the branch that it names: with the branch watched, each commit would build the whole
//! program anew. A release is built from a fresh checkout.
use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=BUILD_COMMIT");
    let given = std::env::var("BUILD_COMMIT").ok();
    let commit = given
        .filter(|commit| !commit.is_empty())
        .or_else(of_git)
        .unwrap_or_else(|| "not known (built without git)".to_owned());
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    // The manual page's, see man(7).
    let date = git(&["show", "--no-patch", "--format=%cs", "HEAD"]);
    let date = date.filter(|_| Path::new(".git").exists());
    println!("cargo:rustc-env=BUILD_DATE={}", date.unwrap_or_default());
}

fn of_git() -> Option<String> {
    // A tarball may lie within somebody else's repository.
    if !Path::new(".git").exists() {
        return None;
    }
    let head = git(&["rev-parse", "--git-path", "HEAD"])?;
    println!("cargo:rerun-if-changed={head}");
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.trim();
    (output.status.success() && !line.is_empty()).then(|| line.to_owned())
}
