//! An exporter that outlives its library: what panics there fails one export.
//!
//! tonic 0.14 panics where an answer's `grpc-status-details-bin` is no base64, and the SDK takes no
//! channel that repairs it (`grpc_answer`): its thread would end, and with it the telemetry.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;

pub struct Enduring<E>(pub E);

impl<E: PushMetricExporter> PushMetricExporter for Enduring<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        // Each call makes its own request: nothing half done is used again.
        let export = AssertUnwindSafe(self.0.export(metrics)).catch_unwind();
        export.await.unwrap_or_else(|_| {
            let reason = "the backend's answer cannot be taken apart";
            Err(OTelSdkError::InternalFailure(reason.to_owned()))
        })
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.0.temporality()
    }
}
