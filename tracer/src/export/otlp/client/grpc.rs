//! OTLP over gRPC. Owns the channel. Must not retry.

use std::error::Error;

use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

use super::signal::Signal;
use super::{Censor, ClientError, Failure, SendError, Verdict, retry, tls};
use crate::export::otlp::config::{Compression, Target};

pub(super) struct Grpc<S: Signal> {
    service: S::Service,
    metadata: MetadataMap,
    /// TLS without a certificate of our own.
    anonymous: bool,
}

impl<S: Signal> Grpc<S> {
    pub(super) fn new(target: &Target) -> Result<Self, ClientError> {
        let encoding = match target.compression {
            Compression::None => None,
            Compression::Gzip => Some(CompressionEncoding::Gzip),
            Compression::Zstd => Some(CompressionEncoding::Zstd),
        };
        Ok(Grpc {
            service: S::service(channel(target)?, encoding),
            metadata: MetadataMap::from_headers(target.headers.clone()),
            anonymous: matches!(&target.tls, Some(tls) if tls.identity.is_none()),
        })
    }

    pub(super) async fn send(
        &self,
        request: S::Request,
        censor: &Censor,
    ) -> Result<S::Response, Failure> {
        let mut request = tonic::Request::new(request);
        *request.metadata_mut() = self.metadata.clone();
        match S::call(&self.service, request).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(failure(&status, self.anonymous, censor)),
        }
    }
}

/// Connects at the first call, and again after a connection broke. Call within a tokio runtime.
///
/// # Errors
/// Unusable certificates, or none of an authority.
pub(in crate::export::otlp) fn channel(target: &Target) -> Result<Channel, ClientError> {
    let mut endpoint = Endpoint::from_shared(target.endpoint.to_string())
        .and_then(|endpoint| endpoint.user_agent(super::http::USER_AGENT))
        .map_err(ClientError::Grpc)?
        .connect_timeout(target.timeout);
    if let Some(settings) = &target.tls {
        endpoint = endpoint
            .tls_config(tls::tonic(settings)?)
            .map_err(ClientError::Grpc)?;
    }
    Ok(endpoint.connect_lazy())
}

pub(super) fn failure(status: &tonic::Status, anonymous: bool, censor: &Censor) -> Failure {
    let retry_after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    let message = censor.printable(status.message());
    let name = format!("{:?}", status.code());
    let error = match (status.code(), innermost(status, censor)) {
        (Code::Unimplemented, _) => SendError::NotServed {
            status: name,
            message,
        },
        // A status that came over the wire has no source.
        (_, Some(mut cause)) => {
            // TLS 1.3 lets a client in before the server refuses it, and hyper loses the reason.
            if anonymous
                && ["closed", "broken pipe", "reset"]
                    .iter()
                    .any(|end| cause.contains(end))
            {
                cause.push_str(" (does it want a client certificate?)");
            }
            SendError::Unreachable(cause)
        }
        _ => SendError::Refused {
            status: name,
            message,
        },
    };
    // With a source the status was made here: the connection broke, or what came is no HTTP/2.
    let verdict = if status.source().is_some() {
        Verdict::Retry
    } else {
        retry::grpc(status.code(), retry_after)
    };
    Failure { error, verdict }
}

/// The cause that an operator can act on: "connection refused", an unknown issuer.
fn innermost(status: &tonic::Status, censor: &Censor) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Some(censor.printable(&cause.to_string()))
}
