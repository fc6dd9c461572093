//! Who gets a request of a service: rules, canaries, and code that chooses.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use emberline_proxy::{Asked, Choice, ChooseCluster, Extensions, Proxy, config};
use http::Response;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    listeners::Following,
    services::{ask, message, row, rows, sharing},
    support::*,
};

/// The entry of `shop` with a cluster `canary`, and more keys.
fn shop(own: &App, canary: &App, more: &str) -> String {
    format!(
        "service: shop, destinations: [{{address: {}}}], clusters: [{{name: canary, destinations: [{{address: {}}}]}}], {more}",
        own.address, canary.address
    )
}

#[test]
fn rules_choose_a_cluster_by_path_method_header_and_query_and_the_first_one_wins() {
    block_on(async {
        let (own, canary, other) = (
            App::named("own").await,
            App::named("canary").await,
            App::named("other").await,
        );
        let rules = "routes: ['/items/{id}'], rules: [\
             {path: {exact: /fixed}, cluster: shop}, \
             {path: {prefix: /recommend}, cluster: recommend}, \
             {headers: [{name: x-user, prefix: test-}], cluster: canary}, \
             {query: [{name: v, exact: '2'}], methods: [GET], cluster: canary}, \
             {path: {template: '/items/{id}'}, headers: [{name: x-new}], cluster: canary}, \
             {cluster_header: x-cluster}]";
        let recommend = format!(
            "service: recommend, hosts: [], routes: ['/recommend/{{who}}'], destinations: [{{address: {}}}]",
            other.address
        );
        let (proxy, listen) = sharing("", &[shop(&own, &canary, rules), recommend]).await;
        for (target, headers, expected) in [
            ("/", "", "own"),
            ("/fixed?v=2", "x-user: test-1\r\n", "own"),
            ("/recommend/7", "x-user: test-1\r\n", "other"),
            ("/recommended", "", "own"),
            ("/", "x-user: test-1\r\n", "canary"),
            ("/", "x-user: tester\r\n", "own"),
            ("/?a&v=2", "", "canary"),
            ("/?v=22", "", "own"),
            ("/items/7", "x-new: 1\r\n", "canary"),
            ("/items/7", "", "own"),
            ("/", "x-cluster: canary\r\n", "canary"),
            ("/", "x-cluster: shop\r\n", "own"),
            ("/", "x-cluster: recommend\r\n", "other"),
        ] {
            assert_eq!(
                ask(listen, "any", target, headers).await.1,
                expected,
                "{target} {headers}"
            );
        }
        let (head, _) = ask(listen, "any", "/", "x-cluster: unheard-of\r\n").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("no_cluster"))
        );
        let seen = rows(recorded(proxy.telemetry(), 14).await);
        let expected = [
            row("", "other", "http/1.1", 503, 1),
            row("recommend", "/recommend/{who}", "http/1.1", 200, 1),
            row("recommend", "other", "http/1.1", 200, 1),
            row("shop", "/items/{id}", "http/1.1", 200, 2),
            row("shop", "other", "http/1.1", 200, 9),
        ];
        assert_eq!(seen, expected, "the destination is the service that was chosen");
        let metrics = proxy.metrics();
        assert_eq!((flag(&metrics, "NC"), flag(&metrics, "NR")), (1, 0));
        stop(proxy).await;
    });
}

#[test]
fn a_canary_gets_its_share_within_one_percent_of_ten_thousand_requests() {
    block_on(async {
        let (own, canary) = (App::named("own").await, App::named("canary").await);
        let rules = "rules: [{split: [{cluster: shop, weight: 93}, {cluster: canary, weight: 7}]}]";
        let (proxy, listen) = sharing("", &[shop(&own, &canary, rules)]).await;
        let mut stream = TcpStream::connect(listen).await.unwrap();
        for n in 1..=10_000 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
            read_answer(&mut stream).await;
            // Smooth: at no time more than one request off.
            let due = n as f64 * 0.07;
            assert!(
                (canary.requests() as f64 - due).abs() <= 1.0,
                "{} of {n}",
                canary.requests()
            );
        }
        assert_eq!((own.requests(), canary.requests()), (9_300, 700));
        stop(proxy).await;
    });
}

