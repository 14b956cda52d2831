//! The agent about itself, through the OpenTelemetry SDK.
//!
//! Owns the instruments and the cell they read. The SDK fits here: one resource, few series.
//! Connections, TLS and all, are those of `client`. Must not measure: the main loop sets the reading. Its `memtrace.*` names are memtrace's own,
//! as no convention covers an agent or a BPF program.

mod enduring;
mod http;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{MetricExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use tonic::metadata::MetadataMap;

use super::client::{self, ClientError};
use super::config::{Compression, Protocol, Target};
use super::metrics::agent::{CAUSE, CGROUPS, CPU, LOSSES, PROBE, PROBE_RUNS, PROBE_TIME, RSS};
use super::resource::{ResourceContext, SCHEMA_URL, SCOPE};
use crate::model::snapshot::SelfReading;
use enduring::Enduring;
use http::OnRuntime;

/// The agent's telemetry cannot start or stop.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error("cannot make the exporter of memtrace's own telemetry: {0}")]
    Build(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("memtrace's own telemetry was not flushed: {0}")]
    Shutdown(#[from] opentelemetry_sdk::error::OTelSdkError),
}

/// The latest reading, shared between the main loop and the SDK's reader thread.
#[derive(Clone, Default)]
pub struct OwnReading(Arc<Mutex<Arc<SelfReading>>>);

impl OwnReading {
    /// Replaces the reading. Never waits for an export.
    pub fn set(&self, reading: SelfReading) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(reading);
    }

    fn get(&self) -> Arc<SelfReading> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Running telemetry about the agent.
pub struct OwnTelemetry {
    provider: SdkMeterProvider,
}

impl OwnTelemetry {
    /// Starts exporting `reading` to `target` every `interval`, on a thread of the SDK.
    /// `runtime` must be driven by another thread (`Exporter::runtime`): I/O runs there.
    ///
    /// # Errors
    /// The SDK or the transport refuses the configuration.
    pub fn start(
        target: &Target,
        interval: Duration,
        context: &ResourceContext,
        reading: OwnReading,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, OwnError> {
        let reader = PeriodicReader::builder(Enduring(exporter(target, runtime)?))
            .with_interval(interval)
            .build();
        // A cgroup's path starts with "/", so no resource of a cgroup has this instance.
        let attributes = context.string_attributes("agent");
        let attributes = attributes
            .into_iter()
            .map(|(key, value)| KeyValue::new(key, value))
            .chain([KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))]);
        let resource = Resource::builder_empty()
            .with_schema_url(attributes, SCHEMA_URL)
            .build();
        let provider = SdkMeterProvider::builder()
            .with_reader(reader)
            .with_resource(resource)
            .build();
        let scope = InstrumentationScope::builder(SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA_URL)
            .build();
        let meter = provider.meter_with_scope(scope);
        agent_instruments(&meter, &reading);
        probe_instruments(&meter, &reading);
        Ok(OwnTelemetry { provider })
    }

    /// Sends the last reading and stops. Call before `Exporter::shutdown`, not on its thread.
    ///
    /// # Errors
    /// The last export failed or took longer than `deadline`.
    pub fn shutdown(&self, deadline: Duration) -> Result<(), OwnError> {
        Ok(self.provider.shutdown_with_timeout(deadline)?)
    }
}

fn exporter(target: &Target, runtime: &tokio::runtime::Handle) -> Result<MetricExporter, OwnError> {
    let compression = match target.compression {
        Compression::None => None,
        Compression::Gzip => Some(opentelemetry_otlp::Compression::Gzip),
        Compression::Zstd => Some(opentelemetry_otlp::Compression::Zstd),
    };
    let endpoint = target.endpoint.to_string();
    let exporter = match target.protocol {
        Protocol::Grpc => {
            let _entered = runtime.enter();
            let builder = MetricExporter::builder()
                .with_tonic()
                .with_channel(client::channel(target)?)
                .with_endpoint(endpoint)
                .with_timeout(target.timeout)
                .with_metadata(MetadataMap::from_headers(target.headers.clone()));
            match compression {
                Some(compression) => builder.with_compression(compression).build()?,
                None => builder.build()?,
            }
        }
        Protocol::HttpProtobuf => {
            let headers = target.headers.iter().filter_map(|(key, value)| {
                Some((key.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            });
            let builder = MetricExporter::builder()
                .with_http()
                .with_http_client(OnRuntime::new(target, runtime)?)
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(endpoint)
                .with_timeout(target.timeout)
                .with_headers(headers.collect());
            match compression {
                Some(compression) => builder.with_compression(compression).build()?,
                None => builder.build()?,
            }
        }
    };
    Ok(exporter)
}

fn agent_instruments(meter: &Meter, reading: &OwnReading) {
    let cell = reading.clone();
    meter
        .i64_observable_up_down_counter(RSS.name)
        .with_unit(RSS.unit)
        .with_description(RSS.description)
        .with_callback(move |observer| {
            if let Some(bytes) = cell.get().rss_bytes {
                observer.observe(signed(bytes), &[]);
            }
        })
        .build();
    let cell = reading.clone();
    meter
        .i64_observable_up_down_counter(CGROUPS.name)
        .with_unit(CGROUPS.unit)
        .with_description(CGROUPS.description)
        .with_callback(move |observer| observer.observe(signed(cell.get().cgroups_tracked), &[]))
        .build();
    let cell = reading.clone();
    meter
        .f64_observable_counter(CPU.name)
        .with_unit(CPU.unit)
        .with_description(CPU.description)
        .with_callback(move |observer| {
            if let Some(ns) = cell.get().cpu_ns {
                observer.observe(ns as f64 / 1e9, &[]);
            }
        })
        .build();
    let cell = reading.clone();
    meter
        .u64_observable_counter(LOSSES.name)
        .with_unit(LOSSES.unit)
        .with_description(LOSSES.description)
        .with_callback(move |observer| {
            for loss in &cell.get().losses {
                observer.observe(loss.count, &[KeyValue::new(CAUSE, loss.cause)]);
            }
        })
        .build();
}

fn probe_instruments(meter: &Meter, reading: &OwnReading) {
    let cell = reading.clone();
    meter
        .f64_observable_counter(PROBE_TIME.name)
        .with_unit(PROBE_TIME.unit)
        .with_description(PROBE_TIME.description)
        .with_callback(move |observer| {
            for probe in &cell.get().probes {
                if let Some(ns) = probe.run_time_ns {
                    let name = KeyValue::new(PROBE, probe.probe.clone());
                    observer.observe(ns as f64 / 1e9, &[name]);
                }
            }
        })
        .build();
    let cell = reading.clone();
    meter
        .u64_observable_counter(PROBE_RUNS.name)
        .with_unit(PROBE_RUNS.unit)
        .with_description(PROBE_RUNS.description)
        .with_callback(move |observer| {
            for probe in &cell.get().probes {
                if let Some(count) = probe.run_count {
                    observer.observe(count, &[KeyValue::new(PROBE, probe.probe.clone())]);
                }
            }
        })
        .build();
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
