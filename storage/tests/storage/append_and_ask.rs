//! Questions are answered with what was appended, wherever the rows are.
//!
//! One file because every test asks about the same few hand-made windows, wherever their rows are. What only one kind
//! of question or one place of rows needs has a file of its own.

use crate::common::*;
use emberline_model::{
    Component, Frame, LabelSet, Location, ProfileType, RequestSeries, Side, comparison::WindowCost,
    protocol::CALLER_LEFT,
};
use emberline_storage::{
    AppendError, Appended, Dividing, NO_LABEL, OpenQuery, ProfileTypesQuery, QueryError, Range, RequestQuery,
    ServedQuery, ServiceName, ServicesQuery, SideQuery, StackQuery, Step, TotalsQuery, WindowQuery, WorkloadFilter,
};

const BUILD: &str = "00112233aabbccdd";

fn all_cpu(service: &str) -> StackQuery {
    StackQuery::new(WorkloadFilter::service(service), ProfileType::CPU, Range::ALL)
}

#[tokio::test]
async fn a_batch_is_stored_once_and_its_values_come_back_exactly() {
    for place in PLACES {
        Box::pin(a_batch_is_stored_once_and_its_values_come_back_exactly_in(place)).await;
    }
}

async fn a_batch_is_stored_once_and_its_values_come_back_exactly_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let w = workload("checkout", "v1", "a");
    let sent = batch(1, vec![full_window(&w, T0, "/pay", &[5, 7], &[16, 32], 1_234_567)]);
    let (first, second) = tokio::join!(store.append(sent.clone()), store.append(sent.clone()));
    assert!(matches!(first.unwrap(), Appended::Stored { lsn: 1 }));
    assert_eq!(second.unwrap(), Appended::Duplicate);
    assert_eq!(store.append(sent).await.unwrap(), Appended::Duplicate);
    store.flush_applied().await.unwrap();
    let stacks = store.ask(all_cpu("checkout")).await.unwrap();
    assert_eq!((stacks.rows.len(), stacks.value, stacks.samples), (1, 1_234_567, 1));
    let rows = store
        .ask(RequestQuery::new(WorkloadFilter::default(), Range::ALL))
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].duration, requests(Side::Server, "/pay", &[5, 7]).duration);
    assert_eq!((rows[0].request_bytes, rows[0].response_bytes), (10, 100));
    let stats = store.stats();
    assert_eq!((stats.batches_stored, stats.duplicates), (1, 2));
    assert_eq!((stats.lsn_durable, stats.lsn_applied, stats.sample_rows), (1, 1, 1));
}

#[tokio::test]
async fn stacks_are_addresses_until_symbols_arrive() {
    for place in PLACES {
        Box::pin(stacks_are_addresses_until_symbols_arrive_in(place)).await;
    }
}

async fn stacks_are_addresses_until_symbols_arrive_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let w = workload("checkout", "v1", "a");
    store
        .append(batch(1, vec![full_window(&w, T0, "/pay", &[5], &[16, 32, 48], 7)]))
        .await
        .unwrap();
    store.flush_applied().await.unwrap();
    let stack = store.ask(all_cpu("checkout")).await.unwrap().rows[0].stack_id;
    let names = |resolved: &emberline_model::resolve::ResolvedStacks| -> Vec<String> {
        resolved
            .frames(stack)
            .map(|f| resolved.functions[f as usize].name.clone())
            .collect()
    };
    let before = store.resolve(&[stack, 99]).await.unwrap();
    assert_eq!(names(&before), ["0x10", "0x20", "0x30"]);
    assert!(before.functions.iter().all(|f| f.unresolved && f.module == "checkout"));
    assert!(before.frames(99).is_empty(), "a stack that is not known");
    assert_eq!(store.unresolved(2), vec![(mapping(BUILD), vec![16, 32])]);

    let frame = |name: &str| Frame {
        function: name.into(),
        file: "src/pay.rs".into(),
        line: 3,
    };
    let symbols = vec![
        (16, vec![frame("shop::inlined"), frame("shop::pay")]),
        (32, vec![frame("shop::serve")]),
        (48, vec![]),
    ];
    store.put_symbols(BUILD, symbols).unwrap();
    let after = store.resolve(&[stack]).await.unwrap();
    assert_eq!(
        names(&after),
        ["shop::inlined", "shop::pay", "shop::serve", "[checkout]"]
    );
    let pay = &after.functions[after.frames(stack).nth(1).unwrap() as usize];
    assert_eq!(pay.id, emberline_model::function::function_id(&frame("shop::pay")));
    assert!(!pay.unresolved && pay.module == "checkout" && pay.file == "src/pay.rs");
    assert!(
        store.unresolved(9).is_empty(),
        "what has no name is not asked for again"
    );
    store.close();

    let store = Placing::open(dir.path(), place);
    assert_eq!(names(&store.resolve(&[stack]).await.unwrap()), names(&after));
    assert!(store.unresolved(9).is_empty());
    let builds = store.builds();
    assert_eq!((builds.len(), builds[0].locations, builds[0].resolved), (1, 3, 3));
    // New locations of a known build are asked for, and only those.
    store
        .append(batch(2, vec![full_window(&w, T0, "/pay", &[5], &[16, 64], 7)]))
        .await
        .unwrap();
    store.flush_applied().await.unwrap();
    assert_eq!(store.unresolved(9), vec![(mapping(BUILD), vec![64])]);
}

