//! A traced write is one trace, whatever processes it goes through.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use proto::v1::{self, coordination_client::CoordinationClient};
use tokio_stream::wrappers::TcpListenerStream;

use crate::harness::{Ensemble, PATIENCE, blocking, run_at, succeed};

/// A span as a collector sees it.
#[derive(Clone, Debug)]
struct Seen {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: SpanKind,
    service: String,
    instance: String,
    attributes: BTreeMap<String, String>,
    events: Vec<String>,
}

/// A collector in this process.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    async fn start() -> (Collector, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let collector = Collector::default();
        let server =
            tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// All spans of the trace that has a span of this name and, of such traces, is `which`, once `complete`
    /// accepts them.
    async fn trace(&self, id: &str, complete: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut spans = Vec::new();
        let all = async {
            loop {
                spans = self.seen().into_iter().filter(|s| s.trace == id).collect();
                if complete(&spans) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, all).await;
        assert!(came.is_ok(), "the trace {id} is not complete: {spans:#?}");
        spans
    }

    async fn named(&self, name: &str, service: &str) -> Seen {
        let find = async {
            loop {
                if let Some(span) = self.seen().into_iter().find(|s| s.name == name && s.service == service) {
                    return span;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no span {name} of {service}"))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        for of_process in request.into_inner().resource_spans {
            let about = texts(&of_process.resource.unwrap().attributes);
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| Seen {
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind(),
                name: span.name,
                service: about["service.name"].clone(),
                instance: about["service.instance.id"].clone(),
                attributes: texts(&span.attributes),
                events: span.events.into_iter().map(|event| event.name).collect(),
            }));
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &any_value::Value| match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |a: &KeyValue| a.value.as_ref().and_then(|v| v.value.as_ref()).map(text).unwrap_or_default();
    attributes.iter().map(|a| (a.key.clone(), value(a))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The spans of this name, by service and instance of their process.
fn of<'a>(spans: &'a [Seen], name: &str) -> Vec<&'a Seen> {
    spans.iter().filter(|s| s.name == name).collect()
}

/// Instances of the processes, in order.
fn instances(spans: &[&Seen]) -> Vec<String> {
    let mut instances: Vec<String> = spans.iter().map(|s| s.instance.clone()).collect();
    instances.sort();
    instances
}

fn whole(spans: &[Seen]) -> bool {
    of(spans, "quorum.fsync").len() == 3
        && of(spans, "quorum.append").len() == 3
        && of(spans, "store.apply").len() == 3
        && ["client.create", "store.create", "quorum.submit", "quorum.propose"]
            .iter()
            .all(|n| !of(spans, n).is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_one_trace_across_all_processes() {
    let (collector, address) = Collector::start().await;
    let settings_address = address.clone();
    let ensemble = tokio::task::spawn_blocking(move || {
        let ensemble = Ensemble::start_split(&[("QUORATE_TELEMETRY_OTLP_ENDPOINT", &settings_address)]);
        ensemble.agree();
        ensemble
    })
    .await
    .unwrap();

    // How they came to be: each election and each synchronisation is a span.
    let election = collector.named("election", "quorate-election").await;
    assert!(election.events.iter().any(|e| e == "vote"), "{election:?}");
    assert!(["1", "2", "3"].contains(&election.attributes["quorate.leader"].as_str()), "{election:?}");
    let sync = collector.named("quorum.synchronise", "quorate-quorum").await;
    assert!(["diff", "trunc", "snap"].contains(&sync.attributes["quorate.sync.mode"].as_str()), "{sync:?}");
    assert!(sync.attributes.contains_key("quorate.sync.bytes"), "{sync:?}");
    collector.named("quorum.recovery", "quorate-quorum").await;
    collector.named("quorum.open", "quorate-quorum").await;
    collector.named("store.open", "quorate-store").await;

    let mut ids = Vec::new();
    let ensemble = blocking(ensemble, {
        let address = address.clone();
        move |e| {
            let leader = e.leader();
            let follower = leader % 3 + 1;
            // Through the leader's store and through another one.
            for (id, path) in [(leader, "/a"), (follower, "/b")] {
                let args = ["create", path, "value", "--trace-to", &address];
                succeed(&run_at(e.endpoint(id), &args), &args);
            }
        }
    })
    .await;
    // A client pushes its spans before it ends.
    for client in collector.seen().into_iter().filter(|s| s.name == "client.create") {
        assert_eq!((client.service.as_str(), client.parent.as_str()), ("quorate-cli", ""));
        ids.push(client.trace);
    }
    assert_eq!(ids.len(), 2);
    let mut forwarded = 0;
    for id in ids {
        let spans = collector.trace(&id, whole).await;
        let one = |name: &str| match of(&spans, name)[..] {
            [one] => one,
            ref other => panic!("{} spans {name}: {spans:#?}", other.len()),
        };
        let (client, store, submit) = (one("client.create"), one("store.create"), one("quorum.submit"));
        let propose = one("quorum.propose");
        assert_eq!((store.service.as_str(), &store.parent), ("quorate-store", &client.id));
        assert_eq!((submit.service.as_str(), &submit.parent), ("quorate-quorum", &store.id));
        assert_eq!(submit.instance, store.instance);
        match of(&spans, "quorum.forward")[..] {
            [] => {
                assert_eq!(propose.parent, submit.id);
                assert_eq!(propose.instance, submit.instance);
            }
            [forward] => {
                forwarded += 1;
                assert_eq!((&forward.parent, &forward.instance), (&submit.id, &submit.instance));
                assert_eq!(propose.parent, forward.id);
                assert_ne!(propose.instance, submit.instance);
                assert_eq!((forward.kind, propose.kind), (SpanKind::Client, SpanKind::Server));
            }
            ref more => panic!("{more:#?}"),
        }
        let appends = of(&spans, "quorum.append");
        assert_eq!(instances(&appends), ["1", "2", "3"]);
        for append in &appends {
            let brought = append.instance != propose.instance;
            assert_eq!(append.kind, if brought { SpanKind::Consumer } else { SpanKind::Internal });
        }
        assert!(
            appends.iter().all(|s| s.parent == propose.id && s.service == "quorate-quorum"),
            "{appends:#?}"
        );
        let mut under: Vec<&str> = of(&spans, "quorum.fsync").iter().map(|s| s.parent.as_str()).collect();
        let mut above: Vec<&str> = appends.iter().map(|s| s.id.as_str()).collect();
        under.sort_unstable();
        above.sort_unstable();
        assert_eq!(under, above);
        let applies = of(&spans, "store.apply");
        assert_eq!(instances(&applies), ["1", "2", "3"]);
        assert!(
            applies.iter().all(|s| s.parent == propose.id && s.service == "quorate-store"),
            "{applies:#?}"
        );
        let zxids: Vec<_> = spans.iter().filter_map(|s| s.attributes.get("quorate.zxid")).collect();
        assert!(zxids.len() >= 9 && zxids.iter().all(|z| *z == zxids[0]), "{spans:#?}");
    }
    assert_eq!(forwarded, 1, "the write on the follower, and only that");

    // From any language: the header of a unary call decides.
    let mut client = CoordinationClient::connect(format!("http://{}", ensemble.endpoint(1))).await.unwrap();
    for (path, trace, flags) in [("/c", "c1", "01"), ("/d", "d2", "00")] {
        let mut request = tonic::Request::new(v1::CreateRequest { path: path.into(), ..Default::default() });
        let header = format!("00-{}-00f067aa0ba902b7-{flags}", trace.repeat(16));
        request.metadata_mut().insert("traceparent", header.parse().unwrap());
        client.create(request).await.unwrap();
    }
    let spans = collector
        .trace(&"c1".repeat(16), |s| of(s, "store.apply").len() == 3 && !of(s, "store.create").is_empty())
        .await;
    assert_eq!(of(&spans, "store.create")[0].parent, "00f067aa0ba902b7");
    assert!(collector.seen().iter().all(|s| s.trace != "d2".repeat(16)), "it was not to be traced");
    blocking(ensemble, |_| {}).await.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_trace_a_part_of_what_comes_without_a_trace_and_log_with_it() {
    let log = traced_read("text").await;
    let elected = log.lines.lines().find(|l| l.contains("elected")).unwrap();
    assert!(elected.contains("trace_id"), "{elected}");
    assert!(log.lines.contains(&log.trace), "no line with the trace id {}:\n{}", log.trace, log.lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_as_json_name_the_trace() {
    let log = traced_read("json").await;
    let lines = log.lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
    let of_trace: Vec<_> = lines.filter(|line| line["span"]["trace_id"] == log.trace.as_str()).collect();
    assert!(!of_trace.is_empty(), "no line with the trace id {}:\n{}", log.trace, log.lines);
    assert!(of_trace.iter().all(|line| line["span"]["span_id"].as_str().is_some_and(|id| id.len() == 16)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_latency_has_a_trace_as_exemplar() {
    let log = traced_read("text").await;
    let exemplar = format!(" # {{trace_id=\"{}\",span_id=", log.trace);
    let bucket = log.metrics.lines().find(|l| l.contains(&exemplar)).expect("an exemplar of the read");
    assert!(bucket.starts_with("quorate_request_duration_seconds_bucket{verb=\"get\""), "{bucket}");
    assert!(log.metrics.ends_with("\n# EOF\n"));
}

/// The log lines and metrics of the receiving node, and the trace of the read.
struct Logged {
    lines: String,
    metrics: String,
    trace: String,
}

/// Reads once from an ensemble that traces all requests and logs in this format.
async fn traced_read(format: &'static str) -> Logged {
    let (collector, address) = Collector::start().await;
    let ensemble = tokio::task::spawn_blocking(move || {
        let settings = [
            ("QUORATE_TELEMETRY_OTLP_ENDPOINT", address.as_str()),
            ("QUORATE_TELEMETRY_TRACE_RATIO", "1"),
            ("QUORATE_LOG", "info,store_svc=debug"),
            ("QUORATE_LOG_FORMAT", format),
        ];
        let ensemble = Ensemble::start_with(3, 0, &settings);
        ensemble.ok(&["create", "/a", "x"]);
        assert_eq!(ensemble.ok(&["get", "/a", "--sync"]), "x");
        ensemble
    })
    .await
    .unwrap();
    let read = async {
        loop {
            if let Some(span) = collector.seen().into_iter().find(|s| s.name == "store.get") {
                return span;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let read = tokio::time::timeout(PATIENCE, read).await.expect("a span of the read");
    assert_eq!((read.parent.as_str(), read.attributes["quorate.read.level"].as_str()), ("", "linearizable"));
    let node = read.instance.parse().unwrap();
    let trace = read.trace;
    let (sent, lines) = std::sync::mpsc::channel();
    let look =
        move |e: &mut Ensemble| sent.send((e.log(node), open_metrics(&e.http(node, "store")))).unwrap();
    blocking(ensemble, look).await.stop();
    let (lines, metrics) = lines.recv().unwrap();
    Logged { lines, metrics, trace }
}

/// The metrics in the format that Prometheus requests.
fn open_metrics(endpoint: &str) -> String {
    let mut stream = TcpStream::connect(endpoint).unwrap();
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    write!(stream, "GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    page.to_owned()
}

/// How often the log says that spans cannot be exported.
fn away(log: &str) -> usize {
    let lines = log.lines().filter(|line| line.contains("cannot export to the collector"));
    lines.filter(|line| line.contains("what=\"spans\"")).count()
}

#[test]
fn a_collector_that_is_not_there_costs_a_line_and_no_time() {
    let settings =
        [("QUORATE_TELEMETRY_OTLP_ENDPOINT", "http://127.0.0.1:9"), ("QUORATE_TELEMETRY_TRACE_RATIO", "1")];
    let ensemble = Ensemble::start_with(1, 0, &settings);
    ensemble.ok(&["create", "/a", "x"]);
    crate::harness::eventually("the log shows it", || away(&ensemble.log(1)) > 0);
    for i in 0..20 {
        ensemble.ok(&["create", &format!("/a/{i}"), "x"]);
    }
    let processes = ensemble.pids(1).len();
    let said = || away(&ensemble.log(1));
    crate::harness::eventually("each process reports it", || said() == processes);
    // Longer than between two pushes.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(said(), processes, "and once only");
    let began = std::time::Instant::now();
    ensemble.stop();
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "{:?}", began.elapsed());
}
