//! Projects of Docker Compose that leave nothing behind.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::skipped::skipped;
use crate::{output, repository, tried};

/// Whether a Docker engine and Compose are there; reports it if not.
pub(crate) fn there() -> bool {
    let engine = tried(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]));
    match engine {
        Err(e) => skipped(format!("no Docker engine: {e}")),
        Ok(_) if compose().is_none() => skipped("neither `docker compose` nor `docker-compose`"),
        Ok(_) => return true,
    }
    false
}

/// A project with an image of its own. Dropping it removes its containers, networks, volumes and image.
pub(crate) struct Project {
    name: String,
    /// The later ones add to the first.
    files: Vec<PathBuf>,
}

impl Project {
    /// Makes the image. `what` is part of the names.
    pub(crate) fn new(what: &str, file: &str) -> Project {
        let name = format!("quorate-test-{what}-{}", std::process::id());
        // Certificates cannot name the addresses that Docker gives to containers, so the tests' own clients use plaintext.
        let files = vec![
            repository().join("deploy/compose").join(file),
            repository().join("tests/deploy/plaintext-clients").join(file),
        ];
        let project = Project { name, files };
        let script = repository().join("deploy/build-image");
        output(Command::new(script).arg(&project.name).arg(static_binary()));
        project
    }

    /// Runs Compose with these arguments.
    pub(crate) fn compose(&self, args: &[&str]) -> String {
        output(&mut self.command(args))
    }

    /// The container of a service. Also of one that does not run: asked by its labels, because Compose leaves those out.
    pub(crate) fn container(&self, service: &str) -> String {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let service = format!("label=com.docker.compose.service={service}");
        docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service])
    }

    /// As Docker calls a network of the project.
    pub(crate) fn network(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = compose().expect("looked for in `there`");
        command.args(["--project-name", &self.name]);
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        command.args(args).env("IMAGE", &self.name);
        command
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = tried(&mut self.command(&["logs", "--no-color", "--tail", "15"]));
            eprintln!("== ends of the logs\n{}", logs.unwrap_or_else(|e| e));
        }
        // One that is paused cannot be stopped. Not all are.
        let _ = tried(&mut self.command(&["unpause"]));
        for mut command in [
            self.command(&["down", "--volumes", "--timeout", "1"]),
            docker_command(&["image", "rm", "--force", &self.name]),
        ] {
            if let Err(e) = tried(&mut command) {
                eprintln!("not removed: {e}");
            }
        }
    }
}

/// Runs `docker` with these arguments.
pub(crate) fn docker(args: &[&str]) -> String {
    output(&mut docker_command(args))
}

fn docker_command(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(args);
    command
}

/// The newer one is part of `docker`, the older a program of its own.
pub(crate) fn compose() -> Option<Command> {
    let newer = || docker_command(&["compose"]);
    let older = || Command::new("docker-compose");
    match () {
        () if tried(newer().arg("version")).is_ok() => Some(newer()),
        () if tried(older().arg("version")).is_ok() => Some(older()),
        () => None,
    }
}

/// From TEST_STATIC_BINARY, or built here.
fn static_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(binary) = std::env::var_os("TEST_STATIC_BINARY") {
        return binary.into();
    }
    let build = || {
        let version = output(Command::new("rustc").arg("-vV"));
        let host = version.lines().find_map(|l| l.strip_prefix("host: ")).unwrap().to_owned();
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("..");
        output(
            Command::new(env!("CARGO"))
                .args(["build", "--locked", "-p", "quorate", "--bin", "quorate", "--target", &host])
                .arg("--target-dir")
                .arg(&target)
                .current_dir(repository())
                .env("RUSTFLAGS", "-C target-feature=+crt-static"),
        );
        target.join(host).join("debug/quorate")
    };
    BUILT.get_or_init(build).clone()
}
