//! What receivers are notified of: an alert fires, or it is resolved.

/// An event in an alert's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Firing,
    Resolved,
}

impl Event {
    pub(super) fn name(self) -> &'static str {
        match self {
            Event::Firing => "firing",
            Event::Resolved => "resolved",
        }
    }
}
