use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use http_body::Body as _;

use api::budget::Budget;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::Instant,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{bound::Stream, traffic::Call, *};

const PLACES: Limits = Limits { connections: 100, by_address: false, kept_for_local: 0, members: false };

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn bounds() -> Bounds {
    holding(&Budget::new(32 << 20))
}

/// All that clients may hold is in one budget.
fn holding(budget: &Budget) -> Bounds {
    Bounds::clients(100, CallPlaces::sharing(1 << 30), budget.clone(), budget.clone())
}

async fn health_server(
    bounds: Bounds,
    drain: Duration,
) -> (SocketAddr, CancellationToken, JoinHandle<Result<(), Infallible>>) {
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let (address, shutdown) = (listener.address(), CancellationToken::new());
    let (_, health) = tonic_health::server::health_reporter();
    let serving = tokio::spawn(serve(listener, Routes::new(health), bounds, shutdown.clone(), drain));
    (address, shutdown, serving)
}

async fn health_client(address: SocketAddr) -> HealthClient<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

/// The bare HTTP/2 connection of a client that gives the server this window for each answer.
async fn bare(address: SocketAddr, window: u32) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut setting = vec![0, 4];
    setting.extend(window.to_be_bytes());
    socket.write_all(&frame(4, 0, 0, &setting)).await.unwrap();
    socket
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The beginning of a call of `Health.Check`.
fn call(stream: u32) -> Vec<u8> {
    call_of(stream, b"/grpc.health.v1.Health/Check")
}

fn call_of(stream: u32, path: &[u8]) -> Vec<u8> {
    let mut headers = vec![0x83, 0x86, 0x04, path.len() as u8];
    headers.extend(path);
    headers.extend(b"\x01\x01a\x00\x0ccontent-type\x10application/grpc\x00\x02te\x08trailers");
    frame(1, 4, stream, &headers)
}

async fn closes(mut socket: TcpStream) -> Duration {
    let began = Instant::now();
    // A reset is as good an end as any.
    let _ = socket.read_to_end(&mut Vec::new()).await;
    began.elapsed()
}

#[tokio::test]
async fn b10_every_accepted_connection_has_nodelay_and_keepalive() {
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let mut incoming = listener.incoming(PLACES);
    for _ in 0..3 {
        let _client = TcpStream::connect(address).await.unwrap();
        let (accepted, _place) = incoming.next().await;
        assert!(accepted.stream().nodelay().unwrap());
        assert!(socket2::SockRef::from(accepted.stream()).keepalive().unwrap());
    }
}

#[tokio::test]
async fn b10_an_active_client_finds_a_place_on_a_port_full_of_silent_connections() {
    let (address, _shutdown, _serving) =
        health_server(Bounds { connections: 8, ..bounds() }, Duration::ZERO).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..3 {
        health_client(address).await.check(HealthCheckRequest::default()).await.unwrap();
    }
    // The first twelve, and one more at least, have given way at once; a silent connection alone is closed after ten seconds.
    let gave_way = async {
        for silent in silent.drain(..13) {
            closes(silent).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gave_way).await.unwrap();
    let newest = closes(silent.pop().unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(100), newest).await.is_err(), "it stays");
}

#[tokio::test(start_paused = true)]
async fn b10_a_connection_that_asks_nothing_is_closed() {
    let (address, _shutdown, _serving) = health_server(bounds(), Duration::ZERO).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let greeted = bare(address, 65_535).await;
    let (silent, greeted) = tokio::join!(closes(silent), closes(greeted));
    assert!(silent < Duration::from_secs(13) && greeted < Duration::from_secs(13), "{silent:?} {greeted:?}");
}

