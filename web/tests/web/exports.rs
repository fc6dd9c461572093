//! Other programs' formats say the same as the API.

use axum::body::Body;
use emberline_model::{Component, Side, pprof};
use http::Request;

use crate::support::{BASE_S, World, shop, window};

const DIFF: &str = "/api/v1/diff?service=checkout&from=now-2m&route=/quote/%7Bid%7D";
const PROFILE: &str = "/api/v1/profile?service=checkout&version=v2&from=now-2m";

/// Elements and texts of an XML document that must be well-formed.
fn xml(document: &str) -> (Vec<String>, Vec<String>) {
    use quick_xml::{Reader, events::Event};

    let mut reader = Reader::from_str(document);
    reader.config_mut().check_end_names = true;
    let (mut elements, mut texts, mut text) = (Vec::new(), Vec::new(), String::new());
    loop {
        match reader
            .read_event()
            .unwrap_or_else(|error| panic!("{error} at {}", reader.error_position()))
        {
            Event::Eof => break,
            Event::Start(start) | Event::Empty(start) => {
                start.attributes().for_each(|a| drop(a.unwrap()));
                elements.push(String::from_utf8(start.name().as_ref().to_vec()).unwrap());
            }
            Event::Text(part) => text.push_str(&part.decode().unwrap()),
            Event::GeneralRef(entity) => text.push_str(match &*entity.decode().unwrap() {
                "lt" => "<",
                "gt" => ">",
                "amp" => "&",
                "quot" => "\"",
                "apos" => "'",
                other => panic!("&{other};"),
            }),
            Event::End(_) => texts.push(std::mem::take(&mut text)),
            _ => {}
        }
    }
    (elements, texts)
}

#[tokio::test]
async fn totals_of_exports_equal_the_apis() {
    let world = World::new(shop()).await;
    // A display limit must not reach an export.
    for limit in ["", "&limit=1"] {
        let profile = world.json(&format!("{PROFILE}{limit}")).await;
        let file = world.get(&format!("{PROFILE}{limit}&format=pprof")).await;
        let read = pprof::read(&file.body, 1 << 24).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].profile.total(), profile["total"].as_i64().unwrap());
        assert_eq!(read[0].profile.profile_type.0, profile["profile_type"]);
        let folded = world.get(&format!("{PROFILE}{limit}&format=folded")).await;
        let sum: i64 = folded
            .text()
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|l| l.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap())
            .sum();
        assert_eq!(sum, profile["total"].as_i64().unwrap());
        // Sent back, it is what it was.
        let units = emberline_model::formats::Units::cpu(100);
        let back = emberline_model::formats::folded::read(folded.text(), &units, true, u64::MAX).unwrap();
        assert_eq!(
            (back.total(), &back.profile_type.0),
            (sum, &emberline_model::ProfileType::CPU.to_owned())
        );
        assert!(
            folded
                .text()
                .contains("main;shop::quote;shop::price_basket 480600000\n"),
            "{}",
            folded.text()
        );

        let diff = world.json(&format!("{DIFF}{limit}")).await;
        let totals = [&diff["baseline"]["total"], &diff["candidate"]["total"]].map(|t| t.as_i64().unwrap());
        assert_eq!(folded.body, world.get(&format!("{PROFILE}&format=folded")).await.body);
        let file = world.get(&format!("{DIFF}{limit}&format=pprof")).await;
        let read = pprof::read(&file.body, 1 << 24).unwrap();
        assert_eq!(read.iter().map(|v| v.profile.total()).collect::<Vec<_>>(), totals);
        assert_eq!(read[0].name, "baseline_cpu/nanoseconds");
        let folded = world.get(&format!("{DIFF}{limit}&format=folded")).await;
        assert_eq!(folded.body, world.get(&format!("{DIFF}&format=folded")).await.body);
        let mut sums = [0i64; 2];
        for line in folded.text().lines() {
            let mut words = line.rsplitn(3, ' ');
            sums[1] += words.next().unwrap().parse::<i64>().unwrap();
            sums[0] += words.next().unwrap().parse::<i64>().unwrap();
        }
        assert_eq!(sums, totals);
    }
}

#[tokio::test]
async fn pictures_are_well_formed_and_name_the_guilty_function() {
    let world = World::new(shop()).await;
    for address in [PROFILE, DIFF] {
        let svg = world.get(&format!("{address}&format=svg")).await;
        assert_eq!(svg.header("content-type"), "image/svg+xml");
        let (_, texts) = xml(svg.text());
        assert!(texts.iter().any(|t| t.starts_with("shop::price_basket (")), "{texts:?}");
    }
    // A picture of nothing is a picture, too.
    let empty = window("idle", "v1", Component::Application, 0).done();
    let world = World::new(vec![empty]).await;
    let svg = world.get("/api/v1/profile?service=idle&from=now-2m&format=svg").await;
    let (_, texts) = xml(svg.text());
    assert!(texts.iter().any(|t| t == "No samples in this range."));
}

