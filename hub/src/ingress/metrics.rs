//! What the HTTP API counts about itself, in the Prometheus text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};

/// Upper bounds of the latency buckets. *Units*: seconds.
const BUCKETS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

/// Counters of one listener. Bounded: routes, methods and statuses are closed sets.
#[derive(Default)]
pub(super) struct Counts(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    requests: BTreeMap<(String, &'static str, u16), u64>,
    latencies: BTreeMap<String, Latency>,
}

#[derive(Default)]
struct Latency {
    /// Requests up to each bound, and beyond the last.
    buckets: [u64; BUCKETS.len() + 1],
    sum_s: f64,
}

/// What is true at the moment of asking.
pub(super) struct Gauges {
    pub(super) connections: usize,
    pub(super) streams: usize,
}

impl Counts {
    /// Counts one request; `route` is the pattern that matched and never the path itself.
    pub(super) fn record(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            _ => "other",
        };
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *inner.requests.entry((route.to_owned(), method, status.as_u16())).or_default() += 1;
        let latency = inner.latencies.entry(route.to_owned()).or_default();
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        latency.buckets[bucket] += 1;
        latency.sum_s += seconds;
    }

    /// Appends the text. Writing into a String cannot fail, so its results are dropped.
    pub(super) fn render(&self, gauges: &Gauges, out: &mut String) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.push_str("# HELP tessera_http_requests_total Requests answered.\n# TYPE tessera_http_requests_total counter\n");
        for ((route, method, status), count) in &inner.requests {
            let _ = writeln!(
                out,
                "tessera_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}} {count}"
            );
        }
        let name = "tessera_http_request_seconds";
        let _ = writeln!(out, "# HELP {name} Time to the head of the answer.\n# TYPE {name} histogram");
        for (route, latency) in &inner.latencies {
            let mut up_to = 0;
            for (bound, count) in BUCKETS.iter().zip(latency.buckets) {
                up_to += count;
                let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {up_to}");
            }
            let all: u64 = latency.buckets.iter().sum();
            let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {all}");
            let _ = writeln!(out, "{name}_sum{{route=\"{route}\"}} {}", latency.sum_s);
            let _ = writeln!(out, "{name}_count{{route=\"{route}\"}} {all}");
        }
        let _ = write!(
            out,
            "# HELP tessera_http_connections Open connections.\n# TYPE tessera_http_connections gauge\n\
             tessera_http_connections {}\n\
             # HELP tessera_http_event_streams Open event streams.\n# TYPE tessera_http_event_streams gauge\n\
             tessera_http_event_streams {}\n",
            gauges.connections, gauges.streams
        );
    }
}
