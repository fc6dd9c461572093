//! Histograms of other scales than ours: no count is lost, and quantiles stay within a bucket of the sender.

use emberline_model::{Side, WorkloadWindow, otlp};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{ExponentialHistogramDataPoint, exponential_histogram_data_point::Buckets, metric::Data},
};
use proptest::prelude::*;

/// A request with one point.
fn request(change: impl FnOnce(&mut ExponentialHistogramDataPoint)) -> ExportMetricsServiceRequest {
    let mut duration = emberline_model::Histogram::new();
    duration.record_ns(1);
    let window = WorkloadWindow {
        workload: emberline_model::Workload {
            service: "shop".into(),
            ..emberline_model::Workload::default()
        },
        component: emberline_model::Component::Application,
        start_unix_s: 1_790_000_000,
        length_s: 10,
        has_requests: true,
        has_profiles: false,
        requests: vec![emberline_model::RequestSeries {
            side: Side::Server,
            route: "/a".into(),
            method: "GET".into(),
            peer: None,
            destination: String::new(),
            protocol: "http/1.1".into(),
            status: 200,
            error: false,
            duration,
            streaming_s: 0.0,
            request_bytes: 0,
            response_bytes: 0,
            open: 0,
        }],
        profiles: Vec::new(),
    };
    let mut request = otlp::encode_requests(&window);
    for metric in &mut request.resource_metrics[0].scope_metrics[0].metrics {
        if let Some(Data::ExponentialHistogram(histogram)) = &mut metric.data {
            change(&mut histogram.data_points[0]);
            return request;
        }
    }
    panic!("no histogram");
}

/// The bucket of a value at a scale, as the specification computes it.
fn index(value: f64, scale: i32) -> i32 {
    ((value.log2() * f64::from(scale).exp2()) - 1e-9).ceil() as i32 - 1
}

proptest! {
    #[test]
    fn no_count_is_lost_and_quantiles_stay_within_the_senders_bucket(
        values in prop::collection::vec(0.000_1f64..20.0, 1..60), scale in -3i32..12, with_extremes: bool,
    ) {
        let offset = values.iter().map(|&v| index(v, scale)).min().unwrap();
        let mut counts: Vec<u64> = Vec::new();
        for &value in &values {
            let at = (index(value, scale) - offset) as usize;
            counts.resize(counts.len().max(at + 1), 0);
            counts[at] += 1;
        }
        prop_assume!(counts.len() <= 10_000);
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(0.0, f64::max);
        let decoded = otlp::decode_metrics(request(|point| {
            point.scale = scale;
            point.count = values.len() as u64;
            point.sum = Some(values.iter().sum());
            point.min = with_extremes.then_some(min);
            point.max = with_extremes.then_some(max);
            point.positive = Some(Buckets { offset, bucket_counts: counts });
        }));
        let duration = &decoded.windows[0].requests[0].duration;
        prop_assert_eq!(duration.count(), values.len() as u64);
        if with_extremes {
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let width = f64::from(-scale.min(5)).exp2().exp2() * 1.0001;
            for q in [0.5, 0.9] {
                let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
                let (exact, read) = (sorted[rank - 1], duration.quantile(q).unwrap());
                prop_assert!(read <= exact * width && exact <= read * width, "{} for {} at scale {}", read, exact, scale);
            }
        }
    }
}

#[test]
fn every_scale_of_the_specification_is_taken() {
    for (scale, taken) in [
        (-11, false),
        (-10, true),
        (0, true),
        (1, true),
        (20, true),
        (21, false),
        (i32::MIN, false),
        (i32::MAX, false),
    ] {
        let decoded = otlp::decode_metrics(request(|point| point.scale = scale));
        let refused: Vec<_> = decoded
            .rejected
            .iter()
            .map(|r| (r.reason, r.shape, r.what.as_str()))
            .collect();
        if taken {
            assert!(refused.is_empty(), "{scale}: {refused:?}");
            assert_eq!(decoded.windows[0].requests[0].duration.count(), 1);
        } else {
            let expected = (
                "histogram_scale",
                "exponential histogram",
                "http.server.request.duration",
            );
            assert_eq!(refused, [expected], "{scale}");
        }
    }
}

/// A point of sixty bytes may stand for all buckets there are.
#[test]
fn what_a_request_may_unfold_to_is_bounded() {
    let one = request(|point| {
        point.scale = -10;
        point.min = None;
        point.max = None;
        point.positive = Some(Buckets {
            offset: -1,
            bucket_counts: vec![1 << 30, 1 << 30],
        });
    });
    let mut many = one;
    let metrics = &mut many.resource_metrics[0].scope_metrics[0].metrics;
    let Some(Data::ExponentialHistogram(histogram)) =
        &mut metrics.iter_mut().find(|m| m.name.starts_with("http")).unwrap().data
    else {
        panic!("no histogram");
    };
    let point = histogram.data_points[0].clone();
    histogram.data_points = vec![point; 100];
    let decoded = otlp::decode_metrics_within(many, 32 * 20_000);
    let made: usize = decoded.windows[0]
        .requests
        .iter()
        .map(|r| r.duration.buckets().len())
        .sum();
    assert!(made <= 20_000, "{made}");
    let taken = decoded.windows[0].requests.len() as u64;
    let named = otlp::Rejected::of("too_many_buckets", "http.server.request.duration", 100 - taken);
    assert_eq!(decoded.rejected, [named.sent_by("shop", "exponential histogram")]);
    assert!(taken > 5, "{taken}");
}
