use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(10);

async fn start(health: &Health) -> (String, CancellationToken) {
    start_with(health, Commands::default()).await
}

async fn start_with(health: &Health, commands: Commands) -> (String, CancellationToken) {
    let listener = Listener::bind("HTTP", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let endpoint = listener.address().to_string();
    let stop = CancellationToken::new();
    let resource = vec![("service_name", "test".to_owned())];
    let audit = audit::Log::default();
    let pages = Pages { health: health.clone(), groups: Group::ALL.to_vec(), commands, audit, resource };
    tokio::spawn(serve(listener, pages, stop.clone()));
    (endpoint, stop)
}

#[tokio::test]
async fn a_node_is_live_before_it_is_started_and_started_before_it_is_ready() {
    let health = Health::starting("recovering the log");
    let (endpoint, _stop) = start(&health).await;
    let get = async |path: &str| ask(&endpoint, "GET", path, "", LIMIT).await.unwrap();
    assert_eq!(get("/livez").await, (200, "ok\n".to_owned()));
    let (status, text) = get("/startupz").await;
    assert_eq!((status, text.as_str()), (503, "[-]startup recovering the log\nstartupz check failed\n"));
    assert_eq!(get("/readyz").await.0, 503);

    let (ready, readiness) = tokio::sync::watch::channel(false);
    health.check(Probe::Ready, "store", move || {
        let ready = *readiness.borrow();
        async move { if ready { Ok("serves".into()) } else { Err("no leader".into()) } }
    });
    health.started();
    assert_eq!(get("/startupz").await.0, 200);
    let (status, text) = get("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("[+]startup ok\n") && text.contains("[-]store no leader\n"), "{text}");

    ready.send_replace(true);
    assert_eq!(get("/readyz").await, (200, "ok\n".to_owned()));
    assert!(get("/readyz?verbose").await.1.contains("[+]store serves\n"));
    health.stopping();
    assert_eq!(get("/readyz").await.0, 503);
    assert_eq!(get("/livez").await.0, 200, "a node that stops in order is not to be killed");
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_fails() {
    let health = Health::starting("");
    health.started();
    health.check(Probe::Ready, "store", std::future::pending);
    let (well, text) = health.report(Probe::Ready, false).await;
    assert!(!well && text.contains("[-]store no answer within 1s"), "{text}");
}

#[tokio::test]
async fn metrics_are_text_for_prometheus_and_other_paths_are_refused() {
    let (endpoint, stop) = start(&Health::starting("")).await;
    let (status, text) = ask(&endpoint, "GET", "/metrics", "", LIMIT).await.unwrap();
    assert_eq!(status, 200);
    assert!(text.contains("\ntarget_info{service_name=\"test\"} 1\n"), "{text}");
    // The connection of the request itself.
    let open = "quorate_port_connections{port=\"http\"} ";
    let open = text.lines().find_map(|l| l.strip_prefix(open)).unwrap().parse::<u32>().unwrap();
    assert!(open >= 1);
    assert_eq!(ask(&endpoint, "POST", "/metrics", "", LIMIT).await.unwrap().0, 405);
    assert_eq!(ask(&endpoint, "GET", "/", "", LIMIT).await.unwrap().0, 404);
    stop.cancel();
    while tokio::net::TcpStream::connect(&endpoint).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connection that stays open, and has been answered.
async fn kept_alive(endpoint: &str) -> TcpStream {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    stream
}

#[tokio::test]
async fn b10_a_port_full_of_kept_connections_answers_a_new_one() {
    let (endpoint, _stop) = start(&Health::starting("")).await;
    let mut kept = Vec::new();
    for _ in 0..crate::listen::of_address(PLACES.connections, true) {
        kept.push(kept_alive(&endpoint).await);
    }
    for _ in 0..10 {
        assert_eq!(ask(&endpoint, "GET", "/livez", "", LIMIT).await.unwrap().0, 200);
    }
    // Each of the ten had a place until its answer: closing the oldest was enough.
    let closed = kept.iter_mut().map(async |stream| stream.read(&mut [0]).await.is_ok_and(|n| n == 0));
    let mut gave_way = 0;
    for closed in closed {
        gave_way += usize::from(tokio::time::timeout(Duration::from_millis(5), closed).await == Ok(true));
    }
    assert!((1..=10).contains(&gave_way), "{gave_way}");
}

#[tokio::test(start_paused = true)]
async fn b10_a_connection_that_asks_no_more_is_closed() {
    let (endpoint, _stop) = start(&Health::starting("")).await;
    let mut kept = kept_alive(&endpoint).await;
    let began = tokio::time::Instant::now();
    // A reset is as good an end as any.
    let _ = kept.read_to_end(&mut Vec::new()).await;
    assert!(began.elapsed() <= HEADERS_WITHIN + Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn b10_pipelined_requests_leave_turns_to_others_of_the_thread() {
    let (in_a_row, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let commands = Commands::default();
    let (counted, highest) = (in_a_row.clone(), most.clone());
    commands.answer_with(move |_| {
        highest.fetch_max(counted.fetch_add(1, SeqCst) + 1, SeqCst);
        async { (200, String::new()) }
    });
    let (endpoint, _stop) = start_with(&Health::starting(""), commands).await;
    tokio::spawn(async move {
        loop {
            in_a_row.store(0, SeqCst);
            tokio::task::yield_now().await;
        }
    });
    let mut stream = TcpStream::connect(&endpoint).await.unwrap();
    let requests = "GET /commands/x HTTP/1.1\r\nHost: x\r\n\r\n".repeat(99);
    let last = "GET /commands/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all((requests + last).as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("200 OK").count(), 100);
    assert!(most.load(SeqCst) <= 2, "{most:?} answers in a row");
}

#[tokio::test]
async fn a_filter_that_does_not_parse_is_refused() {
    let (endpoint, _stop) = start(&Health::starting("")).await;
    let (status, text) = ask(&endpoint, "PUT", "/loglevel", "a=b=c", LIMIT).await.unwrap();
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("expected a level"), "{text}");
}

#[tokio::test]
async fn commands_are_answered_once_a_handler_is_set() {
    let commands = Commands::default();
    let (endpoint, _stop) = start_with(&Health::starting(""), commands.clone()).await;
    let get = async |path: &str| ask(&endpoint, "GET", path, "", LIMIT).await.unwrap();
    assert_eq!(get("/commands/ruok").await.0, 404);
    commands.answer_with(async |name| (200 + u16::from(name.is_empty()), format!("<{name}>")));
    assert_eq!(get("/commands/ruok?x=y").await, (200, "<ruok>".to_owned()));
    assert_eq!(get("/commands").await, (201, "<>".to_owned()));
    assert_eq!(get("/commandsx").await.0, 404);
    assert_eq!(ask(&endpoint, "POST", "/commands/ruok", "", LIMIT).await.unwrap().0, 404);
}
