//! HTTP for the SDK: its reader thread has no runtime, so requests run on the exporter's.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;

use crate::export::otlp::client::{self, ClientError};
use crate::export::otlp::config::Target;

#[derive(Debug)]
pub(super) struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
    timeout: Duration,
}

impl OnRuntime {
    pub(super) fn new(target: &Target, runtime: &Handle) -> Result<Self, ClientError> {
        Ok(OnRuntime {
            client: client::http_client(target)?,
            runtime: runtime.clone(),
            timeout: target.timeout,
        })
    }
}

#[tonic::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let request = request.try_into()?;
        // The timer belongs to the runtime too.
        let task = self
            .runtime
            .spawn(async move { tokio::time::timeout(timeout, exchange(&client, request)).await });
        Ok(task.await???)
    }
}

async fn exchange(
    client: &reqwest::Client,
    request: reqwest::Request,
) -> Result<Response<Bytes>, reqwest::Error> {
    // The SDK tells errors, and the URL may have a token.
    let sent = client.execute(request).await;
    let mut answer = sent.map_err(reqwest::Error::without_url)?;
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    let body = client::read_answer(&mut answer).await;
    *response.body_mut() = Bytes::from(body.map_err(reqwest::Error::without_url)?);
    Ok(response)
}
