//! A progress bar on standard error. Guarantee: nothing is written when standard error is no terminal, and nothing of it
//! is left when the work has ended.

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar; it goes when this is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(length: u64, template: &str) -> Progress {
        // The target draws nothing where nobody looks.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(template).expect("the template is one of ours, below"));
        Progress { bar }
    }

    /// Counts files.
    pub(crate) fn of_files(files: usize) -> Progress {
        Progress::new(files as u64, "{bar:30} {pos}/{len} {msg}")
    }

    /// Counts bytes; how many there are is told on the way.
    pub(crate) fn of_bytes() -> Progress {
        Progress::new(0, "{bar:30} {bytes}/{total_bytes} {eta} {msg}")
    }

    /// What is being worked on, and how much is done.
    pub(crate) fn show(&self, file: &Path, done: u64) {
        self.bar.set_message(file.display().to_string());
        self.bar.set_position(done);
    }

    /// As [`Progress::show`], with how much there is.
    pub(crate) fn show_of(&self, file: &Path, done: u64, all: u64) {
        self.bar.set_length(all);
        self.show(file, done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