#[test]
fn a_rule_has_timeouts_of_its_own() {
    block_on(async {
        let silent = App::start(|_| std::future::pending()).await;
        let rules =
            "rules: [{path: {prefix: /fast}, cluster: shop, timeouts: {request_ms: 50}}], timeouts: {request_ms: none}";
        let (proxy, listen) = sharing("", &[shop(&silent, &silent, rules)]).await;
        assert_eq!(status(&ask(listen, "shop", "/fast", "").await.0), 504);
        stop(proxy).await;
    });
}

#[test]
fn a_rule_has_retries_of_its_own() {
    block_on(async {
        let ill = App::start(|_| async {
            let response = Response::builder().status(503);
            response.body(http_body_util::Full::from("ill")).unwrap()
        })
        .await;
        let well = App::named("well").await;
        let entry = format!(
            "service: shop, destinations: [{{address: {}}}, {{address: {}}}], \
             rules: [{{path: {{prefix: /again}}, cluster: shop, retries: {{on: [503]}}}}]",
            ill.address, well.address
        );
        let (proxy, listen) = sharing("", &[entry]).await;
        let mut others = Vec::new();
        for _ in 0..4 {
            assert_eq!(ask(listen, "shop", "/again", "").await.1, "well");
            others.push(ask(listen, "shop", "/", "").await.1);
            others.push(ask(listen, "shop", "/", "").await.1);
        }
        assert!(others.contains(&"ill".to_owned()), "{others:?}");
        stop(proxy).await;
    });
}

