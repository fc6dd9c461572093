//! A plain server that answers the same to everybody, and one request to it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use emberline_client::{Address, Client, Error, Tls};
use http::Request;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Answers each connection with these bytes once it sent something, and closes it.
pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer: Vec<u8> = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                // Until the client has read it: to close with bytes unread would reset the connection.
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

/// A server that says hello.
pub(crate) async fn hello() -> SocketAddr {
    answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await
}

/// Asks; the body.
pub(crate) async fn ask(client: &Client, url: &str) -> Result<Bytes, Error> {
    let address = Address::parse(url).unwrap();
    let reply = client.send(&address, Request::new(Bytes::new()), PATIENCE).await?;
    reply.read(1024).await
}

/// Asks with settings; what is wrong.
pub(crate) async fn refusal(tls: &Tls, url: &str) -> String {
    match ask(&Client::new(tls).unwrap(), url).await {
        Ok(_) => panic!("{url} was reached"),
        Err(error) => error.to_string(),
    }
}
