//! Receivers that ask for a pause, answer rubbish, drip, refuse the connection in silence, or take
//! no more than they must.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::Exporter;
use super::event_tests::{GrpcServer, exporter, free_address, incident, wait_for};
use super::tests::snapshot;
use crate::export::otlp::config::{OtlpConfig, OtlpFlags};
use crate::export::otlp::events::Event;
use crate::export::otlp::own::{OwnReading, OwnTelemetry};
use crate::export::otlp::resource::ResourceContext;

fn event(exporter: &Exporter) {
    exporter.event(Event::Incident(incident(1, 1, 0)));
}

/// Logs or metrics there, and the other signal nowhere.
fn sending(signal: &str, address: SocketAddr, vars: &[(&str, &str)]) -> Exporter {
    let endpoint = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    let path = signal.to_lowercase();
    let url = format!("http://{address}/v1/{path}");
    exporter(&[&[(endpoint.as_str(), url.as_str())], vars].concat())
}

/// When each request came, and what was in it.
type Requests = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// Answers each connection with the next of these bytes, the last one again and again.
fn scripted(answers: Vec<Vec<u8>>) -> (SocketAddr, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let answer = answers.get(index).or(answers.last()).expect("an answer");
            if let Some(body) = body_of_request(&stream) {
                seen.lock()
                    .expect("not poisoned")
                    .push((Instant::now(), body));
            }
            // Who is gone wants no answer.
            let _ = (&stream).write_all(answer);
        }
    });
    (address, requests)
}

fn body_of_request(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&part[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]);
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.parse().ok())?;
        let body = &bytes[end + 4..];
        if body.len() >= length {
            return Some(body.to_vec());
        }
    }
}