#[test]
fn an_endpoint_that_a_reload_moves_to_another_cluster_keeps_its_connections() {
    block_on(async {
        let (one, two) = (App::named("one").await, App::named("two").await);
        let listen = nobody().await;
        let text = |own: &App, canary: &App| {
            let to_canary = "rules: [{headers: [{name: x-canary}], cluster: canary}]";
            format!("outbound: [{{listen: {listen}, {}}}]\n", shop(own, canary, to_canary))
        };
        let following = Following::start(&text(&one, &two));
        let mut stream = TcpStream::connect(listen).await.unwrap();
        let mut ask = async |headers: &str| {
            let request = format!("GET / HTTP/1.1\r\nHost: shop\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            read_answer(&mut stream).await.1
        };
        assert_eq!(
            (ask("").await, ask("x-canary: 1\r\n").await),
            ("one".into(), "two".into())
        );
        following.follow(&text(&two, &one));
        assert_eq!(
            (ask("").await, ask("x-canary: 1\r\n").await),
            ("two".into(), "one".into())
        );
        assert_eq!((one.connections(), two.connections()), (1, 1));
        stop(following.proxy).await;
    });
}

#[test]
fn rules_that_lead_nowhere_or_are_never_reached_are_refused_with_their_line() {
    let of = |rules: &str| {
        let entry = format!(
            "service: shop, destinations: [{{address: 127.0.0.1:9}}], clusters: [{{name: canary, destinations: [{{address: 127.0.0.1:8}}]}}], \
             rules: [{rules}\n    ]"
        );
        message(&[&entry])
    };
    let never = "proxy.yaml:5: this rule of shop is never reached, because outbound[0].rules[0] takes all of its requests: move it \
                 before that one, or remove it";
    for (first, second, expected) in [
        ("cluster: canary", "path: {exact: /a}, cluster: shop", never),
        (
            "path: {prefix: /a}, cluster: canary",
            "path: {exact: /a/b}, methods: [GET], cluster: shop",
            never,
        ),
        (
            "path: {prefix: /a}, cluster: canary",
            "path: {exact: /ab}, cluster: shop",
            "",
        ),
        (
            "headers: [{name: x-a, prefix: te}], cluster: canary",
            "headers: [{name: X-A, exact: test}, {name: x-b}], cluster: shop",
            never,
        ),
        ("methods: [GET], cluster: canary", "cluster: shop", ""),
        ("cluster_header: x-cluster", "cluster: canary", ""),
        (
            "cluster: canray",
            "path: {exact: /a}, cluster: canary",
            "proxy.yaml:4: unknown cluster `canray`: did you mean `canary`? (clusters here: shop, canary)",
        ),
        (
            "path: {prefix: api}, cluster: canary",
            "cluster: canary",
            "proxy.yaml:4: `api` is not a path: use, for example, `/api`, and `query` for parameters",
        ),
        (
            "methods: [get], cluster: canary",
            "cluster: canary",
            "proxy.yaml:4: `get` is not a method: use, for example, `GET`",
        ),
        (
            "path: {exact: /a}",
            "cluster: canary",
            "proxy.yaml:4: this rule has no destination: add, for example, `cluster: canary`",
        ),
        (
            "query: [{name: a}], split: [{cluster: canary, weight: 0}]",
            "cluster: canary",
            "proxy.yaml:4: every share has weight 0: give at least one a `weight` above 0",
        ),
    ] {
        let said = of(&format!("\n      {{{first}}},\n      {{{second}}}"));
        // Where the first line is wrong in several ways the first message counts.
        assert!(
            if expected.is_empty() {
                said.is_empty()
            } else {
                said.contains(expected)
            },
            "{first} | {second}: {said}"
        );
    }
    assert_eq!(
        message(&[
            "service: a, destinations: [{address: 127.0.0.1:9}]",
            "service: b, hosts: [], destinations: [{address: 127.0.0.1:8}]"
        ]),
        "proxy.yaml:4: no request reaches b: list its `hosts`, or name it in a rule of another entry of 127.0.0.1:1"
    );
}

/// Leads everything to the canary while it is told to, and some always to nobody.
#[derive(Debug, Default)]
struct Chooser(AtomicBool);

impl ChooseCluster for Chooser {
    fn choose(&self, asked: &Asked<'_>) -> Choice {
        assert!(asked.service == "shop" && asked.caller.is_loopback());
        if asked.head.headers.contains_key("x-stranger") {
            return Choice::Cluster("unheard-of".to_owned().into());
        }
        match self.0.load(Ordering::SeqCst) {
            true => Choice::Cluster("canary".into()),
            false => Choice::Configured,
        }
    }
}

#[test]
fn code_chooses_before_rules_do_and_changes_its_mind_while_the_proxy_runs() {
    block_on(async {
        let (own, canary, ruled) = (
            App::named("own").await,
            App::named("canary").await,
            App::named("ruled").await,
        );
        let rules = "rules: [{path: {exact: /ruled}, cluster: ruled}]";
        let entries = format!(
            "outbound:\n  - {{listen: 127.0.0.1:1, {}}}\n  - {{listen: 127.0.0.1:1, service: ruled, hosts: [], destinations: [{{address: {}}}]}}\n",
            shop(&own, &canary, rules),
            ruled.address
        );
        let text = yaml("front", &entries).replace("127.0.0.1:1,", &format!("{},", nobody().await));
        let chooser = Arc::new(Chooser::default());
        let extensions = Extensions {
            chooser: Some(Arc::clone(&chooser) as Arc<dyn ChooseCluster>),
            ..Extensions::default()
        };
        let config = config::parse("test.yaml".as_ref(), &text).unwrap();
        let proxy = Proxy::start_with(config, None, extensions).unwrap();
        let listen = proxy.addresses().outbound[0];
        let both = async || {
            (
                ask(listen, "a", "/", "").await.1,
                ask(listen, "a", "/ruled", "").await.1,
            )
        };
        assert_eq!(both().await, ("own".into(), "ruled".into()));
        chooser.0.store(true, Ordering::SeqCst);
        assert_eq!(both().await, ("canary".into(), "canary".into()));
        chooser.0.store(false, Ordering::SeqCst);
        assert_eq!(both().await, ("own".into(), "ruled".into()));
        let (head, _) = ask(listen, "a", "/", "x-stranger: 1\r\n").await;
        assert_eq!(
            (status(&head), header(&head, "x-emberline-error")),
            (503, Some("no_cluster"))
        );
        stop(proxy).await;
    });
}