#[tokio::test(start_paused = true)]
async fn b07_a_request_that_never_becomes_whole_ends_its_connection() {
    let budget = Budget::new(32 << 20);
    let (address, _shutdown, _serving) = health_server(holding(&budget), Duration::ZERO).await;
    let mut socket = bare(address, 65_535).await;
    // So the connection has spoken.
    let whole = [call(1), frame(0, 1, 1, &[0, 0, 0, 0, 0])].concat();
    socket.write_all(&whole).await.unwrap();
    // Ten messages of 40 KiB, each without its last byte.
    for stream in (3..23).step_by(2) {
        socket.write_all(&call(stream)).await.unwrap();
        socket.write_all(&frame(0, 0, stream, &[0, 0, 0, 0xa0, 0, 1, 2, 3])).await.unwrap();
    }
    while budget.used() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(budget.used() <= 8 << 20, "a share of it: {budget:?}");
    let took = closes(socket).await;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(15), "{took:?}");
    while budget.used() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn b07_a_call_whose_client_does_not_end_its_request_is_counted_and_ends() {
    let budget = Budget::new(32 << 20);
    let (address, _shutdown, _serving) = health_server(holding(&budget), Duration::ZERO).await;
    let mut socket = bare(address, 65_535).await;
    // A whole message of 10,003 bytes: the name of a service, without the flag END_STREAM.
    let message = [&[0, 0, 0, 0x27, 0x13, 0x0a, 0x90, 0x4e][..], &[b'x'; 10_000]].concat();
    socket.write_all(&[call(1), frame(0, 0, 1, &message)].concat()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(budget.used() >= 10_000, "the service does not have it yet: {budget:?}");
    let took = closes(socket).await;
    assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(8), "{took:?}");
    while budget.used() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn b07_a_second_message_on_a_call_that_takes_one_is_refused() {
    let (address, _shutdown, _serving) = health_server(bounds(), Duration::ZERO).await;
    let mut socket = bare(address, 65_535).await;
    socket.write_all(&[call(1), frame(0, 0, 1, &[0; 10])].concat()).await.unwrap();
    let (mut seen, mut answer) = (Vec::new(), [0; 4096]);
    // A frame of headers on that stream.
    while !seen.windows(9).any(|w: &[u8]| w[3] == 1 && w[5..] == 1u32.to_be_bytes()) {
        let count = socket.read(&mut answer).await.unwrap();
        assert!(count > 0, "closed");
        seen.extend(&answer[..count]);
    }
}

#[tokio::test(start_paused = true)]
async fn b06_unread_answers_end_their_connection() {
    let (address, _shutdown, _serving) = health_server(bounds(), Duration::ZERO).await;
    let mut socket = bare(address, 0).await;
    for stream in [1, 3, 5] {
        socket.write_all(&[call(stream), frame(0, 1, stream, &[0, 0, 0, 0, 0])].concat()).await.unwrap();
    }
    let took = closes(socket).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn b06_answers_that_are_read_byte_by_byte_end_their_connection() {
    let (address, _shutdown, _serving) = health_server(bounds(), Duration::ZERO).await;
    let mut socket = bare(address, 0).await;
    socket.write_all(&[call(1), frame(0, 1, 1, &[0, 0, 0, 0, 0])].concat()).await.unwrap();
    let began = Instant::now();
    // The answer has more bytes than that.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let _ = socket.write_all(&frame(8, 0, 1, &1u32.to_be_bytes())).await;
    }
    closes(socket).await;
    assert!(began.elapsed() < Duration::from_secs(22), "{:?}", began.elapsed());
    // A client that reads fast enough has the time for all of a large answer.
    let call = Call {
        unsent: AtomicUsize::new(1 << 20),
        taken_due: AtomicU64::new(10_000),
        message_due: AtomicU64::new(u64::MAX),
        sender: Mutex::default(),
    };
    for second in 0..60 {
        assert!(call.taken_due.load(SeqCst) > second * 1000, "after {second} s");
        call.took(64_000, 1, second * 1000 + 10_000);
    }
    assert!(call.taken_due.load(SeqCst) <= 69_000, "what it took faster gives no credit");
}

#[tokio::test(start_paused = true)]
async fn b07_a_message_does_not_wait_for_long_for_room_that_others_have() {
    let budget = Budget::new(32 << 20);
    let (address, _shutdown, _serving) = health_server(holding(&budget), Duration::ZERO).await;
    let mut held: Vec<_> = (0..4).map_while(|_| budget.share().try_take(8 << 20)).collect();
    held.extend((0..).map_while(|_| budget.share().try_take(budget.small())));
    let check = async || {
        let service = "x".repeat(10_000);
        health_client(address).await.check(HealthCheckRequest { service }).await.unwrap_err()
    };
    let began = Instant::now();
    let refused = proto::client::details(&check().await).unwrap();
    assert_eq!(refused.code(), api::ErrorCode::Overloaded, "{refused}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // The smallest messages need no room.
    health_client(address).await.check(HealthCheckRequest::default()).await.unwrap();
    held.clear();
    assert_eq!(check().await.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn b06_streams_that_watch_leave_room_for_calls() {
    let bounds = Bounds { calls: CallPlaces::of_clients(64), ..bounds() };
    let (address, _shutdown, _serving) = health_server(bounds, Duration::ZERO).await;
    let mut watching = Vec::new();
    let refused = loop {
        match health_client(address).await.watch(HealthCheckRequest::default()).await {
            Ok(stream) => watching.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!((watching.len(), refused.code()), (12, tonic::Code::ResourceExhausted), "{refused}");
    health_client(address).await.check(HealthCheckRequest::default()).await.unwrap();
    watching.pop();
    // The server sees the end of the stream a little later.
    let again = async {
        while health_client(address).await.watch(HealthCheckRequest::default()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.unwrap();
}

#[tokio::test]
async fn b07_a_message_above_the_limit_is_refused_by_name() {
    let (address, _shutdown, _serving) = health_server(bounds(), Duration::ZERO).await;
    let mut client = health_client(address).await;
    let service = "x".repeat(proto::client::MESSAGE_MAX);
    let refused = client.check(HealthCheckRequest { service }).await.unwrap_err();
    let refused = proto::client::details(&refused).unwrap();
    assert_eq!(refused.code(), api::ErrorCode::TooLarge, "{refused}");
    client.check(HealthCheckRequest::default()).await.unwrap();
}

#[tokio::test]
async fn b12_many_cancelled_calls_leave_the_others_of_their_connection_alone() {
    let (address, _shutdown, _serving) = health_server(bounds(), Duration::ZERO).await;
    let mut client = health_client(address).await;
    let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let mut socket = bare(address, 65_535).await;
    // Cancelled before the server has looked at any: all in one write.
    let mut burst = Vec::new();
    for stream in (1..1000).step_by(2) {
        burst.extend(call(stream));
        burst.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
    }
    burst.extend([call(1001), frame(0, 1, 1001, &[0, 0, 0, 0, 0])].concat());
    socket.write_all(&burst).await.unwrap();
    let mut answer = vec![0; 4096];
    let mut seen: Vec<u8> = Vec::new();
    let answered = async {
        loop {
            let count = socket.read(&mut answer).await.unwrap();
            assert!(count > 0, "closed");
            seen.extend(&answer[..count]);
            // A frame of data on the last stream.
            if seen.windows(6).any(|w| w[0] == 0 && w[2..] == 1001u32.to_be_bytes()) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    client.check(HealthCheckRequest::default()).await.unwrap();
}

/// Begins its answer at once, as a session does, and tells of each piece of the request.
#[derive(Clone)]
struct Listens(tokio::sync::mpsc::UnboundedSender<usize>);

impl tonic::server::NamedService for Listens {
    const NAME: &'static str = "grpc.reflection.v1.ServerReflection";
}

impl tower::Service<http::Request<tonic::body::Body>> for Listens {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let (heard, mut body) = (self.0.clone(), request.into_body());
        tokio::spawn(async move {
            while let Some(Ok(frame)) = poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
                let _ = heard.send(frame.data_ref().map_or(0, bytes::Bytes::len));
            }
        });
        let never = http_body_util::StreamBody::new(tokio_stream::pending::<
            Result<http_body::Frame<bytes::Bytes>, tonic::Status>,
        >());
        std::future::ready(Ok(http::Response::new(tonic::body::Body::new(never))))
    }
}

/// A flood of silent connections cost each session its connection that had one stream and nothing else.
#[tokio::test]
async fn b10_a_session_keeps_its_place_on_a_port_full_of_silent_connections() {
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let (heard, mut listened) = tokio::sync::mpsc::unbounded_channel();
    let (routes, shutdown) = (Routes::new(Listens(heard)), CancellationToken::new());
    let bounds = Bounds { connections: 8, ..bounds() };
    let _serving = tokio::spawn(serve(listener, routes, bounds, shutdown.clone(), Duration::ZERO));
    let mut session = bare(address, 1 << 20).await;
    let message = frame(0, 0, 1, &[0, 0, 0, 0, 2, 0x3a, 0]);
    session
        .write_all(&call_of(1, b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"))
        .await
        .unwrap();
    session.write_all(&message).await.unwrap();
    let mut bytes = 0;
    while bytes < 7 {
        bytes += listened.recv().await.unwrap();
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // One more that has given way, so all that connected before it have their places.
    closes(silent.remove(0)).await;
    closes(silent.remove(9)).await;
    session.write_all(&message).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(5), listened.recv()).await;
    assert!(heard.unwrap().is_some(), "the session goes on");
}

/// Counts the bytes of each request, as soon as it may.
#[derive(Clone)]
struct Counter {
    counted: tokio::sync::mpsc::UnboundedSender<usize>,
    may: Arc<tokio::sync::Semaphore>,
}

impl tonic::server::NamedService for Counter {
    // One whose requests may have many messages.
    const NAME: &'static str = "grpc.reflection.v1.ServerReflection";
}

impl tower::Service<http::Request<tonic::body::Body>> for Counter {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let Counter { counted, may } = self.clone();
        Box::pin(async move {
            let _may = may.acquire().await.unwrap();
            let mut body = request.into_body();
            let mut bytes = 0;
            while let Some(Ok(frame)) = poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
                bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
            }
            counted.send(bytes).unwrap();
            Ok(http::Response::new(tonic::body::Body::empty()))
        })
    }
}

fn counter(permits: usize) -> (Counter, tokio::sync::mpsc::UnboundedReceiver<usize>) {
    let (counted, receiver) = tokio::sync::mpsc::unbounded_channel();
    (Counter { counted, may: Arc::new(tokio::sync::Semaphore::new(permits)) }, receiver)
}

/// Other calls of the connection end meanwhile: some whole, some cancelled, some with unread requests.
#[tokio::test]
async fn b12_calls_that_end_leave_the_count_of_waiting_requests_alone() {
    const CALLS: u32 = 100;
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let (counter, mut counted) = counter(0);
    let may = counter.may.clone();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let routes = Routes::new(counter).add_service(health);
    let shutdown = CancellationToken::new();
    let _serving = tokio::spawn(serve(listener, routes, bounds(), shutdown.clone(), Duration::ZERO));
    let (mut read, mut write) = bare(address, 1 << 20).await.into_split();
    let request = frame(0, 0, 1, &[0, 0, 0, 0, 2, 0x3a, 0]);
    let mut all = call_of(1, b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    all.extend(request.repeat(150));
    for call_number in 0..CALLS {
        let stream = 3 + 6 * call_number;
        all.extend([call(stream), frame(0, 1, stream, &[0, 0, 0, 0, 0])].concat());
        all.extend([call(stream + 2), frame(3, 0, stream + 2, &8u32.to_be_bytes())].concat());
        let unread = frame(0, 0, stream + 4, &[0, 0, 0]);
        all.extend([call(stream + 4), unread, frame(3, 0, stream + 4, &8u32.to_be_bytes())].concat());
    }
    all.extend(request.repeat(300));
    all.extend(frame(0, 1, 1, &[]));
    let writing = tokio::spawn(async move { write.write_all(&all).await.map(|()| write) });
    let (mut said, mut buffer) = (Vec::new(), vec![0; 4096]);
    let answered = |said: &[u8]| {
        let is_answer = |w: &&[u8]| w[..5] == [0, 0, 7, 0, 0];
        said.windows(9).filter(is_answer).count() >= CALLS as usize
    };
    let all_answered = async {
        while !answered(&said) {
            let count = read.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the connection ended: {:?}", String::from_utf8_lossy(&said));
            said.extend(&buffer[..count]);
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_answered).await.unwrap();
    may.add_permits(1);
    let ended = async {
        let _ = read.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).into_owned()
    };
    tokio::select! {
        bytes = counted.recv() => assert_eq!(bytes, Some(450 * 7)),
        said = ended => panic!("the connection ended: {said:?}"),
    }
    let _ = writing.await;
}

/// Most clients send each request in a frame of its own, and as many as they have.
#[tokio::test]
async fn b12_many_small_requests_at_once_do_not_end_the_connection() {
    const REQUESTS: usize = 10_000;
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let (counter, mut counted) = counter(1);
    let (routes, shutdown) = (Routes::new(counter), CancellationToken::new());
    let _serving = tokio::spawn(serve(listener, routes, bounds(), shutdown.clone(), Duration::ZERO));
    let (mut read, mut write) = bare(address, 1 << 20).await.into_split();
    write.write_all(&call_of(1, b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")).await.unwrap();
    let request = [0, 0, 0, 0, 2, 0x3a, 0];
    let mut all = frame(0, 0, 1, &request).repeat(REQUESTS);
    all.extend(frame(0, 1, 1, &[]));
    let writing = tokio::spawn(async move { write.write_all(&all).await.map(|()| write) });
    let ended = async {
        let mut said = Vec::new();
        let _ = read.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).into_owned()
    };
    tokio::select! {
        bytes = counted.recv() => assert_eq!(bytes, Some(REQUESTS * request.len())),
        said = ended => panic!("the connection ended: {said:?}"),
    }
    let _ = writing.await;
}

/// On the connection of an edge, a few clients whose requests waited kept all others waiting, and then ended it.
#[tokio::test]
async fn b06_streams_that_are_not_read_leave_the_others_of_an_edge_alone() {
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let (counter, _counted) = counter(0);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let (routes, shutdown) = (Routes::new(counter).add_service(health), CancellationToken::new());
    let _serving =
        tokio::spawn(serve(listener, routes, Bounds::neighbours(), shutdown.clone(), Duration::ZERO));
    let (mut read, mut write) = bare(address, 1 << 20).await.into_split();
    let mut all = Vec::new();
    for stream in (1..=19).step_by(2) {
        all.extend(call_of(stream, b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"));
        all.extend(frame(0, 0, stream, &[0, 0, 0, 0, 2, 0x3a, 0]).repeat(4000));
    }
    all.extend([call(21), frame(0, 1, 21, &[0, 0, 0, 0, 0])].concat());
    let _writing = tokio::spawn(async move { write.write_all(&all).await.map(|()| write) });
    let (mut said, mut buffer) = (Vec::new(), vec![0; 4096]);
    let answered = async {
        while !said.windows(9).any(|w: &[u8]| w[..5] == [0, 0, 7, 0, 0]) {
            let count = read.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the connection ended: {:?}", String::from_utf8_lossy(&said));
            said.extend(&buffer[..count]);
        }
    };
    tokio::time::timeout(Duration::from_secs(4), answered).await.unwrap();
}

/// A port of clients with certificates of `authority`, in `dir`.
fn secured(dir: &std::path::Path, authority: &tls::Authority) -> Arc<tls::Keeper> {
    use std::os::unix::fs::PermissionsExt as _;
    let day = Duration::from_secs(86_400);
    let issued = authority.issue_server("localhost", &["localhost".into()], day).unwrap();
    let files = tls::Files {
        certificate: dir.join("own.pem"),
        key: dir.join("own.key"),
        authorities: Some(dir.join("ca.pem")),
        revoked: None,
    };
    std::fs::write(&files.certificate, issued.certificate).unwrap();
    std::fs::write(&files.key, issued.key).unwrap();
    std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.certificate()).unwrap();
    tls::Keeper::load(files, tls::Certificates::Clients { required: true }).unwrap()
}

fn authority() -> tls::Authority {
    tls::Authority::new("test", Duration::from_secs(86_400)).unwrap()
}

#[tokio::test]
async fn s04_an_open_connection_ends_when_its_authority_is_trusted_no_more() {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};
    let (dir, ours) = (tempfile::tempdir().unwrap(), authority());
    let keeper = secured(dir.path(), &ours);
    let acceptor = tls::Acceptor::new(&keeper, tls::Mode::Require, true);
    let listener = Listener::bind("test", loopback()).await.unwrap().secured(acceptor);
    let (address, shutdown) = (listener.address(), CancellationToken::new());
    let (_, health) = tonic_health::server::health_reporter();
    let _serving = tokio::spawn(serve(listener, Routes::new(health), bounds(), shutdown, Duration::ZERO));
    let own = ours.issue_client("somebody", Duration::from_secs(86_400)).unwrap();
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ours.certificate()))
        .identity(Identity::from_pem(own.certificate, own.key))
        .domain_name("localhost");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{address}")).unwrap();
    let channel = endpoint.tls_config(config).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    let mut stream = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    // The files are those of another authority now.
    secured(dir.path(), &authority());
    let reload = tokio::task::spawn_blocking(move || keeper.reload());
    assert!(reload.await.unwrap().unwrap());
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    assert!(ended.unwrap().is_err());
    assert!(client.check(HealthCheckRequest::default()).await.is_err());
}

#[tokio::test]
async fn b10_a_drain_does_not_wait_for_handshakes() {
    let dir = tempfile::tempdir().unwrap();
    let acceptor = tls::Acceptor::new(&secured(dir.path(), &authority()), tls::Mode::Require, true);
    let listener = Listener::bind("test", loopback()).await.unwrap().secured(acceptor);
    let (address, shutdown) = (listener.address(), CancellationToken::new());
    let (_, health) = tonic_health::server::health_reporter();
    let drain = Duration::from_secs(60);
    let serving = tokio::spawn(serve(listener, Routes::new(health), bounds(), shutdown.clone(), drain));
    let _silent = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(3), serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn b10_a_drain_does_not_wait_for_silent_connections() {
    let (address, shutdown, serving) = health_server(bounds(), Duration::from_secs(60)).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    health_client(address).await.check(HealthCheckRequest::default()).await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let first = Listener::bind("client", loopback()).await.unwrap();
    let text = Listener::bind("client", first.address()).await.unwrap_err().to_string();
    assert!(text.contains(&format!("client address {} is in use", first.address())), "{text}");
    assert!(text.contains(&format!("sport = :{}", first.address().port())), "{text}");
    let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
    let text = Listener::bind("quorum", foreign).await.unwrap_err().to_string();
    assert!(text.contains("not one of this machine's"), "{text}");
}

#[tokio::test]
async fn garbage_costs_its_own_connection_only() {
    let (address, shutdown, serving) = health_server(bounds(), Duration::from_secs(5)).await;
    let mut good = health_client(address).await;
    good.check(HealthCheckRequest::default()).await.unwrap();
    for garbage in [
        &b"\0\xff\x17garbage\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(garbage).await.unwrap();
        // The server closes the connection, and has processed the request by then. A reset is as good an end
        // as any.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    good.check(HealthCheckRequest::default()).await.unwrap();
    health_client(address).await.check(HealthCheckRequest::default()).await.unwrap();
    drop(good);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_closes_the_port_and_bounds_the_wait_for_open_streams() {
    let (address, shutdown, serving) = health_server(bounds(), Duration::from_millis(50)).await;
    // A watch never ends by itself.
    let mut stream =
        health_client(address).await.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    shutdown.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// Answers `accept` from a list, and with what a real listener accepts when the list is empty.
struct Scripted {
    faults: RefCell<VecDeque<io::Error>>,
    real: Bound,
}

impl Accept for Scripted {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        match self.faults.borrow_mut().pop_front() {
            Some(fault) => Poll::Ready(Err(fault)),
            None => self.real.poll_accept(cx),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn accepting_survives_faults_and_does_not_spin_when_out_of_descriptors() {
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;
    let listener = Listener::bind("test", loopback()).await.unwrap();
    let address = listener.address();
    let faults = [ECONNABORTED, EMFILE, EMFILE, ECONNABORTED].map(io::Error::from_raw_os_error);
    let acceptor = Scripted { faults: RefCell::new(faults.into()), real: listener.inner };
    let mut incoming = Incoming::new(acceptor, PLACES, Port::Other);
    // Waits in the listener's backlog when the faults are through.
    let _client = std::net::TcpStream::connect(address).unwrap();
    let before = Instant::now();
    incoming.next().await;
    assert!(before.elapsed() >= 2 * PAUSE, "one pause for each EMFILE, {:?}", before.elapsed());
}
