//! The Kubernetes manifests: merged by kustomize, held against the schemas of Kubernetes and against our configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use host::config;
use serde_json::Value;

use crate::skipped::skipped;
use crate::{repository, tried};

const OVERLAYS: [(&str, u64); 6] = [
    ("base", 3),
    ("overlays/three", 3),
    ("overlays/five", 5),
    ("overlays/monitoring", 3),
    ("overlays/cert-manager", 3),
    ("overlays/insecure", 3),
];

#[test]
fn the_manifests_fit_the_schemas_of_kubernetes() {
    let (Some(validator), Some(kustomize)) = (validator(), kustomize()) else { return };
    for (overlay, _) in OVERLAYS {
        let file = merged(&kustomize, overlay);
        let said = tried(validator.command().arg("--strict").arg(&file)).unwrap_or_else(|e| panic!("{e}"));
        // The validator only reports a kind without a schema: those of the Prometheus operator and of cert-manager.
        let unchecked: Vec<&str> = said.lines().filter(|line| line.contains("find schema")).collect();
        let known =
            |line: &&&str| ["ServiceMonitor", "Issuer", "Certificate"].iter().any(|kind| line.contains(kind));
        assert_eq!(unchecked.iter().filter(known).count(), unchecked.len(), "{said}");
        unchecked.iter().for_each(skipped);
    }
    // It does find faults.
    let wrong = std::fs::read_to_string(merged(&kustomize, "base")).unwrap();
    let wrong = wrong.replace("terminationGracePeriodSeconds", "terminationGraceSeconds");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.yaml");
    std::fs::write(&file, wrong).unwrap();
    let said = tried(validator.command().arg("--strict").arg(&file)).unwrap_err();
    assert!(said.contains("terminationGraceSeconds"), "{said}");
}

#[test]
fn each_pod_is_the_member_that_the_manifests_make_it() {
    let (Some(validator), Some(kustomize)) = (validator(), kustomize()) else { return };
    for (overlay, size) in OVERLAYS {
        let objects = validator.objects(&merged(&kustomize, overlay));
        let set = object(&objects, "StatefulSet", "quorate");
        assert_eq!(set["spec"]["replicas"], size, "{overlay}");
        let service = set["spec"]["serviceName"].as_str().unwrap();
        let headless = &object(&objects, "Service", service)["spec"];
        assert_eq!(headless["clusterIP"], "None");
        assert_eq!(headless["publishNotReadyAddresses"], true, "or no node ever finds another");

        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let mut env: Vec<(String, String)> = Vec::new();
        for variable in container["env"].as_array().unwrap() {
            let text = |key: &str| variable[key].as_str().unwrap_or_else(|| panic!("{variable}")).to_owned();
            // As Kubernetes does.
            let expand =
                |value: String, (name, with): &(String, String)| value.replace(&format!("$({name})"), with);
            let from = &variable["valueFrom"];
            let value = match (&from["fieldRef"]["fieldPath"], &from["resourceFieldRef"]["resource"]) {
                (Value::String(path), _) => format!("the {path}"),
                (_, Value::String(resource)) => bytes(&container["resources"], resource).to_string(),
                _ => env.iter().fold(text("value"), expand),
            };
            env.push((text("name"), value));
        }
        let id = env.iter_mut().find(|(name, _)| name == "QUORATE_ID").unwrap();
        assert_eq!(std::mem::replace(&mut id.1, "1".to_owned()), "hostname");
        let tls = !overlay.ends_with("insecure");
        // An ensemble is named after its namespace, which a certificate has to be able to name.
        let node = config::load(None, env, &[]).unwrap().node;
        assert_eq!(node.plaintext_ports().is_empty(), tls, "{overlay}: {:?}", node.plaintext_ports());
        let hosts: Vec<String> = node.members.iter().map(|m| m.host.clone()).collect();
        let pods: Vec<String> = (0..size).map(|n| format!("quorate-{n}.{service}")).collect();
        assert_eq!(hosts, pods, "{overlay}");

        let ports = [
            ("client", node.listen.client.port()),
            ("zookeeper", node.listen.zookeeper.unwrap().port()),
            ("quorum", node.listen.quorum.port()),
            ("election", node.listen.election.port()),
            ("http", node.listen.http.unwrap().port()),
        ];
        let declared = container["ports"].as_array().unwrap();
        let declared: Vec<_> =
            declared.iter().map(|p| (p["name"].as_str(), p["containerPort"].as_u64())).collect();
        assert_eq!(declared, ports.map(|(name, port)| (Some(name), Some(u64::from(port)))));
        for (probe, path) in
            [("livenessProbe", "/livez"), ("readinessProbe", "/readyz"), ("startupProbe", "/startupz")]
        {
            assert_eq!(container[probe]["httpGet"]["path"], path);
            assert_eq!(
                container[probe]["httpGet"]["scheme"],
                if tls { "HTTPS" } else { "HTTP" },
                "{overlay}"
            );
        }
        let mounted = container["volumeMounts"][0]["mountPath"].as_str().map(PathBuf::from);
        assert_eq!(mounted, Some(node.data_dir));
        let volumes = set["spec"]["template"]["spec"]["volumes"].as_array();
        let has_tls = volumes.is_some_and(|volumes| volumes.iter().any(|volume| volume["name"] == "tls"));
        assert_eq!(has_tls, tls, "{overlay}");
        if let Some(files) = node.tls.members.files {
            let mount = container["volumeMounts"][1]["mountPath"].as_str().unwrap();
            assert_eq!(files.certificate, Path::new(mount).join("member-1.pem"));
        }
    }
}

fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
    objects.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The output of kustomize for an overlay, in a file.
fn merged(kustomize: &[&str], overlay: &str) -> PathBuf {
    let mut command = Command::new(kustomize[0]);
    command.args(&kustomize[1..]).arg(repository().join("deploy/kubernetes").join(overlay));
    let text = tried(&mut command).unwrap_or_else(|e| panic!("{e}"));
    let name = format!("{}-{:?}.yaml", overlay.replace('/', "-"), std::thread::current().id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text + "\n").unwrap();
    file
}

/// kubectl has it, too.
fn kustomize() -> Option<Vec<&'static str>> {
    let commands = [vec!["kubectl", "kustomize"], vec!["kustomize", "build"]];
    let found = commands.into_iter().find(|c| tried(Command::new(c[0]).args(&c[1..]).arg("--help")).is_ok());
    if found.is_none() {
        skipped("neither `kubectl kustomize` nor `kustomize build`, so no manifest was merged or checked");
    }
    found
}

/// kubernetes-validate of PyPI, which carries the schemas with it, in a Python environment of its own.
struct Validator {
    bin: PathBuf,
}

/// Installs the validator at the first run; reports it where that is impossible.
fn validator() -> Option<Validator> {
    static INSTALLED: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    let install = || {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kubernetes-validate-{VERSION}"));
        let bin = dir.join("bin");
        if !bin.join("kubernetes-validate").exists() {
            tried(Command::new("python3").args(["-m", "venv"]).arg(&dir))?;
            let package = format!("kubernetes-validate=={VERSION}");
            let pip = ["-m", "pip", "install", "--quiet", "--timeout", "10", "--retries", "1", &package];
            tried(Command::new(bin.join("python")).args(pip))?;
        }
        Ok(bin)
    };
    match INSTALLED.get_or_init(install) {
        Ok(bin) => Some(Validator { bin: bin.clone() }),
        Err(e) => {
            skipped(format!("no kubernetes-validate, which is installed from PyPI by python3: {e}"));
            None
        }
    }
}

impl Validator {
    fn command(&self) -> Command {
        Command::new(self.bin.join("kubernetes-validate"))
    }

    /// The objects in a file. It brings a reader of YAML along.
    fn objects(&self, file: &Path) -> Vec<Value> {
        let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
        let text = tried(Command::new(self.bin.join("python")).args(["-c", script]).arg(file));
        serde_json::from_str(&text.unwrap_or_else(|e| panic!("{e}"))).unwrap()
    }
}

const VERSION: &str = "1.37.0";

/// A resource of a container, such as `limits.memory`, as Kubernetes writes it into a variable: in bytes.
fn bytes(resources: &Value, resource: &str) -> u64 {
    let (kind, name) = resource.split_once('.').unwrap();
    let quantity = resources[kind][name].as_str().unwrap_or_else(|| panic!("no {resource}"));
    let (number, shift) = match quantity.split_at(quantity.len() - 2) {
        (number, "Mi") => (number, 20),
        (number, "Gi") => (number, 30),
        _ => panic!("{quantity}"),
    };
    number.parse::<u64>().unwrap() << shift
}