#[tokio::test]
async fn a_page_to_keep_refers_to_nothing_outside() {
    let world = World::new(shop()).await;
    let html = world.get(&format!("{DIFF}&format=html")).await;
    assert_eq!(
        html.header("content-disposition"),
        "attachment; filename=\"checkout-v1-v2.html\""
    );
    let page = html.text();
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg") && page.contains("shop::price_basket"));
    for outside in ["src=\"", "href=\"http", "url(http", "<link", "@import", "<?xml", "DTD"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[tokio::test]
async fn names_from_outside_stay_text() {
    let hostile = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "]]>",
        "a;b",
        "tail 12",
        "\u{1}\u{b}nul",
        "&amp;",
        "  ",
    ];
    let mut windows = Vec::new();
    for version in ["</title><script>1</script>", "v2\"'"] {
        for index in 0..3 {
            let mut window = window("<svg onload=alert(1)>", version, Component::Application, index).requests(
                Side::Server,
                "/<img src=x>",
                None,
                10,
                0,
            );
            for (at, name) in hostile.iter().enumerate() {
                window = window.stack(
                    Some(Side::Server),
                    "/<img src=x>",
                    &["main", name],
                    1_000_000 * (at as i64 + 1),
                    1,
                );
            }
            windows.push(window.done());
        }
    }
    let world = World::new(windows).await;
    let service = "service=%3Csvg%20onload%3Dalert(1)%3E&route=/%3Cimg%20src%3Dx%3E&from=now-2m";
    let diff = world.json(&format!("/api/v1/diff?{service}")).await;
    let names: Vec<&str> = diff["tree"]["names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    assert!(
        hostile.iter().all(|name| names.contains(name)),
        "JSON keeps names as they are"
    );

    for address in [
        format!("/api/v1/profile?{service}&format=svg"),
        format!("/api/v1/diff?{service}&format=svg"),
    ] {
        let svg = world.get(&address).await;
        let (elements, texts) = xml(svg.text());
        assert_eq!(
            elements.iter().filter(|e| *e == "script").count(),
            1,
            "the picture's own"
        );
        assert!(!elements.iter().any(|e| e == "img"));
        assert!(
            texts.iter().any(|t| t.starts_with("<script>alert(1)</script> (")),
            "{texts:?}"
        );
    }
    let html = world.get(&format!("/api/v1/diff?{service}&format=html")).await;
    assert_eq!(html.text().matches("<script").count(), 1, "the picture's own");
    for escaped in ["<img", "<svg onload"] {
        assert!(!html.text().contains(escaped), "{escaped}");
    }
    let disposition = html.header("content-disposition");
    assert!(
        !disposition.contains('<') && disposition.matches('"').count() == 2,
        "{disposition}"
    );

    let folded = world.get(&format!("/api/v1/profile?{service}&format=folded")).await;
    let profile = world.json(&format!("/api/v1/profile?{service}")).await;
    let mut sum = 0i64;
    for line in folded.text().lines().filter(|line| !line.starts_with("# ")) {
        let (stack, value) = line.rsplit_once(' ').unwrap();
        assert_eq!(stack.split(';').count(), 2, "{line}");
        sum += value.parse::<i64>().unwrap();
    }
    assert_eq!(sum, profile["total"].as_i64().unwrap());
}

#[tokio::test]
async fn an_accept_header_that_names_one_type_chooses_the_format() {
    let world = World::new(shop()).await;
    let cases = [
        ("image/svg+xml", "image/svg+xml"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("application/octet-stream", "application/octet-stream"),
        ("application/vnd.speedscope+json", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
    ];
    for (accept, content_type) in cases {
        let request = Request::get(DIFF).header("accept", accept).body(Body::empty()).unwrap();
        assert_eq!(
            world.send(request).await.header("content-type"),
            content_type,
            "{accept}"
        );
    }
}

#[tokio::test]
async fn a_file_says_when_it_was_taken() {
    let world = World::new(shop()).await;
    let address = format!(
        "/api/v1/profile?service=checkout&version=v2&from={BASE_S}&to={}&format=pprof",
        BASE_S + 80
    );
    let read = pprof::read(&world.get(&address).await.body, 1 << 24).unwrap();
    assert_eq!(
        (read[0].profile.start_unix_ns, read[0].profile.duration_ns),
        (BASE_S * 1_000_000_000, 80_000_000_000)
    );
}