#[tokio::test]
async fn named_locations_bring_their_own_frames() {
    for place in PLACES {
        Box::pin(named_locations_bring_their_own_frames_in(place)).await;
    }
}

async fn named_locations_bring_their_own_frames_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let mut w = full_window(&workload("web", "v1", "a"), T0, "/", &[1], &[16], 5);
    let frame = |name: &str| Frame {
        function: name.into(),
        file: "app.js".into(),
        line: 1,
    };
    w.profiles[0].locations[0] = Location::Named {
        frames: vec![frame("inner"), frame("outer")],
    };
    store.append(batch(1, vec![w])).await.unwrap();
    store.flush_applied().await.unwrap();
    let stack = store.ask(all_cpu("web")).await.unwrap().rows[0].stack_id;
    let resolved = store.resolve(&[stack]).await.unwrap();
    let names: Vec<&str> = resolved
        .frames(stack)
        .map(|f| resolved.functions[f as usize].name.as_str())
        .collect();
    assert_eq!(names, ["inner", "outer"]);
    assert!(store.unresolved(9).is_empty());
}

#[tokio::test]
async fn samples_are_selected_by_label_and_totals_agree_with_stacks() {
    for place in PLACES {
        Box::pin(samples_are_selected_by_label_and_totals_agree_with_stacks_in(place)).await;
    }
}

async fn samples_are_selected_by_label_and_totals_agree_with_stacks_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let mut w = window(&workload("checkout", "v1", "a"), Component::Application, T0);
    w.has_profiles = true;
    let client = LabelSet {
        side: Some(Side::Client),
        route: "/pay".into(),
        peer: Some(release("payment", "v1")),
    };
    w.profiles = vec![profile(
        BUILD,
        &[
            (&[1], labels("/pay"), 1),
            (&[2], labels("/cart"), 10),
            (&[3], LabelSet::none(), 100),
            (&[4], client, 1000),
        ],
    )];
    store.append(batch(1, vec![w])).await.unwrap();
    store.flush_applied().await.unwrap();
    for (side, route, expected) in [
        (None, None, 1111),
        (Some(Side::Server), None, 11),
        (None, Some("/pay"), 1001),
        (Some(Side::Server), Some("/pay"), 1),
        (None, Some(NO_LABEL), 100),
        (Some(Side::Server), Some(NO_LABEL), 100),
        (None, Some("/nothing"), 0),
        (None, Some("' OR 1=1 --"), 0),
    ] {
        let query = StackQuery {
            side,
            route: route.map(str::to_owned),
            ..all_cpu("checkout")
        };
        assert_eq!(store.ask(query).await.unwrap().value, expected, "{side:?} {route:?}");
    }
    let totals = store
        .ask(TotalsQuery {
            who: WorkloadFilter::service("checkout"),
            component: None,
            profile_type: ProfileType::CPU.into(),
            only_complete: false,
            step: Step::Window,
            by_route: true,
            range: Range::ALL,
        })
        .await
        .unwrap();
    let values: Vec<(Option<Side>, &str, i64)> = totals.iter().map(|t| (t.side, t.route.as_str(), t.value)).collect();
    assert_eq!(
        values,
        [
            (None, "", 100),
            (Some(Side::Client), "/pay", 1000),
            (Some(Side::Server), "/cart", 10),
            (Some(Side::Server), "/pay", 1)
        ]
    );
    assert!(
        totals
            .iter()
            .all(|t| t.window_start_s == T0 && t.release == release("checkout", "v1"))
    );
    let types = store
        .ask(ProfileTypesQuery {
            who: WorkloadFilter::service("checkout"),
            range: Range::ALL,
        })
        .await
        .unwrap();
    assert_eq!(types, [ProfileType::CPU]);
}

