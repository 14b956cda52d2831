//! An OTLP backend that takes profiles, over gRPC and HTTP on one port, and keeps them for a test.
//!
//! Decodes by the types generated from OTLP's own definitions.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_server::{
    ProfilesService, ProfilesServiceServer,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesPartialSuccess, ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::{Profile, ProfilesDictionary, Sample};
use prost::Message;
use tokio::sync::oneshot;

/// What the specification of OTLP calls the method and the path.
const METHOD: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
const PATH: &str = "/v1development/profiles";
/// A header that a request must have.
pub const TENANT: (&str, &str) = ("x-tenant", "a");

/// A backend, stopped when dropped. It refuses the last profile of each request.
#[derive(Debug)]
pub struct ProfilesBackend {
    address: SocketAddr,
    taken: Taken,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Default)]
struct Taken(Arc<Mutex<Vec<ExportProfilesServiceRequest>>>);

impl ProfilesBackend {
    /// Starts it on a free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let taken = Taken::default();
        let router = Router::new()
            .route_service(METHOD, ProfilesServiceServer::new(taken.clone()))
            .route(PATH, post(over_http))
            .layer(DefaultBodyLimit::disable())
            .with_state(taken.clone());
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let thread = std::thread::spawn(move || {
            runtime
                .block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    tokio::select! {
                        done = axum::serve(listener, router).into_future() => done,
                        _ = stopped => Ok(()),
                    }
                })
                .unwrap_or_else(|error: io::Error| eprintln!("test backend: {error}"));
        });
        Ok(Self {
            address,
            taken,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far, in order.
    pub fn requests(&self) -> Vec<ExportProfilesServiceRequest> {
        let taken = self.taken.0.lock();
        taken.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ProfilesBackend {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Taken {
    fn take(&self, request: ExportProfilesServiceRequest) -> ExportProfilesServiceResponse {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push(request);
        ExportProfilesServiceResponse {
            partial_success: Some(ExportProfilesPartialSuccess {
                rejected_profiles: 1,
                error_message: "one too many".to_owned(),
            }),
        }
    }
}

#[tonic::async_trait]
impl ProfilesService for Taken {
    async fn export(
        &self,
        request: tonic::Request<ExportProfilesServiceRequest>,
    ) -> Result<tonic::Response<ExportProfilesServiceResponse>, tonic::Status> {
        let tenant = request.metadata().get(TENANT.0);
        if tenant.is_none_or(|tenant| tenant.as_bytes() != TENANT.1.as_bytes()) {
            return Err(tonic::Status::unauthenticated("whose?"));
        }
        Ok(tonic::Response::new(self.take(request.into_inner())))
    }
}

async fn over_http(State(taken): State<Taken>, headers: HeaderMap, body: Bytes) -> Response {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|given| *given == *value);
    if !is(TENANT.0, TENANT.1) || !is(CONTENT_TYPE.as_str(), "application/x-protobuf") {
        return StatusCode::FORBIDDEN.into_response();
    }
    match ExportProfilesServiceRequest::decode(body) {
        Ok(request) => {
            let kind = [(CONTENT_TYPE, "application/x-protobuf")];
            (kind, taken.take(request).encode_to_vec()).into_response()
        }
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// A string attribute of the resource of a request.
pub fn resource_text(request: &ExportProfilesServiceRequest, key: &str) -> Option<String> {
    let mut resources = request.resource_profiles.iter();
    let attributes = &resources.next()?.resource.as_ref()?.attributes;
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// The value of this name and its unit, by the dictionary.
pub fn profile<'a>(
    request: &'a ExportProfilesServiceRequest,
    name: &str,
    unit: &str,
) -> Option<&'a Profile> {
    let dictionary = request.dictionary.as_ref()?;
    let resources = request.resource_profiles.iter();
    let mut profiles = resources
        .flat_map(|resource| &resource.scope_profiles)
        .flat_map(|scope| &scope.profiles);
    profiles.find(|profile| {
        let Some(kind) = &profile.sample_type else {
            return false;
        };
        text(dictionary, kind.type_strindex) == Some(name)
            && text(dictionary, kind.unit_strindex) == Some(unit)
    })
}

/// The functions of a sample, the innermost first, by the dictionary.
pub fn functions<'a>(dictionary: &'a ProfilesDictionary, sample: &Sample) -> Vec<&'a str> {
    let at = |index: i32| usize::try_from(index).unwrap_or(usize::MAX);
    let stack = dictionary.stack_table.get(at(sample.stack_index));
    let places = stack.into_iter().flat_map(|stack| &stack.location_indices);
    let locations = places.filter_map(|index| dictionary.location_table.get(at(*index)));
    let lines = locations.flat_map(|location| &location.lines);
    let functions = lines.filter_map(|line| dictionary.function_table.get(at(line.function_index)));
    let names = functions.filter_map(|function| text(dictionary, function.name_strindex));
    names.collect()
}

fn text(dictionary: &ProfilesDictionary, index: i32) -> Option<&str> {
    let index = usize::try_from(index).ok()?;
    dictionary.string_table.get(index).map(String::as_str)
}
