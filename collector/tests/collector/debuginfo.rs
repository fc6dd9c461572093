//! Debug information: which files are taken, and that addresses get names from them.

use std::{fs::File, io::Read};

use crate::support::{Server, T0, eventually, native_window, window};
use emberline_model::{
    LabelSet, Location, Mapping, Profile, Sample, id,
    proto::v1::{
        ShouldUploadRequest, UploadHeader, UploadRequest, debug_info_client::DebugInfoClient, upload_request::Part,
    },
};
use tonic::{Code, Status, transport::Channel};

pub(crate) type Client = DebugInfoClient<Channel>;

/// This test's own program and its build id, as `readelf` would print it: found here by its note's bytes, not by the
/// code under test.
pub(crate) fn own_program() -> (Vec<u8>, String) {
    let mut bytes = Vec::new();
    File::open("/proc/self/exe").unwrap().read_to_end(&mut bytes).unwrap();
    let head = [4u8, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0];
    let at = bytes
        .windows(16)
        .position(|w| w == head)
        .expect("the linker wrote a build id of 20 bytes");
    let id = bytes[at + 16..at + 36].iter().map(|b| format!("{b:02x}")).collect();
    (bytes, id)
}

pub(crate) async fn should(client: &mut Client, build_id: &str, size: u64) -> (bool, String) {
    let request = ShouldUploadRequest {
        build_id: build_id.into(),
        path: "/bin/x".into(),
        size,
    };
    let answer = client.should_upload(request).await.unwrap().into_inner();
    (answer.upload, answer.reason)
}

pub(crate) fn parts(build_id: &str, size: u64, bytes: &[u8]) -> Vec<UploadRequest> {
    let header = UploadHeader {
        build_id: build_id.into(),
        path: "/bin/x".into(),
        size,
        sender: "demo/shop/1/shop-1-0/application".into(),
    };
    let chunks = bytes.chunks(256 * 1024).map(|chunk| Part::Chunk(chunk.to_vec()));
    [Part::Header(header)]
        .into_iter()
        .chain(chunks)
        .map(|part| UploadRequest { part: Some(part) })
        .collect()
}

pub(crate) async fn upload(client: &mut Client, build_id: &str, size: u64, bytes: &[u8]) -> Result<u64, Status> {
    let stream = tokio_stream::iter(parts(build_id, size, bytes));
    client
        .upload(stream)
        .await
        .map(|answer| answer.into_inner().received_bytes)
}

