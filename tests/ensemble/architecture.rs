//! The rules of ARCHITECTURE.md about the shape of the code.

use std::process::Command;

/// Invariant 1: a core that could do IO would show it in its dependencies.
#[test]
fn cores_depend_on_nothing_that_does_io() {
    let allowed = [
        "api",
        "bytes",
        "thiserror",
        "thiserror-impl",
        "proc-macro2",
        "quote",
        "syn",
        "unicode-ident",
        "xxhash-rust",
        // The form of ZooKeeper's digests.
        "base64",
        // SHA-1 and SHA-256, and what RustCrypto makes them of.
        "sha1",
        "sha2",
        "digest",
        "block-buffer",
        "hybrid-array",
        "typenum",
        "crypto-common",
        "cfg-if",
        "cpufeatures",
    ];
    for core in ["election-core", "quorum-core", "store-core", "client-core"] {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--offline",
                "--locked",
                "-e",
                "normal",
                "--prefix",
                "none",
                "-f",
                "{p}",
                "-p",
                core,
            ])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
        assert!(names.contains(&"api"), "{core}: the list cannot be right:\n{tree}");
        for name in names {
            assert!(
                name == core || allowed.contains(&name),
                "{core} depends on {name}: pass in what it is needed for"
            );
        }
    }
}
