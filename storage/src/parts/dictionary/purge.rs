//! A dictionary without a service: nothing in it reveals any more that the service existed, or which routes it had.
//!
//! Guarantees: what other rows mention stays, and every location keeps its index, so that stacks written with the old
//! names fit the new ones. Left on purpose: files, addresses and frames of its code, which other services share and
//! which do not reveal whose they were; compaction and retention remove them.

use std::io::{self, Write};

use super::{Locations, Names, read_names};
use crate::{
    checks::{Checks, Salted},
    framing,
    hot::rows::workload_content,
    ids::IdSet,
    parts::codec::{Record, Records},
};
use emberline_model::id::Content;

/// True when names mention a service.
pub(crate) fn mentions(names: &Names, namespace: &str, service: &str) -> bool {
    let is_it = |series: &super::SeriesName| series.namespace == namespace && series.service == service;
    names.series.iter().any(is_it)
}

/// Writes names without those of a service, and without label sets that are not `used`; returns how many entries were
/// removed. `None` if no series is left: then nothing was written.
pub(crate) fn without(
    bytes: &[u8],
    checks: &Checks,
    (namespace, service): (&str, &str),
    used: &IdSet,
    out: &mut impl Write,
) -> io::Result<Option<u64>> {
    let mut names = read_names(bytes)?;
    let before = names.series.len() + names.label_sets.len();
    let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(&mut names.series)
        .into_iter()
        .partition(|series| series.namespace == namespace && series.service == service);
    if left.is_empty() {
        return Ok(None);
    }
    names.series = left;
    let salted = Salted::new(checks, &names.salted);
    let workload_id = |series: &super::SeriesName| salted.id(&workload_content(&series.workload()));
    let gone: IdSet = gone.iter().map(workload_id).collect();
    names.builds.retain(|build| !gone.contains(&build.workload_id));
    names.spans.retain(|span| !gone.contains(&span.workload_id));
    names
        .label_sets
        .retain(|labels| used.contains(&salted.id(&Content::label_set(&labels.label_set()))));
    let mut records = Records::new(out);
    records.push(&names)?;
    let scan = framing::scan(bytes, 0, 0);
    for frame in scan.frames.iter().filter(|frame| frame.stamp == Locations::STAMP) {
        records.copy(frame.stamp, &bytes[frame.payload.clone()])?;
    }
    Ok(Some((before - names.series.len() - names.label_sets.len()) as u64))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{BuildName, LabelSetName, MappingName, NamesWriter, SeriesName, WorkloadSpan, each_location},
        *,
    };

    fn series(service: &str) -> SeriesName {
        SeriesName {
            namespace: "shop".to_owned(),
            service: service.to_owned(),
            version: "v1".to_owned(),
            instance: "a".to_owned(),
            component: 1,
            profile_type: "cpu".to_owned(),
        }
    }

    #[test]
    fn a_service_goes_and_locations_keep_their_places() {
        let label_set = |route: &str| LabelSetName {
            side: 1,
            route: route.to_owned(),
            peer_namespace: None,
            peer_service: None,
            peer_version: None,
        };
        let checks = Checks::default();
        let workload = |service| workload_content(&series(service).workload()).id();
        let build = |service| BuildName {
            workload_id: workload(service),
            component: 1,
            mapping: 0,
        };
        let span = |service| WorkloadSpan {
            workload_id: workload(service),
            first_s: 1,
            last_s: 2,
        };
        let names = Names {
            series: vec![series("a"), series("b"), series("b")],
            label_sets: vec![label_set("/a"), label_set("/b")],
            mappings: vec![MappingName {
                build_id: "b".to_owned(),
                path: "/p".to_owned(),
            }],
            builds: vec![build("a"), build("b")],
            spans: vec![span("a"), span("b")],
            salted: Vec::new(),
        };
        let mut bytes = Vec::new();
        let mut writer = NamesWriter::new(&mut bytes, &names).unwrap();
        for n in 0..70_000 {
            writer.native(0, n * 3).unwrap();
        }
        writer.named([("f".to_owned(), String::new(), 1)].into_iter()).unwrap();
        writer.finish().unwrap();
        let used: IdSet = [Content::label_set(&label_set("/a").label_set()).id()]
            .into_iter()
            .collect();

        let mut left = Vec::new();
        let gone = without(&bytes, &checks, ("shop", "b"), &used, &mut left).unwrap();
        assert_eq!(gone, Some(3));
        let read = read_names(&left).unwrap();
        assert!(!mentions(&read, "shop", "b") && mentions(&read, "shop", "a"));
        assert_eq!(
            (read.label_sets, read.builds, read.spans),
            (vec![label_set("/a")], vec![build("a")], vec![span("a")])
        );
        let locations = |bytes: &[u8]| {
            let mut ids = Vec::new();
            let none = Salted::new(&checks, &[]);
            each_location(bytes, &read_names(bytes).unwrap(), &none, |entry| ids.push(entry.id)).unwrap();
            ids
        };
        assert_eq!(locations(&left).len(), 70_001);
        assert_eq!(locations(&left), locations(&bytes));

        let mut nothing = Vec::new();
        assert_eq!(
            without(&left, &checks, ("shop", "a"), &used, &mut nothing).unwrap(),
            None
        );
        assert!(nothing.is_empty());
        assert_eq!(
            without(&left, &checks, ("", "a"), &used, &mut nothing).unwrap(),
            Some(0)
        );
    }
}
