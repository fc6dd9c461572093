//! The access log of a proxy: what is in it of requests that went well, failed, or never became one.

use std::path::Path;

use serde_json::Value;

use super::support::*;

fn log(path: &Path, more: &str) -> String {
    format!("access_log: {{path: {}{more}}}\n", path.display())
}

/// The entries, once there are so many.
async fn entries(path: &Path, count: usize) -> Vec<Value> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually("the entries", || read().lines().count() >= count).await;
    let text = read();
    assert_eq!(text.lines().count(), count, "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_entry_says_who_asked_what_of_whom_and_how_it_ended() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let app = App::named("fine").await;
        let nobody = refusing();
        let proxy = proxy(&yaml(
            "front",
            &format!(
                "{}routes: [\"/item/{{id}}\"]\ninbound: [{{listen: 127.0.0.1:0, to: {}}}]\n\
                 outbound: [{{listen: 127.0.0.1:0, service: away, destinations: [{{address: {nobody}}}]}}]",
                log(&path, ""),
                app.address
            ),
        ));
        let inbound = proxy.addresses().inbound[0];
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = format!("user-agent: a \"quoted\" one\r\nx-request-id: r-1\r\ntraceparent: {trace}\r\n");
        assert_eq!(get_with(inbound, "/item/7?x=1", &headers).await.1, "fine");
        assert_eq!(status(&get(proxy.addresses().outbound[0], "/pay").await.0), 503);
        let smuggled = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(status(&send_raw(inbound, smuggled).await), 400);
        let entries = entries(&path, 3).await;
        let (fine, away, refused) = (&entries[0], &entries[1], &entries[2]);
        for (key, value) in [
            ("side", "inbound"),
            ("method", "GET"),
            ("path", "/item/7?x=1"),
            ("protocol", "http/1.1"),
            ("response_flags", "-"),
            ("response_code_details", ""),
            ("user_agent", "a \"quoted\" one"),
            ("request_id", "r-1"),
            ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
            ("authority", "test"),
            ("downstream_remote_address", "127.0.0.1"),
            ("route_name", "/item/{id}"),
        ] {
            assert_eq!(fine[key], value, "{key}: {fine:#}");
        }
        assert_eq!(fine["upstream_host"], app.address.to_string());
        assert_eq!(
            (fine["response_code"].as_u64(), fine["bytes_sent"].as_u64()),
            (Some(200), Some(4))
        );
        assert!(
            fine["duration"].as_f64() >= fine["upstream_service_time"].as_f64(),
            "{fine:#}"
        );
        assert!(chrono::DateTime::parse_from_rfc3339(fine["start_time"].as_str().unwrap()).is_ok());
        assert_eq!(
            (&away["side"], &away["response_flags"], &away["response_code_details"]),
            (&"outbound".into(), &"UF".into(), &"upstream_connection_failure".into()),
            "{away:#}"
        );
        assert_eq!(
            (&away["upstream_host"], &away["route_name"]),
            (&nobody.to_string().into(), &"other".into())
        );
        assert_eq!(refused["response_flags"], "DPE", "{refused:#}");
        stop(proxy).await;
    });
}

#[test]
fn what_failed_is_written_whatever_the_share_is() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let app = App::start(|request| async move {
            let fails = request.uri().path() == "/fails";
            let status = if fails { 500 } else { 200 };
            http::Response::builder().status(status).body("x".into()).unwrap()
        })
        .await;
        let proxy = proxy(&yaml(
            "front",
            &format!(
                "{}inbound: [{{listen: 127.0.0.1:0, to: {}}}]",
                log(&path, ", sampled: 0"),
                app.address
            ),
        ));
        for _ in 0..20 {
            get(proxy.addresses().inbound[0], "/fine").await;
        }
        get(proxy.addresses().inbound[0], "/fails").await;
        stop(proxy).await;
        let entries = entries(&path, 1).await;
        assert_eq!(
            (&entries[0]["path"], &entries[0]["response_code"]),
            (&"/fails".into(), &500.into())
        );
    });
}

#[test]
fn connections_are_entries_in_text_too_and_a_moved_file_is_begun_anew() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let app = super::tcp::echo().await;
        let proxy = proxy(&yaml(
            "front",
            &format!(
                "{}inbound: [{{listen: 127.0.0.1:0, to: {app}, protocol: tcp}}]",
                log(&path, ", format: text")
            ),
        ));
        let once = async || {
            let mut stream = tokio::net::TcpStream::connect(proxy.addresses().inbound[0])
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello")
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
            let mut back = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut back)
                .await
                .unwrap();
            assert_eq!(back, "hello");
        };
        once().await;
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        eventually("the first line", || read(&path).ends_with('\n')).await;
        std::fs::rename(&path, &moved).unwrap();
        once().await;
        eventually("the second line", || read(&path).ends_with('\n')).await;
        stop(proxy).await;
        for text in [read(&moved), read(&path)] {
            let said = text.contains("\"- - tcp\" 0 - 5 5 ");
            assert!(text.lines().count() == 1 && said, "{text}");
            assert!(
                text.trim_end()
                    .ends_with(&format!("\"127.0.0.1\" \"-\" \"-\" \"-\" \"{app}\"")),
                "{text}"
            );
        }
    });
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_that_names_it() {
    let text = yaml(
        "front",
        "access_log: {path: /nowhere/at/all.log}\ninbound: [{listen: 127.0.0.1:0, to: 127.0.0.1:1}]",
    );
    let config = emberline_proxy::config::parse("test.yaml".as_ref(), &text).unwrap();
    let error = emberline_proxy::Proxy::start(config, None).unwrap_err().to_string();
    assert!(
        error.contains("/nowhere/at/all.log") && error.contains("access_log.path"),
        "{error}"
    );
}
