//! The streamed answer: its pieces as server-sent events.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use futures::stream;
use serde::Serialize;
use tokio::time::{Instant, Sleep};

use crate::shape::{Answer, Envelope, Piece, Shape};

const DONE: &[u8] = b"data: [DONE]\n\n";
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Writes pieces as they come; a comment after each `keep_alive` of silence; an error as the last event, without the
/// mark of a good end.
pub(crate) fn respond<S: Shape>(answer: Answer<S>, include_usage: bool, keep_alive: Duration) -> Response {
    let silence = Box::pin(tokio::time::sleep(keep_alive));
    let writer = Writer { answer, include_usage, keep_alive, silence, ended: false };
    let mut response = Response::new(Body::from_stream(stream::unfold(writer, Writer::advance)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

struct Writer<S: Shape> {
    answer: Answer<S>,
    include_usage: bool,
    keep_alive: Duration,
    /// Until the next comment; kept, as a timer of its own for each piece would cost more than the piece.
    silence: Pin<Box<Sleep>>,
    ended: bool,
}

impl<S: Shape> Writer<S> {
    async fn advance(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        while !self.ended {
            self.silence.as_mut().reset(Instant::now() + self.keep_alive);
            let next = tokio::select! {
                biased;
                next = self.answer.next() => next,
                () = self.silence.as_mut() => return Some((Ok(Bytes::from_static(KEEP_ALIVE)), self)),
            };
            let bytes = match next {
                Some(Ok(piece)) if piece.usage.is_some() && !self.include_usage => continue,
                Some(Ok(piece)) => event(&self.envelope(&piece)),
                Some(Err(error)) => {
                    self.ended = true;
                    event(&error.body())
                }
                None => {
                    self.ended = true;
                    Bytes::from_static(DONE)
                }
            };
            return Some((Ok(bytes), self));
        }
        None
    }

    fn envelope<'a>(&'a self, piece: &'a Piece<S::Delta>) -> Envelope<'a, S::Delta> {
        let head = &self.answer.head;
        Envelope {
            id: &head.id,
            object: S::PIECE_OBJECT,
            created: head.created,
            model: &head.model,
            choices: piece.choice.as_slice(),
            usage: self.include_usage.then_some(piece.usage.as_ref()),
            system_fingerprint: &head.fingerprint,
            service_tier: S::SERVICE_TIER,
            extras: &piece.extras,
        }
    }
}

fn event(value: &impl Serialize) -> Bytes {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, value).expect("answers have string keys and finite numbers");
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}
