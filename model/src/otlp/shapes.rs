//! The weight of OTLP messages in memory ([`crate::weight`]): profiles of all generations in one shape, and metrics.
//!
//! Guarantees: every repeated element that the decoders read is listed under each number it has in any generation, with
//! what the decoder and the reader after it keep of it.

use crate::weight::{NUMBERS, Shape, TEXT, TooHeavy, weigh};

const fn shape(each: u64, fields: &'static [(u64, &'static Shape)]) -> Shape {
    Shape {
        each,
        per_byte: 0,
        fields,
    }
}

/// Elements that are a message in one generation and a packed list in another.
static EITHER: Shape = Shape {
    each: 200,
    per_byte: 12,
    fields: &[],
};

static ANY_VALUE: Shape = shape(80, &[(1, &TEXT), (5, &VALUES), (6, &ATTRIBUTES), (7, &TEXT)]);
static VALUES: Shape = shape(64, &[(1, &ANY_VALUE)]);
static ATTRIBUTES: Shape = shape(64, &[(1, &ATTRIBUTE)]);
static ATTRIBUTE: Shape = shape(180, &[(1, &TEXT), (2, &ANY_VALUE)]);
static RESOURCE: Shape = shape(64, &[(1, &ATTRIBUTE), (3, &EITHER)]);
static SCOPE: Shape = shape(160, &[(1, &TEXT), (2, &TEXT), (3, &ATTRIBUTE)]);

static PROFILES: Shape = shape(0, &[(1, &RESOURCE_PROFILES), (2, &DICTIONARY)]);
static RESOURCE_PROFILES: Shape = shape(300, &[(1, &RESOURCE), (2, &SCOPE_PROFILES), (3, &TEXT)]);
static SCOPE_PROFILES: Shape = shape(400, &[(1, &SCOPE), (2, &PROFILE), (3, &TEXT)]);
static PROFILE: Shape = shape(
    1200,
    &[
        (1, &EITHER),
        (2, &SAMPLE),
        (3, &EITHER),
        (4, &LOCATION),
        (5, &EITHER),
        (6, &EITHER),
        (7, &ATTRIBUTE),
        (8, &EITHER),
        (9, &EITHER),
        (10, &TEXT),
        (11, &NUMBERS),
        (14, &NUMBERS),
        (22, &NUMBERS),
    ],
);
static SAMPLE: Shape = shape(
    320,
    &[
        (2, &NUMBERS),
        (3, &NUMBERS),
        (4, &NUMBERS),
        (5, &NUMBERS),
        (6, &NUMBERS),
    ],
);
static DICTIONARY: Shape = shape(
    200,
    &[
        (1, &MAPPING),
        (2, &LOCATION),
        (3, &FUNCTION),
        (4, &LINK),
        (5, &TEXT),
        (6, &ATTRIBUTE),
        (7, &STACK),
    ],
);
static MAPPING: Shape = shape(200, &[(5, &NUMBERS), (6, &NUMBERS)]);
static LOCATION: Shape = shape(200, &[(3, &LINE), (4, &LINE), (5, &NUMBERS), (6, &NUMBERS)]);
static LINE: Shape = shape(64, &[]);
static FUNCTION: Shape = shape(64, &[]);
static LINK: Shape = shape(100, &[(1, &TEXT), (2, &TEXT)]);
static STACK: Shape = shape(64, &[(1, &NUMBERS)]);

static METRICS: Shape = shape(0, &[(1, &RESOURCE_METRICS)]);
static RESOURCE_METRICS: Shape = shape(300, &[(1, &RESOURCE), (2, &SCOPE_METRICS), (3, &TEXT)]);
static SCOPE_METRICS: Shape = shape(400, &[(1, &SCOPE), (2, &METRIC), (3, &TEXT)]);
static METRIC: Shape = shape(
    500,
    &[
        (1, &TEXT),
        (2, &TEXT),
        (3, &TEXT),
        (5, &POINTS),
        (7, &POINTS),
        (9, &POINTS),
        (10, &POINTS),
        (11, &POINTS),
        (12, &ATTRIBUTE),
    ],
);
static POINTS: Shape = shape(64, &[(1, &POINT)]);
/// Numbers, histograms, exponential histograms and summaries; includes the series created from the point.
static POINT: Shape = shape(
    700,
    &[
        (1, &ATTRIBUTE),
        (5, &EITHER),
        (6, &EITHER),
        (7, &ATTRIBUTE),
        (8, &EITHER),
        (9, &ATTRIBUTE),
        (11, &EITHER),
    ],
);

/// Weighs a profiles request of any generation.
pub fn weigh_profiles(bytes: &[u8], limit: u64) -> Result<u64, TooHeavy> {
    weigh(bytes, &PROFILES, limit)
}

/// Weighs a metrics request.
pub fn weigh_metrics(bytes: &[u8], limit: u64) -> Result<u64, TooHeavy> {
    weigh(bytes, &METRICS, limit)
}
