//! `emberline config show`: what is in force, and where each value came from. What it prints is a configuration again.

use super::{Loaded, SECTIONS, keys::Settings};

/// The configuration as YAML, with the origin of each value behind it.
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

/// The default of a setting, as the file has it.
pub(super) fn default_of(key: &super::Key) -> String {
    key.show(&Settings::default())
}
