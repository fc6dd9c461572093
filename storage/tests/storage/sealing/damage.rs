//! Damaged parts cost what they held.

use super::*;

#[tokio::test]
async fn damage_of_a_part_costs_what_it_held_and_is_counted() {
    let source = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = Store::open(small_segments(source.path()), clock.clone()).unwrap();
    for n in 1..=4u64 {
        store.append(sent(n, T0 - 3600 * (n as i64 % 2))).await.unwrap();
    }
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    store.close();
    let files = part_files(source.path());
    assert_eq!(files.len(), 18);
    // Whether the hot store is still there must not matter, except for what only it knows.
    for (at, file) in files
        .iter()
        .filter(|f| f.to_str().unwrap().contains("2026111812"))
        .enumerate()
    {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let original = fs::read(file).unwrap();
        type Change = fn(&mut Vec<u8>);
        let changes: [(&str, Change); 3] = [
            ("a flipped bit", |b| {
                let middle = b.len() / 2;
                b[middle] ^= 4;
            }),
            ("a zero tail", |b| {
                let end = b.len() - 7;
                b[end..].fill(0);
            }),
            ("a torn end", |b| b.truncate(b.len() - 9)),
        ];
        let (what, change) = changes[at % 3];
        let mut damaged = original.clone();
        change(&mut damaged);
        fs::write(file, damaged).unwrap();
        fs::remove_file(source.path().join("hot.duckdb")).unwrap();
        let store = Store::open(small_segments(source.path()), clock.clone()).unwrap();
        // First apply what the journal still holds: a row that is no longer sealed would come back from there.
        store.flush_applied().await.unwrap();
        answers(&store).await;
        let (by_hour, by_window) = (values(&store).await, values_by_window(&store).await);
        // Without its samples an hour still has its sums, and vice versa.
        let expected: &[i64] = if name.starts_with("samples") {
            &[2, 8]
        } else {
            &[2, 4, 8, 16]
        };
        if !name.starts_with("names") {
            assert_eq!(by_hour, [2, 4, 8, 16], "{what} in {name}");
            assert_eq!(by_window, expected, "{what} in {name}");
        }
        let stats = store.stats();
        assert_eq!(stats.parts_quarantined, 1, "{what} in {name}: {stats:?}");
        let is_sum = ["rollup", "sums", "totals", "runs"]
            .iter()
            .any(|kind| name.starts_with(kind));
        let is_row_kind = name.ends_with("parquet") && !is_sum;
        let rows = if is_row_kind { 2 } else { 0 };
        assert_eq!(stats.sealed_rows_lost, rows, "{what} in {name}");
        assert!(!file.exists());
        let quarantined = fs::read_dir(source.path().join("quarantine")).unwrap();
        assert!(
            quarantined
                .map(|e| e.unwrap())
                .any(|e| e.file_name().to_str().unwrap().contains(&name))
        );
        store.close();
        fs::write(file, original).unwrap();
    }
}

#[tokio::test]
async fn damage_under_the_running_store_is_noticed_by_the_question_it_hits() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(T0 + 4200);
    let store = Store::open(options(dir.path()), clock).unwrap();
    store.append(sent(1, T0)).await.unwrap();
    store.append(sent(2, T0 - 3600)).await.unwrap();
    store.flush_applied().await.unwrap();
    store.seal().await.unwrap();
    assert_eq!(values(&store).await, [2, 4]);
    let file = part_files(dir.path())
        .into_iter()
        .find(|f| f.to_str().unwrap().contains("samples-2026111812"))
        .unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(values_by_window(&store).await, [4], "a part that is gone");
    assert_eq!(values(&store).await, [2, 4], "the sums of its hour are there");
    assert_eq!(store.stats().sealed_rows_lost, 1);
    assert!(store.stats().hot_available && store.stats().hot_rebuilds == 0);
}
