//! What receivers are told of an alert: that it fires, and that it is over.

/// What is told of an alert.
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
