//! Unary gRPC methods that receive their message as bytes: for requests whose layout is detected from the bytes, and
//! for those that also arrive over other protocols.
//!
//! Guarantees: the decompressed size stays below `max_request_mb`; the transport's refusals are reported as in
//! [`super::rejection`], by the guard that all gRPC services share.

use std::{future::Future, marker::PhantomData, pin::Pin, sync::Arc};

use axum::{body::Body, http::Request, http::Response};
use bytes::Bytes;
use emberline_model::RawCodec;
use tonic::{
    Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    server::{Grpc, UnaryService},
};

use super::{Ingest, sender::SenderKey};

/// What comes with a message.
pub(super) struct Call {
    pub(super) sender: SenderKey,
    pub(super) metadata: MetadataMap,
}

/// Serves one call.
pub(super) async fn unary<C, F, A>(ingest: Arc<Ingest>, call: C, request: Request<Body>) -> Response<Body>
where
    C: Fn(Arc<Ingest>, Call, Bytes) -> F + Send + Sync + 'static,
    F: Future<Output = Result<A, Status>> + Send + 'static,
    A: Answer,
{
    let mut grpc = Grpc::new(RawCodec)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(ingest.config.max_request_bytes);
    let service = Method {
        ingest,
        call,
        answer: PhantomData,
    };
    grpc.unary(service, request).await.map(Body::new)
}

struct Method<C, F> {
    ingest: Arc<Ingest>,
    call: C,
    answer: PhantomData<fn() -> F>,
}

/// What a call may return: a message, or one with metadata.
pub(super) trait Answer {
    fn into_response(self) -> tonic::Response<Bytes>;
}

impl Answer for Vec<u8> {
    fn into_response(self) -> tonic::Response<Bytes> {
        tonic::Response::new(self.into())
    }
}

impl Answer for tonic::Response<Vec<u8>> {
    fn into_response(self) -> tonic::Response<Bytes> {
        self.map(Bytes::from)
    }
}

impl<C, F, A> UnaryService<Bytes> for Method<C, F>
where
    C: Fn(Arc<Ingest>, Call, Bytes) -> F,
    F: Future<Output = Result<A, Status>> + Send + 'static,
    A: Answer,
{
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (metadata, extensions, message) = request.into_parts();
        let sender = SenderKey::of(&extensions);
        let answer = (self.call)(Arc::clone(&self.ingest), Call { sender, metadata }, message);
        Box::pin(async move { answer.await.map(Answer::into_response) })
    }
}