/// The rule of complete windows: application CPU is divided by requests whichever component counted them, proxy CPU by
/// the proxy's own, and neither by both.
#[tokio::test]
async fn only_windows_with_both_signals_count_and_no_request_counts_twice() {
    for place in PLACES {
        Box::pin(only_windows_with_both_signals_count_and_no_request_counts_twice_in(
            place,
        ))
        .await;
    }
}

async fn only_windows_with_both_signals_count_and_no_request_counts_twice_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let w = workload("checkout", "v1", "a");
    let at = |n: i64| T0 + 10 * n;
    let cpu = |component, start, value| {
        let mut window = window(&w, component, start);
        window.has_profiles = true;
        window.profiles = vec![profile(BUILD, &[(&[1], labels("/pay"), value)])];
        window
    };
    let counted = |component, start, ms: &[u64]| {
        let mut window = window(&w, component, start);
        window.has_requests = true;
        if !ms.is_empty() {
            window.requests = vec![requests(Side::Server, "/pay", ms)];
        }
        window
    };
    use Component::{Application, Proxy};
    let windows = vec![
        // 0: both signals of the application.
        cpu(Application, at(0), 1),
        counted(Application, at(0), &[5]),
        // 1: its requests never arrived.
        cpu(Application, at(1), 10),
        // 2: its proxy counted.
        cpu(Application, at(2), 100),
        counted(Proxy, at(2), &[5, 5]),
        cpu(Proxy, at(2), 3),
        // 3: both counted the same requests; the application's report is used.
        cpu(Application, at(3), 1000),
        counted(Application, at(3), &[5, 5, 5]),
        counted(Proxy, at(3), &[6, 6, 6]),
        cpu(Proxy, at(3), 4),
        // 4: requests without a profile.
        counted(Application, at(4), &[5; 50]),
        // 5: an idle window is complete.
        cpu(Application, at(5), 0),
        counted(Application, at(5), &[]),
        // 6: the proxy's CPU waits for the proxy's requests.
        cpu(Proxy, at(6), 7),
        counted(Application, at(6), &[5]),
    ];
    for (n, window) in windows.into_iter().enumerate() {
        store.append(batch(n as u64 + 1, vec![window])).await.unwrap();
    }
    store.flush_applied().await.unwrap();

    let side = |component| {
        let store = store.clone();
        async move {
            store
                .side_data(SideQuery {
                    component,
                    ..SideQuery::new(release("checkout", "v1"), Range::ALL)
                })
                .await
                .unwrap()
        }
    };
    let summary = |data: &emberline_model::comparison::SideData| -> Vec<(i64, u64, i64)> {
        let of = |w: &WindowCost| {
            (
                (w.start_unix_s - T0) / 10,
                w.requests as u64,
                w.stacks.iter().map(|s| s.1).sum(),
            )
        };
        data.windows.iter().map(of).collect()
    };
    let application = side(Application).await;
    assert_eq!(summary(&application), [(0, 1, 1), (2, 2, 100), (3, 3, 1000), (5, 0, 0)]);
    assert!(
        application
            .windows
            .iter()
            .all(|w| (w.instance_seconds - 10.0).abs() < 1e-9)
    );
    assert_eq!(
        application.latency.count(),
        1 + 2 + 3 + 50 + 1,
        "latency needs no profiles"
    );
    assert_eq!(
        (application.coverage.covered_s, application.coverage.missing),
        (40, None)
    );
    assert_eq!(application.build_ids, [BUILD]);
    assert_eq!(application.resolved.stacks.len(), 1);
    let proxy = side(Proxy).await;
    assert_eq!(summary(&proxy), [(2, 2, 3), (3, 3, 4)]);

    let stacks = StackQuery {
        component: Some(Application),
        only_complete: true,
        ..all_cpu("checkout")
    };
    assert_eq!(store.ask(stacks).await.unwrap().value, 1101);
    let count = |query: RequestQuery| {
        let store = store.clone();
        async move {
            store
                .ask(query)
                .await
                .unwrap()
                .iter()
                .map(|r| r.duration.count())
                .sum::<u64>()
        }
    };
    let all = RequestQuery::new(WorkloadFilter::service("checkout"), Range::ALL);
    assert_eq!(count(all.clone()).await, 1 + 2 + 3 + 50 + 1);
    assert_eq!(
        count(RequestQuery {
            component: Some(Proxy),
            ..all.clone()
        })
        .await,
        2 + 3
    );
    assert_eq!(
        count(RequestQuery {
            component: Some(Application),
            ..all.clone()
        })
        .await,
        1 + 3 + 50 + 1
    );
    let complete = RequestQuery {
        dividing: Some(Dividing::cpu(Application)),
        ..all
    };
    assert_eq!(count(complete).await, 1 + 2 + 3);

    let route = SideQuery {
        route: Some("/other".into()),
        ..SideQuery::new(release("checkout", "v1"), Range::ALL)
    };
    assert!(
        summary(&store.side_data(route).await.unwrap())
            .iter()
            .all(|w| w.1 == 0 && w.2 == 0)
    );
}

