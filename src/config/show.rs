//! `emberline config show`: the values in effect, and where each came from. The output is itself a valid configuration.

use super::{Loaded, SECTIONS, keys::Settings};

/// The configuration as YAML, with the origin of each value in a comment.
pub(crate) fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        text.push_str(&format!("{}:\n", section.name));
        for key in section.keys {
            let value = format!("  {}: {}", key.name, key.show(&loaded.settings));
            text.push_str(&format!("{value:<50} # {}\n", loaded.origin(key.name)));
        }
    }
    match &loaded.scrape {
        Some(scrape) => {
            let jobs = scrape.jobs().join(", ");
            text.push_str(&format!("# scrape: jobs {jobs}, as in the file\n"));
        }
        None => text.push_str("# scrape: not configured\n"),
    }
    text
}

/// The default of a setting, as in the file.
pub(super) fn default_of(key: &super::Key) -> String {
    key.show(&Settings::default())
}
