//! Events against receivers on the wire: gRPC, HTTP, absent, silent, refusing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::inbox::{Entry, Inbox, MAX_BYTES, MAX_EVENTS};
use super::{Exporter, OtlpConfig};
use crate::export::otlp::config::OtlpFlags;
use crate::export::otlp::events::Event;
use crate::export::otlp::resource::ResourceContext;
use crate::incident::record::{
    Evidence, Incident, KernelCounts, Kind, Meaning, Request as Allocation, Victim,
};
use crate::model::snapshot::{HostReading, SelfReading, Snapshot};

pub(super) fn incident(id: usize, victims: u32, command_line: usize) -> Arc<Incident> {
    let victim = |pid| Victim {
        pid: Some(pid),
        tid: pid,
        command_line: Some("x".repeat(command_line)),
        cgroup: Some("/a".to_owned()),
        marked: Timestamp::UNIX_EPOCH,
        ..Victim::default()
    };
    Arc::new(Incident {
        id: id.to_string(),
        kind: Kind::CgroupOom,
        time: Timestamp::UNIX_EPOCH,
        boot_time_ns: 0,
        boot_id: String::new(),
        complete: true,
        group_kill: Some(true),
        charged: None,
        trigger: None,
        request: Allocation::default(),
        killer: None,
        victims: (1..=victims).map(victim).collect(),
        victims_left_out: 0,
        evidence: Evidence::default(),
        kernel_counts: KernelCounts::default(),
        stall: None,
        kubernetes: None,
        meaning: Meaning::default(),
    })
}

/// Sends logs there and nothing else.
fn logs_to(address: SocketAddr, protocol: &str, timeout_ms: &str) -> Exporter {
    exporter(&[
        (
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            &format!("http://{address}/v1/logs"),
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", timeout_ms),
    ])
}

pub(super) fn exporter(vars: &[(&str, &str)]) -> Exporter {
    let env = |name: &str| {
        let found = vars.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let config = OtlpConfig::resolve(&OtlpFlags::default(), &env)
        .expect("valid")
        .expect("enabled");
    Exporter::start(&config, ResourceContext::default()).expect("started")
}

pub(super) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a receiver got.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<ExportLogsServiceRequest>>>);

impl Received {
    fn requests(&self) -> usize {
        self.0.lock().expect("not poisoned").len()
    }

    /// Incident and process of every record.
    fn records(&self) -> Vec<(String, i64)> {
        let requests = self.0.lock().expect("not poisoned");
        let resources = requests.iter().flat_map(|request| &request.resource_logs);
        let scopes = resources.flat_map(|resource| &resource.scope_logs);
        let records = scopes.flat_map(|scope| &scope.log_records);
        records
            .map(|record| {
                let value = |key: &str| {
                    let found = record.attributes.iter().find(|kv| kv.key == key)?;
                    found.value.as_ref()?.value.clone()
                };
                match (value("memtrace.incident.id"), value("process.pid")) {
                    (Some(Value::StringValue(id)), Some(Value::IntValue(pid))) => (id, pid),
                    other => panic!("{other:?}"),
                }
            })
            .collect()
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let mut requests = self.0.lock().expect("not poisoned");
        requests.push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// A gRPC server.
pub(super) struct GrpcServer {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl GrpcServer {
    pub(super) fn start(address: SocketAddr, services: Routes) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            runtime.block_on(async {
                tokio::select! {
                    ended = tonic::transport::Server::builder().add_routes(services).serve(address) => {
                        ended.expect("serves");
                    }
                    _ = stopped => {}
                }
            });
        });
        GrpcServer { stop, thread }
    }

    fn with_logs(address: SocketAddr, received: Received) -> Self {
        Self::start(address, Routes::new(LogsServiceServer::new(received)))
    }

    /// Closes its connections too.
    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        self.thread.join().expect("did not panic");
    }
}

/// An HTTP receiver that answers each request with `status` and `body`, for the whole test.
fn http_server(status: &'static str, body: Vec<u8>) -> (SocketAddr, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let received = Received::default();
    let sink = received.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            post(stream, status, &body, &sink);
        }
    });
    (address, received)
}

/// Answers only after `received` has it, so that what was answered can be asserted on.
fn post(stream: TcpStream, status: &str, body: &[u8], received: &Received) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("a head") > 0);
    }
    assert!(head.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf"),
        "{head}"
    );
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse().ok());
    let mut content = vec![0; length.expect("a length")];
    reader.read_exact(&mut content).expect("a body");
    let request = ExportLogsServiceRequest::decode(content.as_slice()).expect("OTLP");
    received.0.lock().expect("not poisoned").push(request);
    let answer = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = reader.into_inner();
    stream.write_all(answer.as_bytes()).expect("answered");
    stream.write_all(body).expect("answered");
}

pub(super) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    listener.local_addr().expect("address")
}

#[test]
fn the_oldest_incidents_go_when_there_are_too_many_and_are_counted() {
    let inbox = Inbox::default();
    let push = |inbox: &Inbox, incident| {
        inbox.push(Entry::new(Event::Incident(incident), SystemTime::now()));
    };
    for id in 0..MAX_EVENTS + 3 {
        push(&inbox, incident(id, 2, 0));
    }
    assert_eq!(inbox.dropped(), 6, "two events each");
    let oldest = inbox.take().map(|entry| match entry.event {
        Event::Incident(incident) => incident.id.clone(),
        Event::Growth(_) | Event::Report(_) | Event::Limit(_) => String::new(),
    });
    assert_eq!(oldest.as_deref(), Some("3"));

    let inbox = Inbox::default();
    let huge = incident(0, 1, MAX_BYTES / 3);
    for _ in 0..5 {
        push(&inbox, Arc::clone(&huge));
    }
    assert_eq!(inbox.dropped(), 3);
    assert!(inbox.take().is_some() && inbox.take().is_some() && inbox.take().is_none());
}

