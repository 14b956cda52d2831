//! What differs between the signals of OTLP: message types, service, what is counted.
//!
//! Owns nothing else; the client is the same for all. A request of profiles cannot be split between
//! resources, because all of them share its dictionary.

use std::future::Future;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_client::ProfilesServiceClient;
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::ResourceLogs;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use crate::{export::otlp::metrics::point_count, grpc_answer::Repairing};

/// A signal of OTLP.
pub trait Signal {
    type Request: Message + Clone;
    type Response: Message + Default;
    /// The generated gRPC client.
    type Service;

    /// What is in a request, counted as OTLP's partial success counts it.
    fn items(request: &Self::Request) -> u64;

    /// Of a partial success: items refused, and the backend's words.
    fn refused(response: Self::Response) -> (i64, String);

    fn service(channel: Channel, encoding: Option<CompressionEncoding>) -> Self::Service;

    fn call(
        service: &Self::Service,
        request: tonic::Request<Self::Request>,
    ) -> impl Future<Output = Result<tonic::Response<Self::Response>, tonic::Status>> + Send;
}

/// A signal whose resources may go in requests of their own.
pub trait Split: Signal {
    type Resource: Message;

    fn request(resources: Vec<Self::Resource>) -> Self::Request;
}

/// Counted in data points.
#[derive(Debug)]
pub enum Metrics {}

/// Counted in log records.
#[derive(Debug)]
pub enum Logs {}

/// Counted in profiles.
#[derive(Debug)]
pub enum Profiles {}

/// The generated clients are alike, and have no trait in common.
macro_rules! grpc {
    ($client:ident) => {
        fn service(channel: Channel, encoding: Option<CompressionEncoding>) -> Self::Service {
            let service = $client::new(Repairing(channel));
            match encoding {
                Some(encoding) => service
                    .send_compressed(encoding)
                    .accept_compressed(encoding),
                None => service,
            }
        }

        async fn call(
            service: &Self::Service,
            request: tonic::Request<Self::Request>,
        ) -> Result<tonic::Response<Self::Response>, tonic::Status> {
            service.clone().export(request).await
        }
    };
}

impl Split for Metrics {
    type Resource = ResourceMetrics;

    fn request(resource_metrics: Vec<ResourceMetrics>) -> Self::Request {
        ExportMetricsServiceRequest { resource_metrics }
    }
}

impl Signal for Metrics {
    type Request = ExportMetricsServiceRequest;
    type Response = ExportMetricsServiceResponse;
    type Service = MetricsServiceClient<Repairing<Channel>>;

    fn items(request: &Self::Request) -> u64 {
        point_count(&request.resource_metrics)
    }

    fn refused(response: Self::Response) -> (i64, String) {
        let partial = response.partial_success.unwrap_or_default();
        (partial.rejected_data_points, partial.error_message)
    }

    grpc!(MetricsServiceClient);
}

impl Split for Logs {
    type Resource = ResourceLogs;

    fn request(resource_logs: Vec<ResourceLogs>) -> Self::Request {
        ExportLogsServiceRequest { resource_logs }
    }
}

impl Signal for Logs {
    type Request = ExportLogsServiceRequest;
    type Response = ExportLogsServiceResponse;
    type Service = LogsServiceClient<Repairing<Channel>>;

    fn items(request: &Self::Request) -> u64 {
        let scopes = request
            .resource_logs
            .iter()
            .flat_map(|resource| &resource.scope_logs);
        let records: usize = scopes.map(|scope| scope.log_records.len()).sum();
        records as u64
    }

    fn refused(response: Self::Response) -> (i64, String) {
        let partial = response.partial_success.unwrap_or_default();
        (partial.rejected_log_records, partial.error_message)
    }

    grpc!(LogsServiceClient);
}

impl Signal for Profiles {
    type Request = ExportProfilesServiceRequest;
    type Response = ExportProfilesServiceResponse;
    type Service = ProfilesServiceClient<Repairing<Channel>>;

    fn items(request: &Self::Request) -> u64 {
        let scopes = request
            .resource_profiles
            .iter()
            .flat_map(|resource| &resource.scope_profiles);
        let profiles: usize = scopes.map(|scope| scope.profiles.len()).sum();
        profiles as u64
    }

    fn refused(response: Self::Response) -> (i64, String) {
        let partial = response.partial_success.unwrap_or_default();
        (partial.rejected_profiles, partial.error_message)
    }

    grpc!(ProfilesServiceClient);
}
