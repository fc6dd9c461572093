//! Files of debug information that are made to do harm: to memory, to time, to the names of others, to the turns of others.

use std::{
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use emberline_collector::{CollectorConfig, SymbolClaim, forget_symbol_file, symbol_claims};
use emberline_model::{otlp::encode_profiles, proto::v1::debug_info_client::DebugInfoClient};
use opentelemetry_proto::tonic::collector::profiles::v1development::profiles_service_client::ProfilesServiceClient;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::{
    debuginfo::{Client, own_program, parts, should, upload},
    support::{ManualClock, Server, T0, eventually, native_window},
};

const BUILD: &str = "00112233445566778899aabbccddeeff00112233";

/// A program of a build without anything in it, and a debug section that takes so many bytes when it is unpacked.
fn packed(build: &str, unpacked: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for at in (0..unpacked).step_by(zeros.len()) {
        encoder.write_all(&zeros[..zeros.len().min(unpacked - at)]).unwrap();
    }
    let mut section = [1u32.to_le_bytes(), [0; 4]].concat();
    section.extend((unpacked as u64).to_le_bytes());
    section.extend(1u64.to_le_bytes());
    section.extend(encoder.finish().unwrap());

    let id: Vec<u8> = (0..build.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&build[at..at + 2], 16).unwrap())
        .collect();
    let mut note = [
        4u32.to_le_bytes(),
        (id.len() as u32).to_le_bytes(),
        3u32.to_le_bytes(),
        *b"GNU\0",
    ]
    .concat();
    note.extend(&id);
    let names = b"\0.debug_info\0.debug_abbrev\0.shstrtab\0";

    // Header, two segments, then the contents, then the sections.
    let mut bytes = vec![0u8; 64 + 2 * 56];
    let put = |bytes: &mut Vec<u8>, content: &[u8]| {
        let at = bytes.len() as u64;
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        (at, content.len() as u64)
    };
    let note = put(&mut bytes, &note);
    let debug_info = put(&mut bytes, &section);
    let abbreviations = put(&mut bytes, &[0]);
    let strings = put(&mut bytes, names);
    let table = bytes.len() as u64;
    let section = |name: u32, kind: u32, flags: u64, (at, size): (u64, u64)| {
        let mut header = [0u8; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&flags.to_le_bytes());
        header[24..32].copy_from_slice(&at.to_le_bytes());
        header[32..40].copy_from_slice(&size.to_le_bytes());
        header[48..56].copy_from_slice(&1u64.to_le_bytes());
        header
    };
    bytes.extend([0; 64]);
    bytes.extend(section(1, 1, 0x800, debug_info));
    bytes.extend(section(13, 1, 0, abbreviations));
    bytes.extend(section(27, 3, 0, strings));

    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[20..24].copy_from_slice(&1u32.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[40..48].copy_from_slice(&table.to_le_bytes());
    for (at, number) in [(52, 64u16), (54, 56), (56, 2), (58, 64), (60, 4), (62, 3)] {
        bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    }
    let whole = (0, table);
    for (at, kind, flags, (offset, size)) in [(64, 4u32, 4u32, note), (120, 1, 5, whole)] {
        bytes[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&flags.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 16..at + 24].copy_from_slice(&offset.to_le_bytes());
        bytes[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        bytes[at + 40..at + 48].copy_from_slice(&size.to_le_bytes());
    }
    bytes
}

/// A connection from another address of this machine.
async fn channel_from(server: &Server, address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.grpc))
        .unwrap()
        .local_address(Some(address.parse::<IpAddr>().unwrap()))
        .connect()
        .await
        .unwrap()
}

async fn client_from(server: &Server, address: &str) -> Client {
    DebugInfoClient::new(channel_from(server, address).await)
}

fn claim(dir: &Path, build: &str) -> Option<SymbolClaim> {
    symbol_claims(dir)
        .unwrap()
        .into_iter()
        .find(|claim| claim.build_id == build)
}

/// Waits until the file of a build is refused, and answers why.
async fn refusal(server: &Server, build: &str) -> String {
    eventually("the file is refused", || async { claim(&server.dir, build)?.refused }).await
}

fn shell(script: &str) -> impl FnOnce(&mut CollectorConfig) {
    let program = ["/bin/sh", "-c", script].map(Into::into).to_vec();
    move |config| config.symbol_reader = Some(program)
}

