//! Ensembles of two builds that know different feature levels. Processes pretend to be other builds by `TEST_QUORATE_BUILD`.

use proto::v1::{self, coordination_client::CoordinationClient};
use serde_json::Value;

use crate::harness::{Ensemble, PATIENCE, eventually, within};

const BUILD: &str = "TEST_QUORATE_BUILD";
const OLD: &str = "1.0.0:1:1";
const NEW: &str = "1.1.0:1:2";
/// It knows levels that this ensemble has not come to yet.
const FAR: &str = "3.0.0:3:4";

/// Starts a node again in place of itself, as this build.
fn swap(ensemble: &mut Ensemble, id: usize, build: &str) {
    ensemble.kill9(id);
    ensemble.set_env(id, BUILD, build);
    ensemble.start_node(id);
}

/// The output of `quorate upgrade finalize`, and its exit code.
fn finalize(ensemble: &Ensemble, args: &[&str]) -> (String, Option<i32>) {
    let output = ensemble.run(&[&["upgrade", "finalize"], args].concat());
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

fn upgrade(ensemble: &Ensemble) -> Value {
    serde_json::from_str(&ensemble.ok(&["upgrade", "status", "-o", "json"])).unwrap()
}

/// Whether a node takes a call that needs level 2.
fn takes_level_2(ensemble: &Ensemble, id: usize) -> bool {
    let url = format!("http://{}", ensemble.endpoint(id));
    let call = async {
        let mut request = tonic::Request::new(v1::ExistsRequest { path: "/kept".into(), read: None });
        request.metadata_mut().insert("quorate-min-level", "2".parse().unwrap());
        CoordinationClient::connect(url).await.unwrap().exists(request).await
    };
    let answer = tokio::runtime::Runtime::new().unwrap().block_on(call);
    match answer.map_err(|refused| refused.code()) {
        Ok(_) => true,
        Err(tonic::Code::Unimplemented) => false,
        Err(code) => panic!("{code:?}"),
    }
}

/// A node that was started by hand ends by itself after it has logged these.
fn ends_saying(ensemble: &mut Ensemble, id: usize, words: &[&str]) {
    ensemble.start_node(id);
    ensemble.reap(id);
    let log = ensemble.log(id);
    let said = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(said, "no line has {words:?}:\n{log}");
}

#[test]
fn r24_r25_a_rolling_upgrade_a_way_back_before_the_level_is_raised_and_none_after() {
    let mut ensemble = Ensemble::start_with(4, 1, &[(BUILD, OLD)]);
    ensemble.all_serve();
    ensemble.ok(&["create", "/kept", "by all"]);
    let old = upgrade(&ensemble);
    assert_eq!((&old["level"], &old["members"][3]["version"]), (&1.into(), &"1.0.0".into()), "{old}");
    let (said, code) = finalize(&ensemble, &["--level", "2"]);
    assert!(code == Some(1) && said.contains("member 1 knows level 1"), "{said}");

    // One after the other, and one of them back and forth.
    for (id, build) in [(1, NEW), (2, NEW), (1, OLD), (3, NEW), (1, NEW)] {
        swap(&mut ensemble, id, build);
        ensemble.all_serve();
        ensemble.ok(&["set", "/kept", &format!("{id} is {build}")]);
    }
    assert_eq!(upgrade(&ensemble)["level"], 1);
    assert!(!takes_level_2(&ensemble, 1), "the build knows the level, and the ensemble is not there");
    // The observer is left.
    let (said, code) = finalize(&ensemble, &["--level", "2"]);
    assert!(
        code == Some(1) && said.contains("member 4 knows level 1") && !said.contains("member 2"),
        "{said}"
    );
    ensemble.kill9(4);
    eventually("the leader has noticed that the observer is away", || {
        let (said, code) = finalize(&ensemble, &["--level", "2"]);
        code == Some(1) && said.contains("member 4 is not here, and may run anything")
    });
    eventually(
        "without a level it is not known which, once the node that is asked misses the observer",
        || {
            let (said, code) = finalize(&ensemble, &[]);
            code == Some(1)
                && said.contains("it is not known what these members run")
                && said.contains("reach: 4")
        },
    );
    ensemble.set_env(4, BUILD, NEW);
    ensemble.start_node(4);
    ensemble.all_serve();

    // Any node takes the question, and to ask again does no harm.
    let mut last = String::new();
    let raised = within(PATIENCE, || {
        let (said, code) = finalize(&ensemble, &[]);
        last = said;
        code == Some(0)
    });
    assert!(raised && last.contains("feature level 2"), "{last}");
    for id in 1..=4 {
        let args = ["upgrade", "finalize", "--level", "2"];
        let output = crate::harness::run_at(ensemble.endpoint(id), &args);
        assert!(output.status.success(), "{output:?}");
    }
    eventually("all nodes know", || {
        (1..=4).all(|id| {
            let output = crate::harness::run_at(ensemble.endpoint(id), &["upgrade", "status", "-o", "json"]);
            serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|now| now["level"] == 2)
        })
    });
    assert!((1..=4).all(|id| takes_level_2(&ensemble, id)));
    ensemble.ok(&["set", "/kept", "at level 2"]);
    ensemble.agree();

    // No way back: with its data it does not start ...
    ensemble.kill9(1);
    for build in [OLD, FAR] {
        ensemble.set_env(1, BUILD, build);
        let version = build.split(':').next().unwrap();
        ends_saying(&mut ensemble, 1, &["is at feature level 2", version, "run a"]);
    }
    // ... and without it does not join. The others go on.
    ensemble.set_env(1, BUILD, OLD);
    std::fs::remove_dir_all(ensemble.dir.join("node-1/data")).unwrap();
    ensemble.start_node(1);
    eventually("both sides say why", || {
        let told = ["is at feature level 2", "1.0.0", "run a newer version"];
        (1..=2).all(|id| {
            let log = ensemble.log(id);
            log.lines()
                .any(|line| line.contains("refused a server") && told.iter().all(|word| line.contains(word)))
        })
    });
    let output = ensemble.run(&["status"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    ensemble.ok(&["set", "/kept", "without 1"]);
    swap(&mut ensemble, 1, NEW);
    ensemble.all_serve();
    assert_eq!(ensemble.ok(&["get", "/kept"]).trim_end(), "without 1");
    ensemble.agree();

    // The level is in the data, for any order of starts.
    ensemble.kill9_all();
    (1..=4).for_each(|id| ensemble.set_env(id, BUILD, NEW));
    (1..=4).for_each(|id| ensemble.start_node(id));
    ensemble.all_serve();
    assert_eq!(upgrade(&ensemble)["level"], 2);
    ensemble.agree();
}

#[test]
fn a_new_ensemble_begins_at_the_level_of_its_build() {
    let ensemble = Ensemble::start_with(3, 0, &[(BUILD, FAR)]);
    ensemble.all_serve();
    eventually("each has heard of all", || upgrade(&ensemble)["max_level"] == 4);
    assert_eq!(upgrade(&ensemble)["level"], 4);
    let (said, code) = finalize(&ensemble, &[]);
    assert!(code == Some(0) && said.contains("at feature level 4 already"), "{said}");
}
