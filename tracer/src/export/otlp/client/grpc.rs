//! OTLP over gRPC. Owns the channel. Must not retry.

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use super::{ClientError, Failure, SendError, printable, retry};
use crate::export::otlp::config::{Compression, OtlpConfig};

pub(super) struct Grpc {
    client: MetricsServiceClient<Channel>,
    metadata: MetadataMap,
}

impl Grpc {
    pub(super) fn new(config: &OtlpConfig) -> Result<Self, ClientError> {
        let channel = Endpoint::from_shared(config.endpoint.to_string())
            .and_then(|endpoint| endpoint.user_agent(super::http::USER_AGENT))
            .map_err(ClientError::Grpc)?
            .connect_timeout(config.timeout)
            .connect_lazy();
        let mut client = MetricsServiceClient::new(channel);
        if config.compression == Compression::Gzip {
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        let metadata = MetadataMap::from_headers(config.headers.clone());
        Ok(Grpc { client, metadata })
    }

    pub(super) async fn send(
        &self,
        request: ExportMetricsServiceRequest,
    ) -> Result<ExportMetricsServiceResponse, Failure> {
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = self.metadata.clone();
        match self.client.clone().export(request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(failure(&status)),
        }
    }
}

fn failure(status: &tonic::Status) -> Failure {
    let retry_after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    Failure {
        error: SendError::Refused {
            status: format!("{:?}", status.code()),
            message: printable(status.message()),
        },
        verdict: retry::grpc(status.code(), retry_after),
    }
}