/// A store that outlives its servers.
fn kept() -> (tempfile::TempDir, PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().to_owned();
    (keep, dir)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sections_say_they_unpack_to_is_refused_before_it_is_unpacked_also_after_a_restart() {
    let (_keep, dir) = kept();
    let bytes = packed(BUILD, 200 << 20);
    let size = bytes.len() as u64;
    assert!(size < 1 << 20, "a small file: {size} bytes");
    let start = async || Server::start_in(dir.clone(), ManualClock::at(T0 + 60), |_| {}).await;
    let server = start().await;
    let mut client = DebugInfoClient::new(server.channel().await);
    let refused = upload(&mut client, BUILD, size, &bytes).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    for word in ["209715200 bytes", "`max_unpacked_debug_mb` allows 100663296"] {
        assert!(refused.message().contains(word), "{}", refused.message());
    }
    server.stop().await;
    for _ in 0..3 {
        let mut server = start().await;
        server.spawn_tasks();
        let mut client = DebugInfoClient::new(server.channel().await);
        let (wanted, reason) = should(&mut client, BUILD, size).await;
        assert!(!wanted && reason.contains("209715200 bytes"), "{reason}");
        server.stop().await;
    }
    assert!(forget_symbol_file(&dir, BUILD).unwrap());
    let server = start().await;
    let mut client = DebugInfoClient::new(server.channel().await);
    assert!(
        should(&mut client, BUILD, size).await.0,
        "forgotten, it may be sent again"
    );
    server.stop().await;
}

/// A file of less than a megabyte ended the server, and again at each start.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_needs_more_memory_than_allowed_is_refused_and_the_server_lives() {
    let bytes = packed(BUILD, 400 << 20);
    let mut server = Server::start(|config| {
        config.debuginfo_unpacked_max_bytes = 1 << 30;
        config.symbol_memory_bytes = 64 << 20;
    })
    .await;
    server.append(vec![native_window("shop", BUILD, 0x40)]).await;
    server.store.flush_applied().await.unwrap();
    let mut client = DebugInfoClient::new(server.channel().await);
    upload(&mut client, BUILD, bytes.len() as u64, &bytes).await.unwrap();
    server.spawn_tasks();
    let why = refusal(&server, BUILD).await;
    assert!(
        why.contains("more than 67108864 bytes of memory (`symbol_memory_mb`"),
        "{why}"
    );
    server.append(vec![native_window("shop", "abcd", 0x40)]).await;
    server.store.flush_applied().await.unwrap();
    server.stop().await;
}

