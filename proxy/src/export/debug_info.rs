//! Offers the debug information of sampled builds to the collector and sends it if it is wanted.
//!
//! Guarantees: a build is asked about once, and again only after the collector came back and
//! [`ExportOptions::ask_again_after`] passed; a file is sent only if it still is that build; sending is paced, one file
//! at a time, and errors are retried with growing waits, a few times.
//!
//! Wrong on purpose: a shared library that was replaced on disk since it was loaded cannot be sent; its addresses stay
//! without names. The executable itself can, because the kernel keeps it open for us.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt, sync::Arc, time::Duration};

use emberline_model::{
    BatchId, Mapping,
    proto::v1::{
        ShouldUploadRequest, UploadHeader, UploadRequest, debug_info_client::DebugInfoClient, upload_request::Part,
    },
};
use futures_util::stream::{self, Stream};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{
    ExportOptions,
    answer::{GuardedChannel, MAX_ANSWER_BYTES},
    backoff::Backoff,
    client::{Failure, judge},
    elf,
    stats::Shared,
};

/// Messages to this task.
#[derive(Debug)]
pub(super) enum BuildNews {
    /// Builds that samples mention for the first time.
    Seen(Vec<Mapping>),
    /// A profiles batch was acknowledged: the collector knows the builds named before.
    ProfilesAcked,
    /// The collector was away and may have forgotten.
    Reconnected,
}

/// Size of one chunk, limited by the protocol with the collector.
const CHUNK_BYTES: usize = 256 << 10;
/// Builds tracked for one process; only code that generates libraries has more.
const MOST_BUILDS: usize = 1000;
/// Failures after which a build is left alone until the collector comes back.
const MOST_FAILURES: u32 = 8;
/// An upload slower than this is aborted, in bytes per second.
const SLOWEST_UPLOAD: u64 = 256 << 10;

/// Starts the task on the current runtime. It ends when no sender of news is left.
pub(super) fn spawn(
    channel: GuardedChannel,
    options: &ExportOptions,
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<BuildNews>,
) {
    let task = DebugInfo {
        client: DebugInfoClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES),
        options: options.clone(),
        shared,
        builds: HashMap::new(),
        acked: false,
        reconnects: 0,
    };
    tokio::spawn(task.run(inbox));
}

struct DebugInfo {
    client: DebugInfoClient<GuardedChannel>,
    options: ExportOptions,
    shared: Arc<Shared>,
    builds: HashMap<String, Build>,
    /// A profiles batch was acknowledged.
    acked: bool,
    reconnects: u64,
}

struct Build {
    path: String,
    backoff: Backoff,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// To be asked about at this time.
    Due(Instant),
    /// Nothing more to do unless the collector reconnects.
    Done { at: Instant, reconnects: u64 },
}

/// Result of an offer.
#[derive(Debug)]
enum Offer {
    /// Sent completely.
    Sent,
    /// The collector does not want it.
    NotWanted,
    /// The file is gone or is another build now.
    WrongFile,
}

