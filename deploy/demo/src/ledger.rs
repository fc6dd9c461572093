//! What the load generator did, by its own count: the truth that the topology is checked against.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Counts of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCounts {
    /// Requests begun.
    pub sent: u64,
    /// Requests answered, by status.
    pub answered: BTreeMap<u16, u64>,
    /// Requests without a complete response.
    pub failed: u64,
}

/// Counts of a whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// By route template.
    pub routes: BTreeMap<String, RouteCounts>,
    /// True once nothing is in flight and nothing more will be sent.
    pub complete: bool,
}

impl Ledger {
    /// Writes the ledger atomically: a reader sees the old one or the new one.
    pub fn write(&self, path: &Path) -> Result<()> {
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&beside, path))
            .with_context(|| format!("cannot write the ledger {}", path.display()))
    }

    /// Reads a ledger.
    pub fn read(path: &Path) -> Result<Ledger> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read the ledger {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Requests without a complete response, or with a status of 500 and above.
    pub fn errors(&self) -> u64 {
        let of = |c: &RouteCounts| c.failed + c.answered.range(500..).map(|a| a.1).sum::<u64>();
        self.routes.values().map(of).sum()
    }
}
