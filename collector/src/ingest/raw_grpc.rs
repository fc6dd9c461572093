//! Unary gRPC methods that take their message as bytes: for requests whose layout is found out from the bytes, and for
//! those that come over other protocols as well.
//!
//! Guarantees: what is decompressed stays below `max_request_bytes`; what the transport refuses is said in the words of
//! [`super::refused`], by the guard that all gRPC services share.

use std::{future::Future, marker::PhantomData, pin::Pin, sync::Arc};

use axum::{body::Body, http::Request, http::Response};
use bytes::{Buf, BufMut, Bytes};
use tonic::{
    Status,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    server::{Grpc, UnaryService},
};

use super::{Ingest, sender::SenderKey};

/// Messages as they are.
#[derive(Debug, Default)]
pub(super) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

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

/// What a call may answer: a message, or one with metadata.
pub(super) trait Answer {
    fn into_response(self) -> tonic::Response<Vec<u8>>;
}

impl Answer for Vec<u8> {
    fn into_response(self) -> tonic::Response<Vec<u8>> {
        tonic::Response::new(self)
    }
}

impl Answer for tonic::Response<Vec<u8>> {
    fn into_response(self) -> tonic::Response<Vec<u8>> {
        self
    }
}

impl<C, F, A> UnaryService<Bytes> for Method<C, F>
where
    C: Fn(Arc<Ingest>, Call, Bytes) -> F,
    F: Future<Output = Result<A, Status>> + Send + 'static,
    A: Answer,
{
    type Response = Vec<u8>;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Vec<u8>>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (metadata, extensions, message) = request.into_parts();
        let sender = SenderKey::of(&extensions);
        let answer = (self.call)(Arc::clone(&self.ingest), Call { sender, metadata }, message);
        Box::pin(async move { answer.await.map(Answer::into_response) })
    }
}