fn answer(head: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Refuses once with a pause, then takes everything.
#[derive(Clone, Default)]
struct Throttling(Arc<Mutex<Vec<Instant>>>);

impl Throttling {
    const PAUSE: Duration = Duration::from_secs(2);

    fn asked(&self) -> Result<(), Status> {
        let mut asked = self.0.lock().expect("not poisoned");
        asked.push(Instant::now());
        if asked.len() > 1 {
            return Ok(());
        }
        let details = ErrorDetails::with_retry_info(Some(Self::PAUSE));
        let status = Status::with_error_details(Code::ResourceExhausted, "slow down", details);
        Err(status)
    }

    fn gap(&self) -> Option<Duration> {
        let asked = self.0.lock().expect("not poisoned");
        let [first, second, ..] = asked.as_slice() else {
            return None;
        };
        Some(*second - *first)
    }
}

#[tonic::async_trait]
impl LogsService for Throttling {
    async fn export(
        &self,
        _: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.asked()?;
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Throttling {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.asked()?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[test]
fn a_pause_asked_for_over_grpc_is_kept_for_events_and_metrics() {
    for timeout in ["10000", "500"] {
        let address = free_address();
        let (logs, metrics) = (Throttling::default(), Throttling::default());
        let services = Routes::new(LogsServiceServer::new(logs.clone()))
            .add_service(MetricsServiceServer::new(metrics.clone()));
        let server = GrpcServer::start(address, services);
        wait_for("server", || TcpStream::connect(address).is_ok());
        let exporter = exporter(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", timeout),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ]);
        event(&exporter);
        wait_for("both", || {
            exporter.offer(snapshot(1));
            logs.gap().is_some() && metrics.gap().is_some()
        });
        for gap in [logs.gap(), metrics.gap()].into_iter().flatten() {
            assert!(gap >= Throttling::PAUSE, "{gap:?} within {timeout} ms");
        }
        wait_for("the event", || exporter.counters().exported_events == 1);
        assert_eq!(exporter.counters().failed_events, 0);
        server.stop();
    }
}

#[test]
fn retry_after_is_kept_over_http() {
    for timeout in ["10000", "500"] {
        let answers = vec![
            answer("503 Service Unavailable\r\nRetry-After: 2"),
            answer("200 OK"),
        ];
        let (address, requests) = scripted(answers);
        let exporter = sending("LOGS", address, &[("OTEL_EXPORTER_OTLP_TIMEOUT", timeout)]);
        event(&exporter);
        wait_for("the event", || exporter.counters().exported_events == 1);
        let requests = requests.lock().expect("not poisoned");
        let gap = requests[1].0 - requests[0].0;
        assert!(gap >= Duration::from_secs(2), "{gap:?}");
        assert_eq!(requests[0].1, requests[1].1, "the same again");
    }
}

#[test]
fn rubbish_is_no_answer_and_the_event_comes_later() {
    let huge_head = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    for rubbish in [
        b"\0\xff\xfe rubbish".to_vec(),
        b"HTTP/1.1 9999999 ?\r\n\r\n".to_vec(),
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: \xff\r\nContent-Length: 0\r\n\r\n"
            .to_vec(),
        huge_head,
        Vec::new(),
    ] {
        let (address, _) = scripted(vec![rubbish, answer("200 OK")]);
        let exporter = sending("LOGS", address, &[]);
        event(&exporter);
        wait_for("the event", || exporter.counters().exported_events == 1);
        let counters = exporter.counters();
        assert_eq!((counters.failed_events, counters.dropped_events), (0, 0));
    }
    // Taken, whatever the body says; and an endless one is not read to its end.
    for (length, body) in [
        (9, b"\xff rubbish".to_vec()),
        (1_usize << 40, vec![0xff; 1 << 17]),
    ] {
        let head =
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        let (address, _) = scripted(vec![[head.into_bytes(), body].concat()]);
        let exporter = sending("LOGS", address, &[]);
        event(&exporter);
        wait_for("the event", || exporter.counters().exported_events == 1);
    }
}

#[test]
fn rubbish_over_grpc_costs_no_event() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let exporter = sending("LOGS", address, &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    event(&exporter);
    listener.set_nonblocking(true).expect("set");
    for _ in 0..2 {
        wait_for("a connection", || {
            let Ok((mut stream, _)) = listener.accept() else {
                return false;
            };
            // Who is gone reads nothing.
            let _ = stream.write_all(&[0xff; 4096]);
            true
        });
    }
    drop(listener);
    assert_eq!(exporter.counters().failed_events, 0);
    let server = GrpcServer::start(
        address,
        Routes::new(LogsServiceServer::new(Taking::default())),
    );
    wait_for("the event", || exporter.counters().exported_events == 1);
    server.stop();
}

#[test]
fn a_server_that_drips_and_one_that_never_accepts_are_left_after_the_timeout() {
    let dripping = TcpListener::bind("127.0.0.1:0").expect("listen");
    let drips = dripping.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in dripping.incoming().map_while(Result::ok) {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
            for byte in head.iter().cycle() {
                if (&stream).write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    // A backlog that is full: the kernel answers no further connection.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let (black_hole, _full) = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket
            .bind("127.0.0.1:0".parse().expect("address"))
            .expect("bound");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("address");
        let patience = Duration::from_millis(200);
        let mut full = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
            full.push(stream);
        }
        (address, (listener, full))
    });
    for address in [drips, black_hole] {
        for protocol in ["grpc", "http/protobuf"] {
            let vars = [
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
                ("OTEL_METRIC_EXPORT_INTERVAL", "60000"),
            ];
            let exporter = sending("METRICS", address, &vars);
            exporter.offer(snapshot(1));
            wait_for("the end of the attempt", || {
                exporter.counters().failed_points == 2
            });
            let begun = Instant::now();
            exporter.shutdown(Duration::from_millis(300));
            assert!(begun.elapsed() < Duration::from_secs(1));
        }
    }
}

/// Takes all that a server of this library takes by default: requests below 4 MiB.
#[derive(Clone, Default)]
struct Taking(Arc<Mutex<Vec<usize>>>);

impl Taking {
    fn take(&self, request: &impl Message) {
        let mut lengths = self.0.lock().expect("not poisoned");
        lengths.push(request.encoded_len());
    }
}

#[tonic::async_trait]
impl LogsService for Taking {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take(request.get_ref());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taking {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take(request.get_ref());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[test]
fn many_cgroups_and_a_large_group_kill_pass_a_server_of_default_limits() {
    for compression in ["none", "gzip", "zstd"] {
        let address = free_address();
        let (logs, metrics) = (Taking::default(), Taking::default());
        let decompress = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];
        let [logs_service, metrics_service] = [&logs, &metrics].map(Clone::clone);
        let mut logs_service = LogsServiceServer::new(logs_service);
        let mut metrics_service = MetricsServiceServer::new(metrics_service);
        for encoding in decompress {
            logs_service = logs_service.accept_compressed(encoding);
            metrics_service = metrics_service.accept_compressed(encoding);
        }
        let services = Routes::new(logs_service).add_service(metrics_service);
        let server = GrpcServer::start(address, services);
        wait_for("server", || TcpStream::connect(address).is_ok());
        let exporter = exporter(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
        ]);
        exporter.offer(snapshot(20_000));
        exporter.event(Event::Incident(incident(1, 1000, 8192)));
        wait_for("all", || {
            let counters = exporter.counters();
            counters.exported_points == 20_001 && counters.exported_events == 1000
        });
        for taken in [logs, metrics] {
            let lengths = taken.0.lock().expect("not poisoned");
            assert!(lengths.len() > 1, "{lengths:?}");
            assert!(
                lengths.iter().all(|length| *length < 4 << 20),
                "{lengths:?}"
            );
        }
        server.stop();
    }
}

#[test]
fn bodies_over_http_are_compressed_as_asked() {
    let plain = |body: &[u8], name: &str| match name {
        "gzip" => {
            let mut text = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(body);
            decoder.read_to_end(&mut text).expect("gzip");
            text
        }
        "zstd" => zstd::decode_all(body).expect("zstd"),
        _ => body.to_vec(),
    };
    let mut bodies = Vec::new();
    for name in ["none", "gzip", "zstd"] {
        let (address, requests) = scripted(vec![answer("200 OK")]);
        let vars = [("OTEL_EXPORTER_OTLP_COMPRESSION", name)];
        let exporter = sending("LOGS", address, &vars);
        exporter.event(Event::Incident(incident(1, 50, 100)));
        wait_for("the events", || exporter.counters().exported_events == 50);
        let requests = requests.lock().expect("not poisoned");
        let body = &requests[0].1;
        let request = ExportLogsServiceRequest::decode(plain(body, name).as_slice());
        assert_eq!(request.expect("OTLP").resource_logs.len(), 1);
        bodies.push(body.len());
    }
    assert!(
        bodies[1] < bodies[0] / 4 && bodies[2] < bodies[0] / 4,
        "{bodies:?}"
    );
}

#[test]
fn memtraces_own_telemetry_outlives_an_answer_that_makes_its_library_panic() {
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let refusal = move || async move {
        seen.fetch_add(1, Ordering::SeqCst);
        let headers = [
            ("content-type", "application/grpc"),
            ("grpc-status", "13"),
            ("grpc-status-details-bin", "!"),
        ];
        (headers, "")
    };
    let address = free_address();
    let server = GrpcServer::start(address, Routes::from(axum::Router::new().fallback(refusal)));
    let url = format!("http://{address}");
    let vars = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let exporter = exporter(&vars);
    let config = OtlpConfig::resolve(&OtlpFlags::default(), &|name| {
        let found = vars.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    let target = config.expect("valid").expect("enabled").metrics;
    let own = OwnTelemetry::start(
        &target.expect("metrics"),
        Duration::from_millis(50),
        &ResourceContext::default(),
        OwnReading::default(),
        exporter.runtime(),
    );
    let own = own.expect("started");
    wait_for("a third question", || asked.load(Ordering::SeqCst) > 2);
    assert!(own.shutdown(Duration::from_secs(5)).is_err());
    server.stop();
}