#[tokio::test]
async fn a_long_range_is_told_in_few_windows_and_loses_nothing() {
    for place in PLACES {
        Box::pin(a_long_range_is_told_in_few_windows_and_loses_nothing_in(place)).await;
    }
}

async fn a_long_range_is_told_in_few_windows_and_loses_nothing_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    // Release, windows, seconds between them; windows in the answer.
    let releases = [("v1", 30, 10, 25), ("v2", 400, 10, 14), ("v3", 30, 3_000, 25)];
    let start_s = T0 / 86_400 * 86_400 - 86_400;
    let mut windows = Vec::new();
    for (version, count, every_s, _) in releases {
        let w = workload("checkout", version, "a");
        for n in 0..count {
            let mut cpu = window(&w, Component::Application, start_s + n * every_s);
            cpu.has_profiles = true;
            cpu.profiles = vec![profile(BUILD, &[(&[1], labels("/pay"), 1 << (n % 40))])];
            windows.push(cpu);
            // Some lack their requests.
            if n % 7 != 0 {
                let mut counted = window(&w, Component::Application, start_s + n * every_s);
                counted.has_requests = true;
                counted.requests = vec![requests(Side::Server, "/pay", &[5, 6])];
                windows.push(counted);
            }
        }
    }
    store.append(batch(1, windows)).await.unwrap();
    store.flush_applied().await.unwrap();
    for (version, count, _, told) in releases {
        let complete: Vec<i64> = (0..count).filter(|n| n % 7 != 0).collect();
        let query = SideQuery::new(release("checkout", version), Range::ALL);
        let data = store.side_data(query).await.unwrap();
        let sum = |of: fn(&WindowCost) -> u64| data.windows.iter().map(of).sum::<u64>();
        assert_eq!(data.windows.len(), told, "{version}");
        let values = data.windows.iter().flat_map(|w| &w.stacks).map(|s| s.1).sum::<i64>();
        assert_eq!(values, complete.iter().map(|n| 1 << (n % 40)).sum::<i64>(), "{version}");
        let complete = complete.len() as u64;
        assert_eq!(sum(|w| w.windows), complete, "{version}");
        assert_eq!(sum(|w| w.requests as u64), 2 * complete, "{version}");
        assert_eq!(data.latency.count(), 2 * complete, "{version}");
        assert_eq!(sum(|w| w.instance_seconds as u64), 10 * complete, "{version}");
    }
}

#[tokio::test]
async fn services_that_lasted_stay_where_an_answer_has_few() {
    for place in PLACES {
        Box::pin(services_that_lasted_stay_where_an_answer_has_few_in(place)).await;
    }
}

