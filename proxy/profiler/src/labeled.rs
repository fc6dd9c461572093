//! Futures that carry a label: it is the thread's current label while they are polled.
//!
//! Guarantee: when a poll returns or panics, the thread has the label it had before. Wrong on purpose: the CPU time of
//! dropping a future, and of the runtime between polls, is attributed to the enclosing section.

use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::label::{Label, PollSection};
use crate::words::WORDS;

pin_project! {
    /// A future whose polls are attributed to one label.
    #[derive(Clone, Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Labeled<F> {
        label: Label,
        #[pin]
        future: F,
    }
}

impl<F> Labeled<F> {
    /// Wraps `future` so that its polls are attributed to `label`.
    pub fn new(label: Label, future: F) -> Self {
        Self { label, future }
    }
}

impl<F: Future> Future for Labeled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _section = PollSection::enter(this.label.get(), ptr::null());
        this.future.poll(context)
    }
}

/// A label that a task changes along with its work, such as the HTTP/1 connection task, whose label is that of its
/// current request until the next request head. Clones share the label.
#[derive(Clone, Debug, Default)]
pub struct TaskLabel {
    cell: Arc<AtomicU32>,
}

impl TaskLabel {
    /// A task label that starts as `label`.
    #[must_use]
    pub fn new(label: Label) -> Self {
        Self {
            cell: Arc::new(AtomicU32::new(label.get())),
        }
    }

    /// Sets the label from now until the next call. Inside a poll of the [`LabeledBy`] of this task label the thread's
    /// current label changes at once; inside a [`Labeled`] or [`scope`](crate::scope) within that poll it changes when
    /// the inner section ends; elsewhere at the next poll.
    pub fn set(&self, label: Label) {
        self.cell.store(label.get(), Ordering::Relaxed);
        WORDS.with(|words| words.follow(Arc::as_ptr(&self.cell), label.get()));
    }

    /// The label last set, on any thread.
    #[must_use]
    pub fn get(&self) -> Label {
        Label::new(self.cell.load(Ordering::Relaxed))
    }
}

pin_project! {
    /// A future whose polls are attributed to the current label of its [`TaskLabel`].
    #[derive(Clone, Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct LabeledBy<F> {
        task_label: TaskLabel,
        #[pin]
        future: F,
    }
}

impl<F> LabeledBy<F> {
    /// Wraps `future` so that its polls are attributed to the current label of `task_label`.
    pub fn new(task_label: TaskLabel, future: F) -> Self {
        Self { task_label, future }
    }
}

impl<F: Future> Future for LabeledBy<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // The cell lives as long as `self`, which outlives this call and therefore the section.
        let cell = Arc::as_ptr(&this.task_label.cell);
        let _section = PollSection::enter(this.task_label.get().get(), cell);
        this.future.poll(context)
    }
}
