//! A progress bar on standard error. Guarantee: nothing is written if standard error is not a terminal, and nothing is
//! left once the work has ended.

use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar; dropping it removes it.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(length: u64, template: &str) -> Progress {
        // The target draws only on a terminal.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template(template).expect("the template is one of ours, below"));
        Progress { bar }
    }

    /// Counts files.
    pub(crate) fn of_files(files: usize) -> Progress {
        Progress::new(files as u64, "{bar:30} {pos}/{len} {msg}")
    }

    /// Counts bytes; their number is given later.
    pub(crate) fn of_bytes() -> Progress {
        Progress::new(0, "{bar:30} {bytes}/{total_bytes} {eta} {msg}")
    }

    /// Shows the current file, and how much is done.
    pub(crate) fn show(&self, file: &Path, done: u64) {
        self.bar.set_message(file.display().to_string());
        self.bar.set_position(done);
    }

    /// Like [`Progress::show`], with the total.
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
