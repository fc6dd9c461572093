//! Without `ca_file` the system's roots decide, and `SSL_CERT_FILE` names them: read by a process of its own, since a process
//! reads its environment once.

use std::process::Command;

use emberline_client::{Client, Tls};
use emberline_terminator::{Authority, Terminator};

use crate::support::{ask, hello};

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_roots_decide_without_a_ca_file() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    let others = folder.path().join("others.pem");
    std::fs::write(&others, Authority::new().pem()).unwrap();
    let terminator = Terminator::start(hello().await, &authority.certificate(&["localhost"]), None);
    for (file, said) in [
        (&roots, "hello"),
        (&others, "does not trust: set `ca_file`"),
        (&folder.path().join("none.pem"), "no CA certificates"),
    ] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "system_roots::asks_with_the_systems_roots",
                "--ignored",
                "--nocapture",
            ])
            .env("SSL_CERT_FILE", file)
            .env_remove("SSL_CERT_DIR")
            .env("EMBERLINE_TEST_URL", terminator.url("localhost"))
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&output.stdout);
        assert!(output.contains(said), "{said}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of the test above"]
async fn asks_with_the_systems_roots() {
    let client = Client::new(&Tls::default()).unwrap();
    match ask(&client, &std::env::var("EMBERLINE_TEST_URL").unwrap()).await {
        Ok(body) => println!("it said {}", String::from_utf8_lossy(&body)),
        Err(error) => println!("{error}"),
    }
}
