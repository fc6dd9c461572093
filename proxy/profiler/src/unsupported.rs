//! The engine for platforms without a sampler: everything type-checks, nothing samples.

use std::convert::Infallible;
use std::io;

use crate::config::{Config, StartError};
use crate::window::{Stats, Window};
use crate::words::{Registration, WORDS};

/// A running sampler. On this platform none can exist.
#[derive(Debug)]
pub struct Profiler {
    never: Infallible,
}

/// Checks the configuration and refuses: there is no sampler for this platform.
///
/// # Errors
///
/// [`StartError::InvalidConfig`] or [`StartError::Unsupported`].
pub fn start(config: Config) -> Result<Profiler, StartError> {
    config.validate()?;
    Err(StartError::Unsupported)
}

impl Profiler {
    /// See the supported platforms.
    pub fn take_window(&self) -> Window {
        match self.never {}
    }

    /// See the supported platforms.
    pub fn stop(self) {
        match self.never {}
    }

    /// See the supported platforms.
    pub fn set_enabled(&self, _enabled: bool) {
        match self.never {}
    }

    /// See the supported platforms.
    ///
    /// # Errors
    ///
    /// None on this platform.
    pub fn set_rate(&self, _hz: u32) -> Result<(), StartError> {
        match self.never {}
    }

    /// See the supported platforms.
    pub fn stats(&self) -> Stats {
        match self.never {}
    }
}

/// Does nothing on this platform.
pub fn register_thread() {
    WORDS.with(|words| words.registration.set(Registration::Done));
}

/// Requests samples from a thread. On this platform none can exist.
#[derive(Copy, Clone, Debug)]
pub struct SampleProbe {
    never: Infallible,
}

impl SampleProbe {
    /// See the supported platforms.
    ///
    /// # Errors
    ///
    /// None on this platform.
    pub fn request(&self) -> io::Result<()> {
        match self.never {}
    }
}

/// Always `None` on this platform.
#[must_use]
pub fn probe_current_thread() -> Option<SampleProbe> {
    None
}
