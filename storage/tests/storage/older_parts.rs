//! Parts of requests written by older versions: they lack columns, and still answer.

use std::{fs, path::Path};

use crate::common::*;
use emberline_model::{Component, RequestSeries, Side, WorkloadWindow};
use emberline_storage::{Options, Range, RequestQuery, Step, Store, WorkloadFilter};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

/// Columns that parts of requests had at first.
const ONCE: usize = 19;

/// Removes the newer columns from every part of requests.
fn make_older(dir: &Path) {
    let parts = fs::read_dir(dir.join("parts"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let requests = parts.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("requests-"));
    let mut seen = 0;
    for path in requests.collect::<Vec<_>>() {
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let older: Vec<_> = batches
            .iter()
            .map(|batch| batch.project(&(0..ONCE).collect::<Vec<_>>()).unwrap())
            .collect();
        assert!(batches[0].num_columns() > ONCE);
        let mut writer = ArrowWriter::try_new(Vec::new(), older[0].schema(), None).unwrap();
        older.iter().for_each(|batch| writer.write(batch).unwrap());
        let bytes = writer.into_inner().unwrap();
        // The name ends in the checksum.
        let name = path.file_name().unwrap().to_str().unwrap();
        let stem = &name[..name.rfind('-').unwrap()];
        let renamed = format!("{stem}-{:08x}.parquet", crc32c::crc32c(&bytes));
        fs::remove_file(&path).unwrap();
        fs::write(path.with_file_name(renamed), bytes).unwrap();
        seen += 1;
    }
    assert!(seen > 0, "there is no part of requests");
}

/// Destinations of requests, how long they streamed and what is open survive sealing, a restart and compaction; parts
/// of a version that did not know these are read together with others.
#[tokio::test]
async fn destinations_streams_and_open_connections_are_sealed_and_parts_without_them_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = Store::open(Options::new(dir.path()), clock.clone()).unwrap();
    let series = |destination: &str| RequestSeries {
        destination: destination.into(),
        streaming_s: 2.5,
        open: 3,
        ..requests(Side::Client, "/pay", &[5])
    };
    let sent = |sequence, start, destination: &str| {
        let window = WorkloadWindow {
            has_requests: true,
            requests: vec![series(destination)],
            ..window(&workload("shop", "v1", "a"), Component::Proxy, start)
        };
        batch(sequence, vec![window])
    };
    store.append(sent(1, T0, "payments")).await.unwrap();
    store.append(sent(2, T0 + 10, "")).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    let answers = async |store: &Store| -> Vec<(i64, String, f64, u64)> {
        let query = RequestQuery {
            step: Step::Window,
            ..RequestQuery::new(WorkloadFilter::default(), Range::ALL)
        };
        let rows = store.ask(query).await.unwrap();
        rows.into_iter()
            .map(|row| (row.window_start_s - T0, row.destination, row.streaming_s, row.open))
            .collect()
    };
    let expected = vec![(0, "payments".to_owned(), 2.5, 3), (10, String::new(), 2.5, 3)];
    assert_eq!(answers(&store).await, expected);
    store.close();
    make_older(dir.path());
    let store = Store::open(Options::new(dir.path()), clock.clone()).unwrap();
    store.flush_applied().await.unwrap();
    let old = vec![(0, String::new(), 0.0, 0), (10, String::new(), 0.0, 0)];
    assert_eq!(answers(&store).await, old, "all parts are old");
    store.append(sent(3, T0 + 20, "payments")).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    let mixed = [old, vec![(20, "payments".to_owned(), 2.5, 3)]].concat();
    assert_eq!(answers(&store).await, mixed, "old parts beside new ones");
    clock.set(T0 + 3 * 86_400);
    store.compact().await.unwrap();
    assert_eq!(answers(&store).await, mixed, "compacted together");
    store.close();
}
