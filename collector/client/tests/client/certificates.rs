//! Each certificate that cannot be used is named, with what to do; those that can are used.

use std::path::Path;

use emberline_client::{Address, Client, Connector, Speaks, Tls, TlsError};
use emberline_terminator::{Authority, Certified, Fault, Terminator};
use tokio::io::AsyncWriteExt;

use crate::support::{ask, hello, refusal};

/// Settings that trust a CA.
fn trusting(folder: &Path, authority: &Authority) -> Tls {
    let ca_file = folder.join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    Tls {
        ca_file: Some(ca_file),
        ..Tls::default()
    }
}

fn with_own(tls: &Tls, folder: &Path, own: &Certified) -> Tls {
    let (cert, key) = own.write(folder, "own");
    Tls {
        cert_file: Some(cert),
        key_file: Some(key),
        ..tls.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_trusted_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::named("the CA");
    let tls = trusting(folder.path(), &authority);
    let backend = hello().await;
    let good = authority.certificate(&["localhost", "127.0.0.1"]);
    let terminator = Terminator::start(backend, &good, None);
    let client = Client::new(&tls).unwrap();
    assert_eq!(ask(&client, &terminator.url("localhost")).await.unwrap(), "hello");
    assert_eq!(ask(&client, &terminator.url("127.0.0.1")).await.unwrap(), "hello");

    let url = terminator.url("localhost");
    let stranger = Authority::new().certificate(&["localhost"]);
    let renewed = Authority::named("the CA").certificate(&["localhost"]);
    for (certificate, words) in [
        (
            authority.faulty(&["localhost"], Fault::Expired),
            &["expired on", "03 Feb 2021", "renew"][..],
        ),
        (
            authority.faulty(&["localhost"], Fault::NotYetValid),
            &["not valid before", "4000", "clock"],
        ),
        (
            authority.certificate(&["shop.example", "*.shop.example", "10.0.0.1"]),
            &[
                "not for `localhost`: it is for shop.example, *.shop.example, 10.0.0.1;",
                "`server_name`",
            ],
        ),
        (authority.certificate(&[]), &["has no name in subjectAltName"]),
        (
            stranger,
            &["not signed by a CA in `ca_file`", "add its CA's certificate"],
        ),
        (renewed, &["has a new key", "`ca_file`"]),
        (
            authority.faulty(&["localhost"], Fault::OfCa),
            &["is a CA certificate", "CA:FALSE"],
        ),
    ] {
        terminator.renew(&certificate, None);
        let error = ask(&client, &url).await.unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }

    // A name that is set stands for that of the address.
    terminator.renew(&authority.certificate(&["shop.example"]), None);
    let named = |name: &str| Tls {
        server_name: Some(name.to_owned()),
        ..tls.clone()
    };
    let client = Client::new(&named("shop.example")).unwrap();
    assert_eq!(ask(&client, &url).await.unwrap(), "hello");
    let error = refusal(&named("other.example"), &url).await;
    assert!(
        error.contains("not for `other.example`: it is for shop.example; correct `server_name`"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_demanded_is_sent_or_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let tls = trusting(folder.path(), &authority);
    let backend = hello().await;
    let terminator = Terminator::start(backend, &authority.certificate(&["localhost"]), Some(&authority));
    let url = terminator.url("localhost");

    // In TLS 1.3 the refusal comes when the handshake is over here, and may be met by a write or by a read.
    for _ in 0..200 {
        let error = refusal(&tls, &url).await;
        assert!(
            error.contains("requires a client certificate") && error.contains("`cert_file`"),
            "{error}"
        );
    }
    let own = with_own(&tls, folder.path(), &authority.certificate(&["proxy"]));
    assert_eq!(ask(&Client::new(&own).unwrap(), &url).await.unwrap(), "hello");

    for (own, words) in [
        (
            Authority::new().certificate(&["proxy"]),
            "signed by a CA that the server trusts",
        ),
        (authority.faulty(&["proxy"], Fault::Expired), "it has expired"),
    ] {
        let error = refusal(&with_own(&tls, folder.path(), &own), &url).await;
        assert!(error.contains("`cert_file`") && error.contains(words), "{error}");
    }
}

/// A server in TLS 1.3 refuses a certificate after the client's handshake, and closes: whoever writes then meets a broken pipe, with
/// the reason still to be read. Unless the server's system resets the connection, which takes the reason with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_connection_that_was_refused_says_why_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let strange = Authority::new().certificate(&["proxy"]);
    let tls = with_own(&trusting(folder.path(), &authority), folder.path(), &strange);
    let certificate = authority.certificate(&["localhost"]);
    let terminator = Terminator::start(hello().await, &certificate, Some(&authority));
    let address = Address::parse(&terminator.url("localhost")).unwrap();
    let connector = Connector::new(&tls, Speaks::Http1).unwrap();
    let mut told = 0;
    for _ in 0..50 {
        let mut stream = connector.connect(&address).await.unwrap();
        // Nothing is read here: only writes meet the end.
        let error = loop {
            let written = match stream.write_all(b"GET / HTTP/1.1\r\n").await {
                Ok(()) => stream.flush().await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error.to_string(),
            }
        };
        let says_why = error.contains("signed by a CA that the server trusts");
        told += usize::from(says_why);
        assert!(says_why || error.contains("the TLS connection was lost"), "{error}");
    }
    assert!(told > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_change_are_read_again_and_those_that_break_are_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let tls = with_own(
        &trusting(folder.path(), &old),
        folder.path(),
        &old.certificate(&["proxy"]),
    );
    let backend = hello().await;
    let terminator = Terminator::start(backend, &old.certificate(&["localhost"]), Some(&old));
    let url = terminator.url("localhost");
    let client = Client::new(&tls).unwrap();
    assert_eq!(ask(&client, &url).await.unwrap(), "hello");

    // A certificate that is there before its key: the pair from before stays in use.
    let renewed = old.certificate(&["proxy"]);
    std::fs::write(tls.cert_file.as_ref().unwrap(), &renewed.cert).unwrap();
    assert_eq!(ask(&client, &url).await.unwrap(), "hello");
    std::fs::write(tls.key_file.as_ref().unwrap(), &renewed.key).unwrap();
    assert_eq!(ask(&client, &url).await.unwrap(), "hello");

    // The server moves to another CA, then we do.
    terminator.renew(&new.certificate(&["localhost"]), Some(&new));
    let error = ask(&client, &url).await.unwrap_err().to_string();
    assert!(error.contains("`ca_file`"), "{error}");
    let next = new.certificate(&["proxy"]);
    std::fs::write(tls.cert_file.as_ref().unwrap(), &next.cert).unwrap();
    std::fs::write(tls.key_file.as_ref().unwrap(), &next.key).unwrap();
    // Moved into its place, as a mounted secret is.
    let staged = folder.path().join("staged.pem");
    std::fs::write(&staged, new.pem()).unwrap();
    std::fs::rename(&staged, tls.ca_file.as_ref().unwrap()).unwrap();
    assert_eq!(ask(&client, &url).await.unwrap(), "hello");
}

#[test]
fn settings_that_cannot_work_name_the_setting_and_show_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let authority = Authority::new();
    let (one, other) = (authority.certificate(&["a"]), authority.certificate(&["b"]));
    let secret = one.key.lines().nth(1).unwrap();
    let (cert, key) = (write("one.crt", &one.cert), write("one.key", &one.key));
    let own = |cert_file: &Option<std::path::PathBuf>, key_file: &Option<std::path::PathBuf>| Tls {
        cert_file: cert_file.clone(),
        key_file: key_file.clone(),
        ca_file: write("ca.pem", &authority.pem()),
        ..Tls::default()
    };
    let ca = |ca_file| Tls {
        ca_file,
        ..Tls::default()
    };
    let damaged = one.key.replace("-----END", "-----FIN");
    for (tls, words) in [
        (ca(Some(folder.path().join("none.pem"))), "cannot read `ca_file`"),
        (ca(write("text.pem", "hello")), "`ca_file`"),
        (ca(key.clone()), "contains no PEM certificate"),
        (
            ca(write("huge.pem", &" ".repeat(5 << 20))),
            "too large for a certificate file",
        ),
        (own(&cert, &None), "`cert_file` is set without `key_file`"),
        (own(&None, &key), "`key_file` is set without `cert_file`"),
        (
            own(&cert, &write("other.key", &other.key)),
            "does not match `cert_file`",
        ),
        (own(&cert, &cert), "contains no readable PEM private key"),
        (
            own(&cert, &write("damaged.key", &damaged)),
            "contains no readable PEM private key",
        ),
        (
            Tls {
                server_name: Some("a b".to_owned()),
                ..Tls::default()
            },
            "`server_name: a b`",
        ),
    ] {
        let error: TlsError = Client::new(&tls).map(|_| ()).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(Client::new(&own(&cert, &key)).is_ok());
    let client = Client::new(&own(&cert, &key)).unwrap();
    assert!(!format!("{client:?}").contains(secret));
}
