//! Whose report counts where an application and a proxy report the same requests.

use std::collections::{HashMap, HashSet};

use emberline_model::{
    Component, Side,
    coverage::{Stretch, Times},
};

use crate::{
    hot::{Span, rows::SERIES_REQUESTS},
    ids::IdSet,
    questions::{coverage::counted_by_application, marks::Marks, selection::WorkloadFilter, sql::Sql},
    readers::{Failure, Reader},
};

/// True when applications and proxies of the same release both count requests.
pub(super) fn both_count(reader: &Reader<'_>, who: &WorkloadFilter) -> Result<bool, Failure> {
    let mut sql = Sql::new("SELECT 1::UBIGINT FROM series d WHERE d.profile_type = ");
    sql.bind(SERIES_REQUESTS.to_owned());
    who.push(&mut sql);
    sql.push(" GROUP BY d.namespace, d.service, d.version HAVING count(DISTINCT d.component) > 1 LIMIT 1");
    sql.finds_any(reader)
}

/// Which applications proxies belong to, and when those counted requests themselves.
pub(super) struct Once {
    pub(super) marks: Marks,
    by_application: HashMap<(Beside, Side), Times>,
    /// Releases without any instance that has both an application and a proxy that count.
    whole: HashSet<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Beside {
    Instance(u64),
    Release(usize),
}

impl Once {
    pub(super) fn read(reader: &Reader<'_>, span: &Span, who: &WorkloadFilter) -> Result<Once, Failure> {
        let marks = Marks::read(reader, span, who, "")?;
        let counted = counted_by_application(reader, span, who, &marks)?;
        let of_proxies = marks
            .requests
            .iter()
            .filter(|mark| mark.component == Component::Proxy.code());
        let proxies: IdSet = of_proxies.map(|mark| mark.run.first.instance).collect();
        let mut whole: HashSet<usize> = HashSet::new();
        let mut beside: HashSet<usize> = HashSet::new();
        for (_, window) in &counted {
            if let Some(release) = marks.release_of(window.instance) {
                let of = if proxies.contains(&window.instance) {
                    &mut beside
                } else {
                    &mut whole
                };
                of.insert(release);
            }
        }
        whole.retain(|release| !beside.contains(release));
        let mut once = Once {
            marks,
            by_application: HashMap::new(),
            whole,
        };
        let mut windows: HashMap<(Beside, Side), Vec<Stretch>> = HashMap::new();
        for (side, window) in counted {
            windows
                .entry((once.beside(window.instance), side))
                .or_default()
                .push(window);
        }
        once.by_application = windows
            .into_iter()
            .map(|(of, windows)| (of, Times::of(&windows)))
            .collect();
        Ok(once)
    }

    fn beside(&self, workload: u64) -> Beside {
        match self.marks.release_of(workload) {
            Some(release) if self.whole.contains(&release) => Beside::Release(release),
            _ => Beside::Instance(workload),
        }
    }

    pub(super) fn is_counted_by_application(&self, window: &Stretch, reporter: u8, side: Side) -> bool {
        let times = || self.by_application.get(&(self.beside(window.instance), side));
        reporter == Component::Proxy.code() && times().is_some_and(|times| times.has(window.middle_s()))
    }
}
