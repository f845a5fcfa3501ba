//! A client in Python, with nothing but generated stubs.

use std::{path::Path, process::Command};

use crate::{
    harness::{Ensemble, succeed},
    skipped::skipped,
};

/// The Python that has `grpcio-tools`: TEST_PYTHON, or else `python3`.
fn python() -> Option<String> {
    let python = std::env::var("TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let found = Command::new(&python).args(["-c", "import grpc_tools.protoc"]).output();
    found.is_ok_and(|output| output.status.success()).then_some(python)
}

#[test]
fn the_tour_in_python_works_with_generated_stubs() {
    let Some(python) = python() else {
        skipped("no Python with grpcio-tools here (pip install grpcio-tools; TEST_PYTHON names another one)");
        return;
    };
    let ensemble = Ensemble::start();
    ensemble.all_serve();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output = Command::new(python)
        .arg(root.join("tests/python/tour.py"))
        .arg(root.join("proto/proto"))
        .args(&ensemble.endpoints)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = succeed(&output, &["(tour.py)"]);
    assert!(said.contains("the tour is complete"), "{said}");
    ensemble.agree();
    ensemble.stop();
}
