//! What rustls and tonic are told about certificates. One crypto provider: ring.
//!
//! Must not read files but the system's authorities.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::ClientError;
use crate::export::otlp::config::Tls;

/// For HTTP. The protocol within is left to the caller.
pub(super) fn rustls(tls: &Tls) -> Result<ClientConfig, ClientError> {
    let unusable = |error: String| ClientError::Tls(error);
    let roots = match &tls.authorities {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| unusable(error.to_string()))?;
            }
            roots
        }
        None => system_roots()?,
    };
    let builder = trusting(roots)?;
    let Some(identity) = &tls.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(&identity.certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key)
        .map_err(|error| unusable(error.to_string()))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable(error.to_string()))
}

/// For HTTP in plain text: trusts no server.
pub(super) fn nobody() -> Result<ClientConfig, ClientError> {
    trusting(RootCertStore::empty()).map(|builder| builder.with_no_client_auth())
}

fn trusting(
    roots: RootCertStore,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(roots))
}

/// For gRPC.
pub(super) fn tonic(tls: &Tls) -> Result<ClientTlsConfig, ClientError> {
    let mut config = ClientTlsConfig::new();
    config = match &tls.authorities {
        Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        None => {
            // For the same words as over HTTP where there are none.
            system_roots()?;
            config.with_native_roots()
        }
    };
    if let Some(identity) = &tls.identity {
        config = config.identity(Identity::from_pem(&identity.certificates, &identity.key));
    }
    Ok(config)
}

fn system_roots() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(roots);
    }
    let cause = found.errors.first().map(ToString::to_string);
    Err(ClientError::NoAuthorities(
        cause.map_or_else(String::new, |cause| format!(" ({cause})")),
    ))
}
