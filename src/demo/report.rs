//! Progress, as sentences or as one JSON object per line.

use std::{collections::HashSet, io::Write, time::Duration};

use emberline_model::alert::Alert;
use serde_json::{Value, json};

use crate::cli::Output;

/// Events reported in both forms.
pub(crate) enum Event {
    /// The server is ready.
    Ready {
        /// URL of its pages.
        url: String,
    },
    /// A release is serving.
    Release {
        /// The service.
        service: String,
        /// Its version.
        version: String,
    },
    /// The regression in the second release.
    Planted {
        /// The service.
        service: String,
        /// The route made slower.
        route: String,
    },
    /// The end.
    Done,
}

/// Writes to standard output; notes go to standard error in the JSON form.
pub(crate) struct Reporter {
    output: Output,
    stated: HashSet<String>,
}

impl Reporter {
    pub(crate) fn new(output: Output) -> Reporter {
        Reporter {
            output,
            stated: HashSet::new(),
        }
    }

    pub(crate) fn say(&mut self, event: &Event) {
        let (text, json) = match event {
            Event::Ready { url } => (
                format!("Emberline is ready: {url}"),
                json!({ "event": "ready", "url": url }),
            ),
            Event::Release { service, version } => (
                format!("Release {service} {version} is serving."),
                json!({ "event": "release", "service": service, "version": version }),
            ),
            Event::Planted { service, route } => (
                format!("A regression is planted in {service} on {route}; a verdict usually takes a minute or two."),
                json!({ "event": "planted", "service": service, "route": route }),
            ),
            Event::Done => ("Done.".to_owned(), json!({ "event": "done" })),
        };
        self.line(&text, &json);
    }

    /// Progress without an event of its own.
    pub(crate) fn note(&self, text: &str) {
        match self.output {
            Output::Text => println!("{text}"),
            Output::Json => eprintln!("{text}"),
        }
    }

    /// Reports an alert once.
    pub(crate) fn verdict(&mut self, alert: &Alert, base: &str, elapsed: Duration) {
        if !self.stated.insert(alert.id.clone()) {
            return;
        }
        let url = format!("{base}{}", alert.diff_url);
        let at_seconds = (elapsed.as_secs_f64() * 10.0).round() / 10.0;
        let json = json!({
            "event": "verdict",
            "service": alert.service,
            "baseline": alert.baseline,
            "candidate": alert.candidate,
            "route": alert.route,
            "function": alert.function.as_ref().map(|function| &function.name),
            "at_seconds": at_seconds,
            "url": url,
        });
        self.line(&format!("After {at_seconds} s: {}\n  {url}", alert.sentence), &json);
    }

    fn line(&self, text: &str, json: &Value) {
        let mut out = std::io::stdout().lock();
        let written = match self.output {
            Output::Text => writeln!(out, "{text}"),
            Output::Json => writeln!(out, "{json}"),
        };
        // A closed output is no reason to stop the demo.
        let _ = written.and_then(|()| out.flush());
    }
}