async fn services_that_lasted_stay_where_an_answer_has_few_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let mut windows = Vec::new();
    for service in ["a", "b", "c", "d", "zebra"] {
        // The made-up services have several processes, with one window each.
        let instances: &[&str] = if service == "zebra" { &["0"] } else { &["0", "1", "2"] };
        for instance in instances {
            let mut window = full_window(&workload(service, "v1", instance), T0 - 1800, "/", &[5], &[1], 1);
            window.requests.push(RequestSeries {
                status: 500,
                error: true,
                ..requests(Side::Server, "/", &[7])
            });
            window.requests.push(RequestSeries {
                status: CALLER_LEFT,
                ..requests(Side::Server, "/", &[9])
            });
            window.requests.push(requests(Side::Client, "/", &[11]));
            windows.push(window);
        }
    }
    windows.push(full_window(
        &workload("zebra", "v1", "0"),
        T0 - 1790,
        "/",
        &[5],
        &[1],
        1,
    ));
    store.append(batch(1, windows)).await.unwrap();
    store.flush_applied().await.unwrap();
    let all = store.ask(ServicesQuery::new(Range::ALL)).await.unwrap();
    assert_eq!((all.services.len(), all.left_out), (5, 0));
    let few = ServicesQuery {
        most: 2,
        ..ServicesQuery::new(Range::ALL)
    };
    let few = store.ask(few).await.unwrap();
    let names: Vec<&str> = few.services.iter().map(|of| of.service.as_str()).collect();
    assert_eq!((names.as_slice(), few.left_out), (&["a", "zebra"][..], 3));
    assert!(few.services.iter().all(|of| all.services.contains(of)));
    let counts = few.services.iter().map(|of| of.releases[0].instance_count);
    assert_eq!(counts.collect::<Vec<_>>(), [3, 1]);

    let named = few.services.iter().map(|of| ServiceName {
        namespace: of.namespace.clone(),
        service: of.service.clone(),
    });
    for (who, services) in [
        (WorkloadFilter::among(named.collect()), &["a", "zebra"][..]),
        (WorkloadFilter::default(), &["a", "b", "c", "d", "zebra"]),
        (WorkloadFilter::among(Vec::new()), &[]),
    ] {
        let served = ServedQuery {
            who: who.clone(),
            range: Range::ALL,
        };
        let served = store.ask(served).await.unwrap();
        let names: Vec<&str> = served.iter().map(|of| of.service.as_str()).collect();
        assert_eq!(names, services);
        for of in &served {
            let (latencies, others) = if of.service == "zebra" { (3, 1) } else { (6, 3) };
            let counted = (of.latency.count(), of.errors, of.given_up);
            assert_eq!(counted, (latencies, others, others), "{}", of.service);
        }
        let rows = store.ask(RequestQuery::new(who, Range::ALL)).await.unwrap();
        assert!(rows.iter().all(|row| services.contains(&row.reporter.service.as_str())));
        assert_eq!(rows.is_empty(), services.is_empty());
    }
}

#[tokio::test]
async fn what_is_open_is_what_the_last_window_of_each_process_says() {
    for place in PLACES {
        Box::pin(what_is_open_is_what_the_last_window_of_each_process_says_in(place)).await;
    }
}

async fn what_is_open_is_what_the_last_window_of_each_process_says_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let open = |instance: &str, start, routes: &[(&str, u64)]| {
        let mut of_instance = window(&workload("chat", "v1", instance), Component::Proxy, start);
        of_instance.has_requests = true;
        for &(route, open) in routes {
            of_instance.requests.push(RequestSeries {
                open,
                peer: (route != "/").then(|| release("front", "v2")),
                ..requests(Side::Server, route, &[5])
            });
        }
        of_instance
    };
    let windows = vec![
        open("a", T0 - 1800, &[("/", 7), ("/live", 3)]),
        open("a", T0 - 1790, &[("/", 1), ("/live", 2), ("/other", 4)]),
        open("b", T0 - 1800, &[("/", 5)]),
        open("c", T0 - 1800, &[("/", 9)]),
        open("c", T0 - 1790, &[("/", 0)]),
    ];
    store.append(batch(1, windows)).await.unwrap();
    store.flush_applied().await.unwrap();
    let query = OpenQuery {
        who: WorkloadFilter::service("chat"),
        range: Range::ALL,
    };
    let rows = store.ask(query.clone()).await.unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.peer.clone(), row.side, row.open)).collect();
    let front = Some(release("front", "v2"));
    assert_eq!(found, [(None, Side::Server, 6), (front, Side::Server, 6)]);
    let who = WorkloadFilter::service("nobody");
    assert!(store.ask(OpenQuery { who, ..query }).await.unwrap().is_empty());
}

#[tokio::test]
async fn services_list_releases_by_when_they_were_first_seen() {
    for place in PLACES {
        Box::pin(services_list_releases_by_when_they_were_first_seen_in(place)).await;
    }
}

