//! Answers of gRPC servers, made such that the library can take them apart.
//!
//! tonic 0.14 panics where `grpc-status-details-bin` is no base64. Owns that such details are left out, as if
//! the server had sent none. Must not judge an answer.

use std::task::{Context, Poll};

use futures_util::{TryFutureExt as _, future::MapOk};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use tonic::{body::Body, metadata::MetadataMap};
use tower::Service;

const DETAILS: &str = "grpc-status-details-bin";

/// A channel whose answers may be anything.
#[derive(Debug, Clone)]
pub struct Repairing<S>(pub S);

impl<S> Service<Request<Body>> for Repairing<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(repaired)
    }
}

fn repaired(mut response: Response<Body>) -> Response<Body> {
    repair(response.headers_mut());
    response.map(|body| {
        Body::new(body.map_frame(|frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                repair(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(data) => data,
        }))
    })
}

/// Takes details that are no base64 out of headers or trailers.
pub fn repair(headers: &mut HeaderMap) {
    // By the decoder that the library has.
    let metadata = MetadataMap::from_headers(std::mem::take(headers));
    let mut details = metadata.get_all_bin(DETAILS).iter();
    let all_sound = details.all(|details| details.to_bytes().is_ok());
    *headers = metadata.into_headers();
    if !all_sound {
        headers.remove(DETAILS);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{Full, combinators::WithTrailers};
    use tonic::Status;

    use super::*;

    fn refusal(details: &'static [u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", http::HeaderValue::from_static("8"));
        let value = http::HeaderValue::from_bytes(details).unwrap();
        headers.insert(DETAILS, value);
        headers
    }

    #[test]
    fn details_that_are_no_base64_are_left_out_and_others_stay() {
        for broken in [&b"!"[..], b"CAgSB\x91", b"A"] {
            let mut headers = refusal(broken);
            repair(&mut headers);
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            assert!(status.details().is_empty());
        }
        for (sound, details) in [(&b"CAg="[..], &b"\x08\x08"[..]), (b"CAg", b"\x08\x08")] {
            let mut headers = refusal(sound);
            repair(&mut headers);
            assert_eq!(
                Status::from_header_map(&headers).unwrap().details(),
                details
            );
        }
    }

    #[tokio::test]
    async fn trailers_are_repaired_as_headers_are() {
        let trailers = async { Some(Ok::<_, Infallible>(refusal(b"!"))) };
        let body: WithTrailers<Full<Bytes>, _> =
            Full::new(Bytes::from("x")).with_trailers(Box::pin(trailers));
        let mut response = Response::new(Body::new(body));
        *response.headers_mut() = refusal(b"?");
        let response = repaired(response);
        assert!(!response.headers().contains_key(DETAILS));
        let body = response.into_body().collect().await.unwrap();
        let trailers = body.trailers().unwrap();
        assert!(trailers.contains_key("grpc-status") && !trailers.contains_key(DETAILS));
        assert_eq!(body.to_bytes(), "x");
    }
}
