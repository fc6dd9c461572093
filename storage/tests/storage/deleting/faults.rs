//! Disks that are full or fail, and files that come back or are damaged, while a service is deleted.

use super::*;

/// Removed files come back when the power fails before their folder is synced.
#[tokio::test]
async fn files_that_come_back_after_a_crash_are_removed_again() {
    let filled = World::new(|batch| batch).await;
    filled.store.close();
    let expected = told(&World::new(without).await.store).await;
    // The list as it is while files are being rewritten.
    let interrupted = World::copy_of(filled.dir.path()).await;
    interrupted.disk.lose_power_after(12);
    let failed = delete(&interrupted.store).await.unwrap_err();
    assert!(matches!(failed, DeleteError::Unfinished { .. }), "{failed}");
    interrupted.store.close();
    let list = fs::read(interrupted.dir.path().join("deleted.bin")).unwrap();
    assert!(!list.is_empty());

    let mut world = World::copy_of(filled.dir.path()).await;
    delete(&world.store).await.unwrap();
    world.store.close();
    copy_folder(&filled.dir.path().join("parts"), &world.dir.path().join("parts"));
    fs::write(world.dir.path().join("deleted.bin"), list).unwrap();
    world.reopen();
    until_made_good(&world.store).await;
    assert_eq!(told(&world.store).await, expected);
}

#[tokio::test]
async fn a_disk_without_room_says_so_and_changes_nothing() {
    let world = World::new(|batch| batch).await;
    let before = told(&world.store).await;
    world.disk.set_free(Some(1000));
    let refused = delete(&world.store).await.unwrap_err();
    assert!(
        matches!(&refused, DeleteError::Unavailable { message } if message.contains("free space")),
        "{refused}"
    );
    assert_eq!(told(&world.store).await, before);
    world.disk.set_free(None);
    delete(&world.store).await.unwrap();
    assert_eq!(sum_of(&world.store, GONE).await, 0);
}

/// A failure in the middle is reported as such, and the rest is deleted later.
#[tokio::test]
async fn a_disk_that_fails_in_the_middle_is_told_and_the_rest_goes_later() {
    let world = World::new(|batch| batch).await;
    let expected = told(&World::new(without).await.store).await;
    let bytes = |world: &World| world.store.stats().sealed_bytes;
    let before = bytes(&world);
    world.disk.set_budget(Some(before / 2));
    let failed = delete(&world.store).await.unwrap_err();
    assert!(matches!(failed, DeleteError::Unfinished { .. }), "{failed}");
    assert!(world.store.stats().deletion_files_left > 0);
    assert_eq!(world.store.stats().deletion_failures, 1);
    world.disk.set_budget(None);
    delete(&world.store).await.unwrap();
    assert_eq!(told(&world.store).await, expected);
}

/// A damaged list is reported by `verify`, costs only the deletion, and prevents no start.
#[tokio::test]
async fn a_damaged_list_of_deletions_is_told_and_stops_no_start() {
    let mut world = World::new(|batch| batch).await;
    delete(&world.store).await.unwrap();
    world.store.close();
    let list = world.dir.path().join("deleted.bin");
    let mut bytes = fs::read(&list).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&list, bytes).unwrap();
    let verify = |dir: &Path| inspect::verify(dir, &RealDisk, 64, &mut |_, _, _| {}).unwrap();
    let damage = verify(world.dir.path()).damage;
    assert_eq!(
        damage.iter().map(|one| one.file.as_str()).collect::<Vec<_>>(),
        ["deleted.bin"]
    );
    world.reopen();
    world.store.flush_applied().await.unwrap();
    assert_eq!(world.store.stats().deletions_lost, 1);
    world.store.close();
    assert!(verify(world.dir.path()).damage.is_empty());
}
