//! What a filter shares among workers and keeps over reloads.
//!
//! Guarantee: a filter that is made anew finds its own again, by its place and its configuration, as long as one of its
//! predecessors lives.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// Whose filter it is, its position there, and its configuration.
type Place<C> = (String, usize, C);

/// All of one kind in this process.
#[derive(Debug)]
pub(crate) struct Lasting<C, T>(Arc<Mutex<HashMap<Place<C>, Weak<T>>>>);

impl<C, T> Clone for Lasting<C, T> {
    fn clone(&self) -> Self {
        Lasting(Arc::clone(&self.0))
    }
}

impl<C, T> Default for Lasting<C, T> {
    fn default() -> Self {
        Lasting(Arc::default())
    }
}

impl<C: Clone + Eq + Hash, T> Lasting<C, T> {
    /// `place` says whose filter it is, and `at` its position there.
    pub(super) fn get(&self, place: &str, at: usize, config: &C, make: impl FnOnce(&C) -> T) -> Arc<T> {
        let mut all = self.0.lock();
        all.retain(|_, known| known.strong_count() > 0);
        let known = all.entry((place.to_owned(), at, config.clone())).or_default();
        known.upgrade().unwrap_or_else(|| {
            let made = Arc::new(make(config));
            *known = Arc::downgrade(&made);
            made
        })
    }
}
