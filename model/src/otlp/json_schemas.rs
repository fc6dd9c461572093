//! The JSON names of OTLP messages, with their protobuf numbers: profiles in the layout of 1.10 and later, metrics as
//! far as they are used here.
//!
//! Guarantees: only names with a meaning here are listed, all others are skipped. Layouts 1.8 and 1.9 differ from later
//! ones in numbers and in the singular of two names, which are listed, too.

use super::json::schema::{Field, Kind, Schema};

const fn one(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: false,
    }
}

const fn many(name: &'static str, number: u32, kind: Kind) -> Field {
    Field {
        name,
        number,
        kind,
        repeated: true,
    }
}

const OLD_LAYOUT: Kind = Kind::Refused(
    "belongs to OTLP profiles before 1.8, which are accepted as protobuf only: send protobuf, or update the sender",
);

static ANY_VALUE: Schema = Schema {
    name: "a value",
    fields: &[
        one("stringValue", 1, Kind::Text),
        one("boolValue", 2, Kind::Bool),
        one("intValue", 3, Kind::Varint),
        one("doubleValue", 4, Kind::Double),
        one("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
        one("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
        one("bytesValue", 7, Kind::Base64),
        one("stringValueStrindex", 8, Kind::Varint),
    ],
};

static ARRAY_VALUE: Schema = Schema {
    name: "a list of values",
    fields: &[many("values", 1, Kind::Message(&ANY_VALUE))],
};

static KEY_VALUE_LIST: Schema = Schema {
    name: "a list of attributes",
    fields: &[many("values", 1, Kind::Message(&KEY_VALUE))],
};

static KEY_VALUE: Schema = Schema {
    name: "an attribute",
    fields: &[
        one("key", 1, Kind::Text),
        one("value", 2, Kind::Message(&ANY_VALUE)),
        one("keyStrindex", 3, Kind::Varint),
    ],
};

static RESOURCE: Schema = Schema {
    name: "a resource",
    fields: &[many("attributes", 1, Kind::Message(&KEY_VALUE))],
};

pub(crate) static PROFILES_REQUEST: Schema = Schema {
    name: "a profiles request",
    fields: &[
        many("resourceProfiles", 1, Kind::Message(&RESOURCE_PROFILES)),
        one("dictionary", 2, Kind::Message(&DICTIONARY)),
    ],
};

static RESOURCE_PROFILES: Schema = Schema {
    name: "profiles of a resource",
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeProfiles", 2, Kind::Message(&SCOPE_PROFILES)),
    ],
};

static SCOPE_PROFILES: Schema = Schema {
    name: "profiles of a scope",
    fields: &[many("profiles", 2, Kind::Message(&PROFILE))],
};

static PROFILE: Schema = Schema {
    name: "a profile",
    fields: &[
        one("sampleType", 1, Kind::Message(&VALUE_TYPE)),
        many("samples", 2, Kind::Message(&SAMPLE)),
        many("sample", 2, Kind::Message(&SAMPLE)),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("durationNano", 4, Kind::Varint),
        one("periodType", 5, Kind::Message(&VALUE_TYPE)),
        one("period", 6, Kind::Varint),
        one("profileId", 7, Kind::Base64),
        many("attributeIndices", 11, Kind::Varint),
        one("timeNanos", 3, OLD_LAYOUT),
        one("locationIndices", 3, OLD_LAYOUT),
        one("locationTable", 3, OLD_LAYOUT),
    ],
};

static VALUE_TYPE: Schema = Schema {
    name: "a value type",
    fields: &[
        one("typeStrindex", 1, Kind::Varint),
        one("unitStrindex", 2, Kind::Varint),
    ],
};

static SAMPLE: Schema = Schema {
    name: "a sample",
    fields: &[
        one("stackIndex", 1, Kind::Varint),
        many("attributeIndices", 2, Kind::Varint),
        one("linkIndex", 3, Kind::Varint),
        many("values", 4, Kind::Varint),
        many("timestampsUnixNano", 5, Kind::Fixed64),
        one("locationsStartIndex", 1, OLD_LAYOUT),
        one("locationsLength", 1, OLD_LAYOUT),
        one("value", 1, OLD_LAYOUT),
    ],
};

static DICTIONARY: Schema = Schema {
    name: "the dictionary of profiles",
    fields: &[
        many("mappingTable", 1, Kind::Message(&MAPPING)),
        many("locationTable", 2, Kind::Message(&LOCATION)),
        many("functionTable", 3, Kind::Message(&FUNCTION)),
        many("linkTable", 4, Kind::Message(&LINK)),
        many("stringTable", 5, Kind::Text),
        many("attributeTable", 6, Kind::Message(&KEY_VALUE_AND_UNIT)),
        many("stackTable", 7, Kind::Message(&STACK)),
        many("attributeUnits", 7, OLD_LAYOUT),
    ],
};

static MAPPING: Schema = Schema {
    name: "a mapping",
    fields: &[
        one("memoryStart", 1, Kind::Varint),
        one("memoryLimit", 2, Kind::Varint),
        one("fileOffset", 3, Kind::Varint),
        one("filenameStrindex", 4, Kind::Varint),
        many("attributeIndices", 5, Kind::Varint),
    ],
};

static LOCATION: Schema = Schema {
    name: "a location",
    fields: &[
        one("mappingIndex", 1, Kind::Varint),
        one("address", 2, Kind::Varint),
        many("lines", 3, Kind::Message(&LINE)),
        many("line", 3, Kind::Message(&LINE)),
        many("attributeIndices", 4, Kind::Varint),
    ],
};

static LINE: Schema = Schema {
    name: "a line",
    fields: &[
        one("functionIndex", 1, Kind::Varint),
        one("line", 2, Kind::Varint),
        one("column", 3, Kind::Varint),
    ],
};

static FUNCTION: Schema = Schema {
    name: "a function",
    fields: &[
        one("nameStrindex", 1, Kind::Varint),
        one("systemNameStrindex", 2, Kind::Varint),
        one("filenameStrindex", 3, Kind::Varint),
        one("startLine", 4, Kind::Varint),
    ],
};

static LINK: Schema = Schema {
    name: "a link",
    fields: &[one("traceId", 1, Kind::Hex), one("spanId", 2, Kind::Hex)],
};

static KEY_VALUE_AND_UNIT: Schema = Schema {
    name: "an attribute of the dictionary",
    fields: &[
        one("keyStrindex", 1, Kind::Varint),
        one("value", 2, Kind::Message(&ANY_VALUE)),
        one("unitStrindex", 3, Kind::Varint),
    ],
};

static STACK: Schema = Schema {
    name: "a stack",
    fields: &[many("locationIndices", 1, Kind::Varint)],
};

pub(crate) static METRICS_REQUEST: Schema = Schema {
    name: "a metrics request",
    fields: &[many("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))],
};

static RESOURCE_METRICS: Schema = Schema {
    name: "metrics of a resource",
    fields: &[
        one("resource", 1, Kind::Message(&RESOURCE)),
        many("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
    ],
};

static SCOPE_METRICS: Schema = Schema {
    name: "metrics of a scope",
    fields: &[
        one("scope", 1, Kind::Message(&SCOPE)),
        many("metrics", 2, Kind::Message(&METRIC)),
    ],
};

static SCOPE: Schema = Schema {
    name: "a scope",
    fields: &[one("name", 1, Kind::Text)],
};

static METRIC: Schema = Schema {
    name: "a metric",
    fields: &[
        one("name", 1, Kind::Text),
        one("unit", 3, Kind::Text),
        one("gauge", 5, Kind::Message(&NUMBERS)),
        one("sum", 7, Kind::Message(&NUMBERS)),
        one("histogram", 9, Kind::Message(&HISTOGRAM)),
        one("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        one("summary", 11, Kind::Message(&OTHER_POINTS)),
    ],
};

const TEMPORALITIES: Kind = Kind::Enum(&[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
]);

/// A gauge has no temporality; senders omit it, and readers skip it.
static NUMBERS: Schema = Schema {
    name: "numbers",
    fields: &[
        many("dataPoints", 1, Kind::Message(&NUMBER)),
        one("aggregationTemporality", 2, TEMPORALITIES),
        one("isMonotonic", 3, Kind::Bool),
    ],
};

/// Points that are only counted, to report how many were dropped.
static OTHER_POINTS: Schema = Schema {
    name: "points",
    fields: &[many("dataPoints", 1, Kind::Message(&OTHER_POINT))],
};

static OTHER_POINT: Schema = Schema {
    name: "a point",
    fields: &[],
};

static NUMBER: Schema = Schema {
    name: "a number",
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("asDouble", 4, Kind::Double),
        one("asInt", 6, Kind::Fixed64),
        many("attributes", 7, Kind::Message(&KEY_VALUE)),
    ],
};

static HISTOGRAM: Schema = Schema {
    name: "a histogram",
    fields: &[
        many("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT)),
        one("aggregationTemporality", 2, TEMPORALITIES),
    ],
};

static HISTOGRAM_POINT: Schema = Schema {
    name: "a point of a histogram",
    fields: &[
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        many("bucketCounts", 6, Kind::Fixed64),
        many("explicitBounds", 7, Kind::Double),
        many("attributes", 9, Kind::Message(&KEY_VALUE)),
        one("flags", 10, Kind::Varint),
        one("min", 11, Kind::Double),
        one("max", 12, Kind::Double),
    ],
};

static EXPONENTIAL_HISTOGRAM: Schema = Schema {
    name: "an exponential histogram",
    fields: &[
        many("dataPoints", 1, Kind::Message(&EXPONENTIAL_POINT)),
        one("aggregationTemporality", 2, TEMPORALITIES),
    ],
};

static EXPONENTIAL_POINT: Schema = Schema {
    name: "a point of an exponential histogram",
    fields: &[
        many("attributes", 1, Kind::Message(&KEY_VALUE)),
        one("startTimeUnixNano", 2, Kind::Fixed64),
        one("timeUnixNano", 3, Kind::Fixed64),
        one("count", 4, Kind::Fixed64),
        one("sum", 5, Kind::Double),
        one("scale", 6, Kind::ZigZag),
        one("zeroCount", 7, Kind::Fixed64),
        one("positive", 8, Kind::Message(&BUCKETS)),
        one("negative", 9, Kind::Message(&BUCKETS)),
        one("flags", 10, Kind::Varint),
        one("min", 12, Kind::Double),
        one("max", 13, Kind::Double),
        one("zeroThreshold", 14, Kind::Double),
    ],
};

static BUCKETS: Schema = Schema {
    name: "buckets",
    fields: &[one("offset", 1, Kind::ZigZag), many("bucketCounts", 2, Kind::Varint)],
};
