//! When a server should stop: at a signal, or when the process that started it is gone.

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at SIGTERM and at Ctrl-C; with `stdin_too` also when standard input ends, so that a program does not
/// outlive its parent, which holds the other end. Needs a tokio runtime with I/O.
pub async fn stop_requested(stdin_too: bool) {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            // Without a handler, the signal ends the process anyway.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        _ = tokio::signal::ctrl_c() => {}
        () = stdin_closed(), if stdin_too => {}
    }
}

/// Resolves when standard input has ended.
pub async fn stdin_closed() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // A thread of its own: a read of standard input cannot be interrupted, and the runtime would wait for it.
    std::thread::spawn(move || {
        let copied = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(copied);
        ended.send(())
    });
    if end.await.is_err() {
        std::future::pending::<()>().await;
    }
}