/// Of all processes: the one that reads symbols for this test's store, by the file that it has mapped.
fn reader_of(server: &Server) -> Option<PathBuf> {
    let mapped = server.dir.join("debuginfo").to_string_lossy().into_owned();
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()));
    processes
        .filter(|process| {
            std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("emberline-read"))
        })
        .find(|process| std::fs::read_to_string(process.join("maps")).is_ok_and(|maps| maps.contains(&mapped)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_reads_is_bounded_and_ends_with_the_server() {
    let mut server = Server::start(|_| {}).await;
    let (bytes, build) = own_program();
    server.append(vec![native_window("shop", &build, 0x40)]).await;
    server.store.flush_applied().await.unwrap();
    let mut client = DebugInfoClient::new(server.channel().await);
    upload(&mut client, &build, bytes.len() as u64, &bytes).await.unwrap();
    server.spawn_tasks();
    let process = eventually("a process reads", || async { reader_of(&server) }).await;
    eventually("the address was looked up", || async {
        server
            .store
            .builds()
            .iter()
            .all(|build| build.resolved == build.locations)
            .then_some(())
    })
    .await;
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    for bound in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(bound), "{bound}: {status}");
    }
    let limits = std::fs::read_to_string(process.join("limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(
        ["Max core file size", "Max file size", "Max open files"].map(limit),
        ["0", "0", "32"]
    );
    assert_ne!(limit("Max address space"), "unlimited");
    assert_ne!(limit("Max cpu time"), "unlimited");
    assert_eq!(
        std::fs::read_to_string(process.join("oom_score_adj")).unwrap().trim(),
        "1000"
    );
    server.stop().await;
    eventually("it is gone", || async {
        (!process.join("maps").exists()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_takes_too_long_is_refused_by_the_setting() {
    let mut server = Server::start(|config| {
        shell("printf EMBSYMR1; while :; do :; done")(config);
        config.symbol_seconds = 1;
    })
    .await;
    std::fs::write(server.dir.join(format!("debuginfo/{BUILD}.debug")), packed(BUILD, 100)).unwrap();
    server.append(vec![native_window("shop", BUILD, 0x40)]).await;
    server.store.flush_applied().await.unwrap();
    server.spawn_tasks();
    let why = refusal(&server, BUILD).await;
    assert_eq!(why, "reading it took longer than 1 s (`symbol_seconds`)");
    assert!(!server.dir.join(format!("debuginfo/{BUILD}.debug")).exists());
    server.stop().await;
}

/// Killed from outside, each three times: nothing else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_killed_readers_harm_no_ingest() {
    let mut server = Server::start(shell("printf EMBSYMR1; kill -9 $$")).await;
    let builds: Vec<String> = (0..40).map(|n| format!("{n:08x}")).collect();
    for build in &builds {
        std::fs::write(server.dir.join(format!("debuginfo/{build}.debug")), packed(build, 100)).unwrap();
    }
    server
        .append(builds.iter().map(|build| native_window("shop", build, 0x40)).collect())
        .await;
    server.store.flush_applied().await.unwrap();
    server.spawn_tasks();
    let mut sent = 0;
    eventually("all files are refused", || {
        sent += 1;
        let more = server.append(vec![native_window("other", "abcd", 0x40)]);
        async {
            more.await;
            let refused = symbol_claims(&server.dir).unwrap().into_iter().filter(|claim| {
                claim
                    .refused
                    .as_ref()
                    .is_some_and(|why| why.contains("was killed 3 times"))
            });
            (refused.count() == builds.len()).then_some(())
        }
    })
    .await;
    server.store.flush_applied().await.unwrap();
    assert_eq!(server.store.stats().batches_stored, 1 + sent);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_reader_costs_no_file() {
    let mut server = Server::start(|config| config.symbol_reader = Some(vec!["/bin/true".into()])).await;
    let file = server.dir.join(format!("debuginfo/{BUILD}.debug"));
    std::fs::write(&file, packed(BUILD, 100)).unwrap();
    server.append(vec![native_window("shop", BUILD, 0x40)]).await;
    server.store.flush_applied().await.unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    server.collector.register(&mut registry);
    server.spawn_tasks();
    eventually("it is counted", || async {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.contains("symbol_reads_total{outcome=\"not_started\"}")
            .then_some(())
    })
    .await;
    assert!(file.exists());
    server.stop().await;
}

/// A mark that is found at a start says that the server ended over this file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_being_read_when_the_server_ended_is_refused() {
    let (_keep, dir) = kept();
    std::fs::create_dir_all(dir.join("debuginfo")).unwrap();
    let of = |extension: &str| dir.join(format!("debuginfo/{BUILD}.{extension}"));
    std::fs::write(of("debug"), packed(BUILD, 100)).unwrap();
    std::fs::write(of("reading"), b"").unwrap();
    let server = Server::start_in(dir.clone(), ManualClock::at(T0 + 60), |_| {}).await;
    let mut client = DebugInfoClient::new(server.channel().await);
    let (wanted, reason) = should(&mut client, BUILD, 100).await;
    assert!(!wanted && reason.contains("stopped while reading it"), "{reason}");
    assert!(!of("debug").exists() && !of("reading").exists());
    server.stop().await;
}

/// A note in a file is a claim: who sends first is not for that the owner.
#[tokio::test(flavor = "multi_thread")]
async fn a_planted_file_loses_against_one_of_a_sender_that_reports_the_build() {
    let server = Server::start(|_| {}).await;
    let (bytes, build) = own_program();
    let planted = [&bytes[..], b"!"].concat();
    let mut stranger = client_from(&server, "127.0.0.2").await;
    upload(&mut stranger, &build, planted.len() as u64, &planted)
        .await
        .unwrap();
    let first = claim(&server.dir, &build).unwrap();
    assert_eq!((first.address.as_str(), first.reported_unix_ms), ("127.0.0.2", None));
    let key = build.clone();
    server
        .store
        .put_symbols(
            &key,
            vec![(
                0x40,
                vec![emberline_model::Frame {
                    function: "planted".into(),
                    ..Default::default()
                }],
            )],
        )
        .unwrap();

    let report = |service: &str| encode_profiles(&native_window(service, &build, 0x40));
    let mut owner = client_from(&server, "127.0.0.3").await;
    let size = bytes.len() as u64;
    assert!(!should(&mut owner, &build, size).await.0, "a stranger, too, so far");
    let mut profiles = ProfilesServiceClient::new(channel_from(&server, "127.0.0.3").await);
    profiles.export(report("payments")).await.unwrap();
    assert!(should(&mut owner, &build, size).await.0, "it reports the build");
    upload(&mut owner, &build, size, &bytes).await.unwrap();
    let second = claim(&server.dir, &build).unwrap();
    assert_ne!(second.digest, first.digest);
    assert_eq!(second.bytes, size);
    server.store.flush_applied().await.unwrap();
    let unresolved = server.store.unresolved(10);
    assert_eq!(unresolved.len(), 1, "the planted name is forgotten");

    // Reporting it afterwards makes no better claim.
    let mut later = ProfilesServiceClient::new(channel_from(&server, "127.0.0.2").await);
    later.export(report("atk")).await.unwrap();
    server.clock.set(T0 + 90);
    assert!(!should(&mut stranger, &build, size).await.0);
    let refused = upload(&mut stranger, &build, planted.len() as u64, &planted)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_of_one_sender_blocks_the_build_for_nobody_else() {
    let server = Server::start(|_| {}).await;
    let mut junk = client_from(&server, "127.0.0.2").await;
    let refused = upload(&mut junk, BUILD, 90, &[7; 90]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let (wanted, reason) = should(&mut junk, BUILD, 90).await;
    assert!(!wanted && reason.starts_with("refused earlier"), "{reason}");
    let bytes = packed(BUILD, 100);
    let mut owner = client_from(&server, "127.0.0.3").await;
    upload(&mut owner, BUILD, bytes.len() as u64, &bytes).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_do_not_end_hold_no_turn_of_others() {
    let server = Server::start(|_| {}).await;
    let mut open = Vec::new();
    for n in 0..2 {
        let mut client = client_from(&server, "127.0.0.2").await;
        let (send, receive) = tokio::sync::mpsc::channel(4);
        let header = parts(&format!("0000000{n}"), 1 << 20, &[]).remove(0);
        send.send(header).await.unwrap();
        let stream = tokio_stream::wrappers::ReceiverStream::new(receive);
        open.push((send, tokio::spawn(async move { client.upload(stream).await })));
    }
    eventually("both have their turn", || async {
        let begun = std::fs::read_dir(server.dir.join("debuginfo")).unwrap().count();
        (begun == 2).then_some(())
    })
    .await;
    let bytes = packed(BUILD, 100);
    let size = bytes.len() as u64;
    let mut third = client_from(&server, "127.0.0.2").await;
    let refused = upload(&mut third, BUILD, size, &bytes).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("from this address"), "{}", refused.message());
    let mut other = client_from(&server, "127.0.0.3").await;
    upload(&mut other, BUILD, size, &bytes).await.unwrap();
    drop(open);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_that_the_store_keeps_free_is_not_used() {
    let server = Server::start(|config| config.min_free_mb = 1 << 40).await;
    let mut client = DebugInfoClient::new(server.channel().await);
    let bytes = packed(BUILD, 100);
    let refused = upload(&mut client, BUILD, bytes.len() as u64, &bytes)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("`min_free_mb`"), "{}", refused.message());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_nothing_stored_refers_to_make_room_first() {
    let bytes = packed(BUILD, 100);
    let size = bytes.len() as u64;
    let server = Server::start(|config| config.debuginfo_total_bytes = 2 * size + 100).await;
    let (used, unused) = ("aaaaaaaa", "bbbbbbbb");
    server.append(vec![native_window("shop", used, 0x40)]).await;
    server.store.flush_applied().await.unwrap();
    // The one that is referred to is the older one.
    for (build, age) in [(used, 2_000), (unused, 1_000)] {
        let path = server.dir.join(format!("debuginfo/{build}.debug"));
        std::fs::write(&path, vec![0; size as usize]).unwrap();
        let at = std::time::SystemTime::now() - Duration::from_secs(age);
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(at)
            .unwrap();
    }
    let mut client = DebugInfoClient::new(server.channel().await);
    upload(&mut client, BUILD, size, &bytes).await.unwrap();
    let there = |build: &str| server.dir.join(format!("debuginfo/{build}.debug")).exists();
    assert_eq!([used, unused, BUILD].map(there), [true, false, true]);
    server.stop().await;
}

/// A file goes when others need the room; its names stay, and are no stranger's to change.
#[tokio::test(flavor = "multi_thread")]
async fn names_whose_file_made_room_are_not_a_strangers_to_replace() {
    let server = Server::start(|_| {}).await;
    let bytes = packed(BUILD, 100);
    let size = bytes.len() as u64;
    let mut owner = client_from(&server, "127.0.0.3").await;
    upload(&mut owner, BUILD, size, &bytes).await.unwrap();
    std::fs::remove_file(server.dir.join(format!("debuginfo/{BUILD}.debug"))).unwrap();
    let mut stranger = client_from(&server, "127.0.0.2").await;
    let planted = [&bytes[..], b"!"].concat();
    let refused = upload(&mut stranger, BUILD, planted.len() as u64, &planted)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("names of this build"),
        "{}",
        refused.message()
    );
    upload(&mut owner, BUILD, size, &bytes).await.unwrap();
    server.stop().await;
}