async fn services_list_releases_by_when_they_were_first_seen_in(place: Place) {
    let dir = tempfile::tempdir().unwrap();
    let store = Placing::open(dir.path(), place);
    let v1 = |start| full_window(&workload("checkout", "v1", "a"), start, "/", &[1], &[1], 1);
    let mut v2 = full_window(&workload("checkout", "v2", "b"), T0 + 1800, "/", &[1], &[1], 1);
    v2.profiles[0].mappings[0].build_id = "ffeeddcc".into();
    v2.profiles[0].mappings.push(emberline_model::Mapping {
        build_id: "0badcafe".into(),
        path: "/lib/libc.so.6".into(),
    });
    store
        .append(batch(1, vec![v1(T0 - 7200), v1(T0 + 1800)]))
        .await
        .unwrap();
    store.append(batch(2, vec![v2])).await.unwrap();
    store.flush_applied().await.unwrap();
    let recent = Range {
        from_unix_s: T0 + 1000,
        to_unix_s: T0 + 3600,
    };
    let services = store.ask(ServicesQuery::new(recent)).await.unwrap().services;
    assert_eq!(services.len(), 1);
    let releases = &services[0].releases;
    let seen: Vec<(&str, i64, i64)> = releases
        .iter()
        .map(|r| (r.version.as_str(), r.first_window_s, r.last_seen_s))
        .collect();
    assert_eq!(seen, [("v2", T0 + 1800, T0 + 1810), ("v1", T0 - 7200, T0 + 1810)]);
    let first_seen: Vec<i64> = releases.iter().map(|r| r.first_seen_s).collect();
    assert_eq!(first_seen, [T0, T0 - 7200], "what lies ahead is dated by its arrival");
    assert_eq!(releases[0].build_ids, ["ffeeddcc"]);
    assert_eq!(releases[1].instances, ["a"]);
    assert_eq!(releases[1].components, [Component::Application]);
    let old = Range {
        from_unix_s: T0 - 7200,
        to_unix_s: T0,
    };
    assert_eq!(
        store.ask(ServicesQuery::new(old)).await.unwrap().services[0]
            .releases
            .len(),
        1
    );
    let marks = store
        .ask(WindowQuery {
            who: WorkloadFilter::service("checkout"),
            component: None,
            range: Range::ALL,
        })
        .await
        .unwrap();
    assert_eq!(marks.len(), 3);
    assert!(
        marks
            .iter()
            .all(|m| m.has_requests && m.has_profiles && m.length_s == 10 && m.stats.cpu_ns == 5)
    );
}

#[tokio::test]
async fn bad_input_is_refused_with_its_reason_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.max_batch_bytes = 4096;
    let store = emberline_storage::Store::open(options, TestClock::at(T0)).unwrap();
    let w = workload("checkout", "v1", "a");
    let at = |start| batch(1, vec![full_window(&w, start, "/", &[1], &[1], 1)]);
    let old = store.append(at(T0 - 73 * 3600)).await.unwrap_err();
    assert!(
        matches!(old, AppendError::TooOld { .. }) && !old.is_retryable(),
        "{old}"
    );
    let new = store.append(at(T0 + 3 * 3600)).await.unwrap_err();
    assert!(
        matches!(new, AppendError::TooNew { .. }) && !new.is_retryable(),
        "{new}"
    );
    assert!(store.append(at(i64::MIN)).await.is_err() && store.append(at(i64::MAX)).await.is_err());
    let mut invalid = at(T0);
    invalid.windows[0].profiles[0].samples[0].stack = 9;
    assert!(matches!(
        store.append(invalid).await.unwrap_err(),
        AppendError::Invalid(_)
    ));
    let offsets: Vec<u64> = (0..5000).collect();
    let large = batch(1, vec![full_window(&w, T0, "/", &[1], &offsets, 1)]);
    assert!(matches!(
        store.append(large).await.unwrap_err(),
        AppendError::TooLarge { limit: 4096, .. }
    ));
    let rejected = store.stats().rejected;
    assert_eq!(
        (
            rejected["too_old"],
            rejected["too_new"],
            rejected["invalid"],
            rejected["too_large"]
        ),
        (2, 2, 1, 1)
    );

    let bad = Range {
        from_unix_s: 5,
        to_unix_s: 5,
    };
    let error = store.ask(ServicesQuery::new(bad)).await.unwrap_err();
    assert!(matches!(error, QueryError::BadRange { .. }) && !error.is_retryable());
    assert!(
        store
            .ask(ServicesQuery::new(Range::ALL))
            .await
            .unwrap()
            .services
            .is_empty(),
        "an empty store answers"
    );
    store.close();
    assert!(
        store
            .ask(ServicesQuery::new(Range::ALL))
            .await
            .unwrap_err()
            .is_retryable()
    );
    assert!(store.append(at(T0)).await.unwrap_err().is_retryable());
}