#[test]
fn events_wait_for_a_backend_that_is_down_and_come_once_in_order() {
    for protocol in ["grpc", "http/protobuf"] {
        let address = free_address();
        let exporter = logs_to(address, protocol, "200");
        for id in 0..3 {
            exporter.event(Event::Incident(incident(id, 2, 0)));
        }
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(exporter.counters().exported_events, 0);
        let received = Received::default();
        let expected: Vec<(String, i64)> = (0..3)
            .flat_map(|id| [(id.to_string(), 1), (id.to_string(), 2)])
            .collect();
        if protocol == "grpc" {
            let server = GrpcServer::with_logs(address, received.clone());
            wait_for("events", || exporter.counters().exported_events == 6);
            assert_eq!(received.records(), expected, "{protocol}");
            server.stop();
            // The connection breaks, and another server comes.
            exporter.event(Event::Incident(incident(7, 1, 0)));
            std::thread::sleep(Duration::from_millis(300));
            let later = Received::default();
            let server = GrpcServer::with_logs(address, later.clone());
            wait_for("the event", || exporter.counters().exported_events == 7);
            assert_eq!(later.records(), [("7".to_owned(), 1)]);
            server.stop();
        } else {
            let listener = TcpListener::bind(address).expect("the port is free still");
            let (stream, _) = listener.accept().expect("a connection");
            post(stream, "200 OK", &[], &received);
            wait_for("events", || exporter.counters().exported_events == 6);
            assert_eq!(received.records(), expected, "{protocol}");
        }
        let counters = exporter.counters();
        assert_eq!((counters.failed_events, counters.dropped_events), (0, 0));
        assert!(exporter.shutdown(Duration::from_secs(1)));
    }
}

#[test]
fn a_backend_without_logs_is_asked_once_per_event() {
    let (address, received) = http_server("404 Not Found", b"no such page".to_vec());
    let exporter = logs_to(address, "http/protobuf", "5000");
    exporter.event(Event::Incident(incident(1, 3, 0)));
    wait_for("the refusal", || exporter.counters().failed_events == 3);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(received.requests(), 1, "not sent again");
    exporter.event(Event::Incident(incident(2, 1, 0)));
    wait_for("the refusal", || exporter.counters().failed_events == 4);
    assert_eq!(received.requests(), 2);

    // A gRPC server without the service.
    let address = free_address();
    let server = GrpcServer::start(address, Routes::default());
    wait_for("server", || TcpStream::connect(address).is_ok());
    let exporter = logs_to(address, "grpc", "5000");
    exporter.event(Event::Incident(incident(1, 1, 0)));
    wait_for("the refusal", || exporter.counters().failed_events == 1);
    server.stop();
}

#[test]
fn refused_events_of_an_accepted_request_are_counted() {
    let answer = ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: 2,
            error_message: "too old".to_owned(),
        }),
    };
    let (address, _) = http_server("200 OK", answer.encode_to_vec());
    let exporter = logs_to(address, "http/protobuf", "5000");
    exporter.event(Event::Incident(incident(1, 5, 0)));
    wait_for("the answer", || exporter.counters().rejected_events == 2);
    wait_for("the answer", || exporter.counters().exported_events == 3);
    assert_eq!(exporter.counters().failed_events, 0);
}

#[test]
fn a_group_kill_larger_than_a_request_arrives_whole() {
    let (address, received) = http_server("200 OK", Vec::new());
    let exporter = logs_to(address, "http/protobuf", "10000");
    exporter.event(Event::Incident(incident(1, 1000, 8192)));
    wait_for("events", || exporter.counters().exported_events == 1000);
    let expected: Vec<_> = (1..=1000).map(|pid| ("1".to_owned(), pid)).collect();
    assert_eq!(received.records(), expected);
    assert!(received.requests() > 1);
}

#[test]
fn events_do_not_wait_behind_metrics() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("listen");
    let (address, received) = http_server("200 OK", Vec::new());
    let silent_url = format!("http://{}", silent.local_addr().expect("address"));
    let exporter = exporter(&[
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &silent_url),
        (
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            &format!("http://{address}/v1/logs"),
        ),
    ]);
    exporter.offer(Arc::new(Snapshot {
        time: SystemTime::now(),
        started: SystemTime::now(),
        host: HostReading {
            mem_total_bytes: Some(1),
            ..HostReading::default()
        },
        cgroups: Vec::new(),
        own: SelfReading::default(),
    }));
    let (_connection, _) = silent.accept().expect("the metrics are under way");
    exporter.event(Event::Incident(incident(1, 1, 0)));
    wait_for("the event", || received.requests() == 1);
    assert_eq!(exporter.counters().exported_points, 0);
}

#[test]
fn a_shutdown_flushes_for_a_bounded_time_and_counts_the_rest() {
    let (address, received) = http_server("200 OK", Vec::new());
    let exporter = logs_to(address, "http/protobuf", "10000");
    exporter.event(Event::Incident(incident(1, 2, 0)));
    assert!(exporter.shutdown(Duration::from_secs(5)));
    assert_eq!(received.records().len(), 2);

    let silent = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = silent.local_addr().expect("address");
    let exporter = logs_to(address, "http/protobuf", "60000");
    exporter.event(Event::Incident(incident(1, 2, 0)));
    let begun = Instant::now();
    assert!(!exporter.shutdown(Duration::from_millis(300)));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(exporter.counters().failed_events, 2);
}
