//! Certificates and key for https: read once, at the start, and checked.
//!
//! Owns the files and the check that they can be used. Must not connect, nor show a key.
//! Source: OpenTelemetry specification, "OTLP Exporter Configuration" (Certificate File, Client key
//! file, Client certificate file): they are ignored for a connection without TLS.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{ConfigError, Given, OtlpFlags, Signal, Source};
use crate::redact;

/// Largest file that is read; all authorities of a distribution take 250 KiB.
const LARGEST: u64 = 4 << 20;

/// How to talk to a server over TLS. All of it was read and can be used.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM, at least one certificate; `None`: those of the system.
    pub authorities: Option<Vec<u8>>,
    /// What memtrace shows to a server that asks for a certificate.
    pub identity: Option<Identity>,
}

/// A client certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// PEM, the client's own certificate first.
    pub certificates: Vec<u8>,
    /// PEM.
    pub key: Vec<u8>,
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// A file and who named it.
struct File {
    name: String,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// What is given for a signal; `None` for an endpoint without TLS.
pub(super) fn resolve(
    source: &Source<'_>,
    flags: &OtlpFlags,
    signal: &Signal,
    endpoint: &http::Uri,
) -> Result<Option<Tls>, ConfigError> {
    const CLIENT_CERTIFICATE: &str = "--otlp-client-certificate";
    const CLIENT_KEY: &str = "--otlp-client-key";
    let options = [
        ("--otlp-certificate", &flags.certificate, "CERTIFICATE"),
        (
            CLIENT_CERTIFICATE,
            &flags.client_certificate,
            "CLIENT_CERTIFICATE",
        ),
        (CLIENT_KEY, &flags.client_key, "CLIENT_KEY"),
    ];
    if endpoint.scheme_str() != Some("https") {
        // Variables may be meant for other programs too; who writes a flag expects TLS.
        let unused = options.iter().find(|(_, value, _)| value.is_some());
        return match unused {
            Some((flag, _, _)) => Err(ConfigError::PlainText {
                name: (*flag).to_owned(),
                endpoint: redact::url(&endpoint.to_string()),
            }),
            None => Ok(None),
        };
    }
    let [authorities, certificate, key] =
        options.map(|(flag, value, suffix)| source.resolve(flag, value.as_ref(), signal, suffix));
    let authorities = match authorities {
        Some(given) => {
            let file = File::read(given)?;
            file.authorities()?;
            Some(file.bytes)
        }
        None => None,
    };
    let half = |given: Given, flag: &str, suffix: &str| ConfigError::Half {
        name: given.name,
        missing: format!("{flag} or OTEL_EXPORTER_OTLP_{suffix}"),
    };
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(identity(certificate, key)?),
        (Some(given), None) => return Err(half(given, CLIENT_KEY, "CLIENT_KEY")),
        (None, Some(given)) => return Err(half(given, CLIENT_CERTIFICATE, "CLIENT_CERTIFICATE")),
        (None, None) => None,
    };
    Ok(Some(Tls {
        authorities,
        identity,
    }))
}

fn identity(certificate: Given, key: Given) -> Result<Identity, ConfigError> {
    let certificate = File::read(certificate)?;
    let key = File::read(key)?;
    let chain = certificate.certificates()?;
    let parsed = PrivateKeyDer::from_pem_slice(&key.bytes).map_err(|error| {
        key.refuse(match error {
            pem::Error::NoItemsFound => {
                "holds no private key in PEM that is not encrypted".to_owned()
            }
            error => format!("is not PEM: {error}"),
        })
    })?;
    let provider = rustls::crypto::ring::default_provider();
    let signer = provider
        .key_provider
        .load_private_key(parsed)
        .map_err(|error| key.refuse(format!("holds a key that cannot be used: {error}")))?;
    let pair = rustls::sign::CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        // Of a kind of key that does not tell: the server will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(key.refuse(format!(
                "is not the key of the certificate in {}",
                certificate.path.display()
            )));
        }
        Err(error) => return Err(certificate.refuse(format!("cannot be used: {error}"))),
    }
    Ok(Identity {
        certificates: certificate.bytes,
        key: key.bytes,
    })
}

impl File {
    fn read(given: Given) -> Result<Self, ConfigError> {
        let path = PathBuf::from(given.value);
        let bytes = read(&path).map_err(|reason| ConfigError::Pem {
            name: given.name.clone(),
            path: path.clone(),
            reason,
        })?;
        Ok(File {
            name: given.name,
            path,
            bytes,
        })
    }

    fn refuse(&self, reason: String) -> ConfigError {
        ConfigError::Pem {
            name: self.name.clone(),
            path: self.path.clone(),
            reason,
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&self.bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| self.refuse(format!("is not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(self.refuse("holds no certificate in PEM".to_owned()));
        }
        Ok(certificates)
    }

    /// Every certificate must be one, or a typing error would show at the first export only.
    fn authorities(&self) -> Result<(), ConfigError> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| {
                self.refuse(format!("holds a certificate that cannot be used: {error}"))
            })?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    // A FIFO must not hold the start.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| format!("cannot be opened: {error}"))?;
    let metadata = file
        .metadata()
        .map_err(|error| format!("cannot be looked at: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if metadata.len() > LARGEST {
        return Err(format!("has more than {LARGEST} bytes"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    Ok(bytes)
}