/// Why an offer failed.
#[derive(Debug, thiserror::Error)]
enum OfferError {
    #[error("{0}")]
    Call(#[from] Status),
    #[error("cannot read the file: {0}")]
    File(#[from] io::Error),
    #[error("the collector received only {received} of {size} bytes")]
    Incomplete { received: u64, size: u64 },
}

impl DebugInfo {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<BuildNews>) {
        loop {
            // Pending messages come first: a reconnect may change what is due.
            while let Ok(news) = inbox.try_recv() {
                self.hear(news);
            }
            let (next, at) = match self.next_due() {
                Some((build_id, at)) => (Some(build_id), at),
                None => (None, Instant::now() + Duration::from_secs(3600)),
            };
            if let Some(build_id) = next.filter(|_| at <= Instant::now()) {
                self.offer(&build_id).await;
                continue;
            }
            tokio::select! {
                news = inbox.recv() => match news {
                    Some(news) => self.hear(news),
                    None => return,
                },
                () = tokio::time::sleep_until(at) => {}
            }
        }
    }

    fn hear(&mut self, news: BuildNews) {
        match news {
            BuildNews::ProfilesAcked => self.acked = true,
            BuildNews::Reconnected => self.reconnects += 1,
            BuildNews::Seen(mappings) => {
                for mapping in mappings {
                    if self.builds.len() >= MOST_BUILDS {
                        return;
                    }
                    let name = BatchId::sender_of(&self.options.workload, self.options.component);
                    let first = self.options.initial_backoff.saturating_mul(4);
                    self.builds.entry(mapping.build_id).or_insert_with(|| Build {
                        path: mapping.path,
                        backoff: Backoff::new(first, self.options.ask_again_after, &name),
                        state: State::Due(Instant::now()),
                    });
                }
            }
        }
    }

    /// The build to offer next, and when; `None` when there is none.
    fn next_due(&self) -> Option<(String, Instant)> {
        if !self.acked {
            return None;
        }
        let due = |build: &Build| match build.state {
            State::Due(at) => Some(at),
            State::Done { at, reconnects } => (reconnects < self.reconnects).then(|| at + self.options.ask_again_after),
        };
        let (build_id, at) = self
            .builds
            .iter()
            .filter_map(|(id, build)| Some((id, due(build)?)))
            .min_by_key(|d| d.1)?;
        Some((build_id.clone(), at))
    }

    /// Offers one build and records the result.
    async fn offer(&mut self, build_id: &str) {
        let Some(path) = self.builds.get(build_id).map(|build| build.path.clone()) else {
            return;
        };
        let outcome = self.ask_and_send(build_id, &path).await;
        let done = State::Done {
            at: Instant::now(),
            reconnects: self.reconnects,
        };
        // Present: it was looked up above, and builds are never removed.
        let Some(build) = self.builds.get_mut(build_id) else {
            return;
        };
        match outcome {
            Ok(offer) => {
                tracing::debug!(build_id, path, ?offer, "offered debug information");
                build.backoff.succeeded();
                build.state = done;
                self.shared.count(|stats| match offer {
                    Offer::Sent => stats.builds_uploaded += 1,
                    Offer::WrongFile => stats.upload_wrong_file += 1,
                    Offer::NotWanted => {}
                });
            }
            Err(error) => {
                tracing::debug!(build_id, path, %error, "cannot send debug information");
                self.shared.count(|stats| stats.upload_errors += 1);
                let (hopeless, after) = match &error {
                    OfferError::Call(status) => match judge(status) {
                        Failure::Drop(_) => (true, None),
                        Failure::Retry { after } => (false, after),
                        Failure::RetryFewTimes => (false, None),
                    },
                    OfferError::File(_) | OfferError::Incomplete { .. } => (false, None),
                };
                let wait = build.backoff.failed(after);
                build.state = State::Due(Instant::now() + wait);
                if hopeless || build.backoff.failures() >= MOST_FAILURES {
                    build.backoff.succeeded();
                    build.state = done;
                }
            }
        }
    }

    async fn ask_and_send(&mut self, build_id: &str, path: &str) -> Result<Offer, OfferError> {
        let Some((file, size)) = open_build(build_id, path)? else {
            return Ok(Offer::WrongFile);
        };
        self.shared.count(|stats| stats.builds_asked += 1);
        let question = ShouldUploadRequest {
            build_id: build_id.to_owned(),
            path: path.to_owned(),
            size,
        };
        let answer = within(self.options.call_timeout, self.client.should_upload(question))
            .await?
            .into_inner();
        if !answer.upload {
            return Ok(Offer::NotWanted);
        }
        let header = UploadHeader {
            build_id: build_id.to_owned(),
            path: path.to_owned(),
            size,
            sender: BatchId::sender_of(&self.options.workload, self.options.component),
        };
        let parts = parts(header, file, size, self.options.upload_pause);
        let most = self.options.call_timeout + Duration::from_secs(60 + size / SLOWEST_UPLOAD);
        let received = within(most, self.client.upload(parts))
            .await?
            .into_inner()
            .received_bytes;
        if received != size {
            return Err(OfferError::Incomplete { received, size });
        }
        self.shared.count(|stats| stats.upload_bytes += size);
        Ok(Offer::Sent)
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the collector did not respond in time")))
}

/// The file of a build with its size; `None` when it is gone or is another build by now.
fn open_build(build_id: &str, path: &str) -> io::Result<Option<(File, u64)>> {
    // The link to our own executable works even if the file was replaced or deleted since the start.
    for candidate in ["/proc/self/exe", path] {
        let file = match File::open(candidate) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => continue,
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if metadata.is_file() && elf::build_id(&file)?.as_deref() == Some(build_id) {
            return Ok(Some((file, metadata.len())));
        }
    }
    Ok(None)
}

/// The messages of an upload. If the file ends early or fails, so does the stream, and the collector knows from the
/// size in the header that bytes are missing.
fn parts(header: UploadHeader, file: File, size: u64, pause: Duration) -> impl Stream<Item = UploadRequest> {
    let begin = UploadRequest {
        part: Some(Part::Header(header)),
    };
    stream::unfold((Some(begin), file, 0u64), move |(begin, file, offset)| async move {
        if let Some(begin) = begin {
            return Some((begin, (None, file, offset)));
        }
        if offset >= size {
            return None;
        }
        if offset > 0 {
            tokio::time::sleep(pause).await;
        }
        // Never more than the header says, in case the file has grown.
        let length = usize::try_from(size - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let mut chunk = vec![0; length];
        file.read_exact_at(&mut chunk, offset).ok()?;
        let next = offset + length as u64;
        Some((
            UploadRequest {
                part: Some(Part::Chunk(chunk)),
            },
            (None, file, next),
        ))
    })
}

#[cfg(test)]
#[path = "debug_info_tests.rs"]
mod tests;