/// The files in the folder, without what is said of them.
fn files(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(server.dir.join("debuginfo")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".claim"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_build_is_taken_once() {
    let server = Server::start(|_| {}).await;
    let mut client = DebugInfoClient::new(server.channel().await);
    let (bytes, build) = own_program();
    let size = bytes.len() as u64;
    assert_eq!(should(&mut client, &build, size).await, (true, "unknown build".into()));
    assert_eq!(upload(&mut client, &build, size, &bytes).await.unwrap(), size);
    assert_eq!(files(&server), [format!("{build}.debug")]);
    assert_eq!(
        should(&mut client, &build, size).await,
        (false, "already stored".into())
    );
    assert_eq!(
        upload(&mut client, &build, size, &bytes).await.unwrap_err().code(),
        Code::AlreadyExists
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_something_else_are_refused_by_what_they_are() {
    let server = Server::start(|config| config.debuginfo_max_bytes = 1 << 30).await;
    let mut client = DebugInfoClient::new(server.channel().await);
    let (bytes, build) = own_program();
    let size = bytes.len() as u64;

    let script = b"#!/bin/sh\necho hello\n";
    let refused = upload(&mut client, "aa11", script.len() as u64, script)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused
            .message()
            .contains("it is not an ELF file of build aa11: it is not an ELF file"),
        "{refused}"
    );
    let (wanted, reason) = should(&mut client, "aa11", 5).await;
    assert!(!wanted && reason.starts_with("refused earlier"), "{reason}");

    let refused = upload(&mut client, "bb22", size, &bytes).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let text = format!("it is not an ELF file of build bb22: it belongs to build {build}");
    assert!(refused.message().contains(&text), "{refused}");

    // Debug information without the code it is about.
    let mut codeless = bytes.clone();
    let table = u64::from_le_bytes(codeless[32..40].try_into().unwrap()) as usize;
    let count = u16::from_le_bytes(codeless[56..58].try_into().unwrap()) as usize;
    for header in (0..count).map(|n| table + n * 56).filter(|&at| bytes[at] == 1) {
        codeless[header + 4] &= !1;
    }
    let other = Server::start(|_| {}).await;
    let mut elsewhere = DebugInfoClient::new(other.channel().await);
    let refused = upload(&mut elsewhere, &build, size, &codeless).await.unwrap_err();
    assert!(refused.message().contains("it contains no code"), "{refused}");
    other.stop().await;

    for (declared, sent) in [(size, &bytes[..1000]), (1000, &bytes[..])] {
        let refused = upload(&mut client, &build, declared, sent).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused
                .message()
                .contains(&format!("the header declared {declared} bytes")),
            "{refused}"
        );
    }
    for bad in ["", "../../../etc/passwd", "AA11", "aa1", "zz11"] {
        let refused = upload(&mut client, bad, 5, b"12345").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
        let request = ShouldUploadRequest {
            build_id: bad.into(),
            ..ShouldUploadRequest::default()
        };
        assert_eq!(
            client.should_upload(request).await.unwrap_err().code(),
            Code::InvalidArgument,
            "{bad}"
        );
    }
    let stream = tokio_stream::iter(parts(&build, size, &bytes).into_iter().skip(1));
    assert_eq!(client.upload(stream).await.unwrap_err().code(), Code::InvalidArgument);
    // Nothing is left behind, and the right file is still welcome.
    assert_eq!(files(&server), Vec::<String>::new());
    assert_eq!(upload(&mut client, &build, size, &bytes).await.unwrap(), size);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_files_are_refused_before_and_while_they_are_sent() {
    let server = Server::start(|config| config.debuginfo_max_bytes = 1000).await;
    let mut client = DebugInfoClient::new(server.channel().await);
    let (wanted, reason) = should(&mut client, "aa11", 1001).await;
    assert!(
        !wanted && reason.contains("too large: 1001 bytes, and `max_debug_file_mb` allows 1000"),
        "{reason}"
    );
    let refused = upload(&mut client, "aa11", 1001, &[0; 1001]).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_files_make_room() {
    let (bytes, build) = own_program();
    let size = bytes.len() as u64;
    let server = Server::start(|config| config.debuginfo_total_bytes = size + 100).await;
    let old = server.dir.join("debuginfo/cafe.debug");
    std::fs::write(&old, vec![0; 500]).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    File::open(&old).unwrap().set_modified(long_ago).unwrap();
    let mut client = DebugInfoClient::new(server.channel().await);
    upload(&mut client, &build, size, &bytes).await.unwrap();
    assert_eq!(files(&server), [format!("{build}.debug")]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_process_sends_a_build_at_a_time() {
    let server = Server::start(|_| {}).await;
    let mut first = DebugInfoClient::new(server.channel().await);
    let mut second = DebugInfoClient::new(server.channel().await);
    let (bytes, build) = own_program();
    let size = bytes.len() as u64;
    let (send, receive) = tokio::sync::mpsc::channel(100_000);
    let mut all = parts(&build, size, &bytes).into_iter();
    send.send(all.next().unwrap()).await.unwrap();
    let sending = tokio::spawn(async move { first.upload(tokio_stream::wrappers::ReceiverStream::new(receive)).await });
    eventually("the first upload has begun", || async {
        (!files(&server).is_empty()).then_some(())
    })
    .await;
    assert_eq!(
        should(&mut second, &build, size).await,
        (false, "being sent by another process".into())
    );
    let refused = upload(&mut second, &build, size, &bytes).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    for part in all {
        send.send(part).await.unwrap();
    }
    drop(send);
    assert_eq!(sending.await.unwrap().unwrap().into_inner().received_bytes, size);
    server.stop().await;
}

#[inline(always)]
fn inlined_into_the_probe(values: &[u64]) -> u64 {
    values.iter().fold(17, |sum, value| {
        std::hint::black_box(sum.rotate_left(7) ^ value).wrapping_mul(0x9e37_79b9)
    })
}

#[inline(never)]
fn probe_of_the_symbol_worker(values: &[u64]) -> u64 {
    std::hint::black_box(inlined_into_the_probe(std::hint::black_box(values)))
}

/// File offset of an address of this process, from its own map of memory.
fn file_offset(address: u64) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).unwrap();
    maps.lines()
        .find_map(|line| {
            let mut fields = line.split_whitespace();
            let (from, to) = fields.next()?.split_once('-')?;
            let offset = fields.nth(1)?;
            let (from, to) = (hexadecimal(from), hexadecimal(to));
            (from..to)
                .contains(&address)
                .then(|| address - from + hexadecimal(offset))
        })
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_get_the_names_of_inlined_functions_too() {
    let (bytes, build) = own_program();
    assert_ne!(probe_of_the_symbol_worker(&[1, 2, 3]), 0);
    let start = file_offset(probe_of_the_symbol_worker as *const () as usize as u64);
    let mut server = Server::start(|_| {}).await;

    // A profile with one stack per byte of the function, and one address outside all code.
    let mut profile = Profile::empty_cpu(T0 * 1_000_000_000, 10_000_000_000);
    profile.mappings = vec![
        Mapping {
            build_id: build.clone(),
            path: "/srv/probe".into(),
        },
        Mapping {
            build_id: "dead0000".into(),
            path: "/lib/unknown.so".into(),
        },
    ];
    profile.label_sets = vec![LabelSet::none()];
    let outside = 8;
    let offsets: Vec<u64> = (start..start + 60).chain([outside]).collect();
    profile.locations = offsets
        .iter()
        .map(|&offset| Location::Native { mapping: 0, offset })
        .collect();
    profile.locations.push(Location::Native {
        mapping: 1,
        offset: 0x1234,
    });
    profile.stacks = (0..profile.locations.len() as u32).map(|l| vec![l]).collect();
    profile.samples = (0..profile.stacks.len() as u32)
        .map(|stack| Sample {
            stack,
            label_set: 0,
            value: 1,
            count: 1,
        })
        .collect();
    let mut shop = window("shop", "1", T0);
    shop.profiles = vec![profile];
    server.append(vec![shop]).await;
    server.store.flush_applied().await.unwrap();

    let stack_of = |build: &str, offset: u64| id::stack_id(&[id::native_location_id(build, offset)]);
    let stacks: Vec<u64> = offsets.iter().map(|&offset| stack_of(&build, offset)).collect();
    let before = server.store.resolve(&stacks).await.unwrap();
    assert!(
        before.functions.iter().all(|f| f.unresolved),
        "addresses until names are known"
    );
    assert!(before.functions.iter().any(|f| f.name == format!("{start:#x}")));

    server.spawn_tasks();
    let mut client = DebugInfoClient::new(server.channel().await);
    upload(&mut client, &build, bytes.len() as u64, &bytes).await.unwrap();
    eventually("all locations of the build are looked up", || async {
        let builds = server.store.builds();
        builds
            .iter()
            .any(|b| b.build_id == build && b.resolved == b.locations)
            .then_some(())
    })
    .await;

    let after = server.store.resolve(&stacks).await.unwrap();
    let names = |offset: u64| -> Vec<&str> {
        after
            .frames(stack_of(&build, offset))
            .map(|f| after.functions[f as usize].name.as_str())
            .collect()
    };
    let probe = "collector::debuginfo::probe_of_the_symbol_worker";
    assert_eq!(*names(start).last().unwrap(), probe, "{:?}", names(start));
    let inlined = (start..start + 60)
        .map(names)
        .find(|names| names.contains(&"collector::debuginfo::inlined_into_the_probe"));
    let inlined = inlined.expect("an inlined frame");
    assert_eq!(
        *inlined.last().unwrap(),
        probe,
        "the function that holds the code comes last: {inlined:?}"
    );
    let function = after.functions.iter().find(|f| f.name == probe).unwrap();
    assert!(
        function.file.ends_with("tests/collector/debuginfo.rs"),
        "{}",
        function.file
    );
    // Nothing is known of it, and it is not asked for again.
    assert!(
        names(outside).iter().all(|name| name.starts_with('[')),
        "{:?}",
        names(outside)
    );
    let unresolved = server.store.unresolved(1_000);
    assert_eq!(unresolved.len(), 1, "a build without a file waits");
    assert_eq!(unresolved[0].0.build_id, "dead0000");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_costs_only_its_own_names() {
    let (mut bytes, build) = own_program();
    let at = bytes.len() / 2;
    // Everything behind the code is gone: symbol tables and debug information are garbage, the note is intact.
    bytes[at..].fill(0xa5);
    let mut server = Server::start(|_| {}).await;
    let shop = native_window("shop", &build, 0x2000);
    server.append(vec![shop]).await;
    server.store.flush_applied().await.unwrap();
    server.spawn_tasks();
    let mut client = DebugInfoClient::new(server.channel().await);
    if upload(&mut client, &build, bytes.len() as u64, &bytes).await.is_ok() {
        eventually("the file is given up or yields nothing", || async {
            let resolved = server
                .store
                .builds()
                .iter()
                .any(|b| b.build_id == build && b.resolved == b.locations);
            (resolved || files(&server).is_empty()).then_some(())
        })
        .await;
    }
    // The server goes on.
    assert!(should(&mut client, "abcd", 5).await.0);
    server.stop().await;
}
