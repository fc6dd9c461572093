//! OTLP in JSON: converted to protobuf while it is read, so that one decoder serves both.
//!
//! Guarantees: the mapping is that of the OTLP specification: `traceId` and `spanId` in hexadecimal, other bytes in
//! base64, 64-bit numbers as text or number, enumerations as numbers, unknown names ignored. The text is read once and
//! never held as a tree; the output is at most a small multiple of the input, and nesting is bounded.
//!
//! Wrong on purpose: names of the layouts before 1.8 are refused ([`JsonError`] says so); an enumeration given by name
//! is accepted although the specification forbids it.
//!
//! Source: OTLP specification 1.11, "JSON Protobuf Encoding"; proto3 JSON mapping.
//!
//! One file because it is one state machine: each kind of value is read straight into the buffer of the message that
//! contains it. Only the lists of fields are elsewhere, since they are data.

use base64::Engine as _;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

pub(crate) mod schema;

use self::schema::{Field, Kind, Schema};
use super::json_schemas::{METRICS_REQUEST, PROFILES_REQUEST};

/// Text that is not the JSON of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

/// Converts a profiles request.
pub fn profiles_to_protobuf(json: &[u8]) -> Result<Vec<u8>, JsonError> {
    to_protobuf(&PROFILES_REQUEST, json)
}

/// Converts a metrics request.
pub fn metrics_to_protobuf(json: &[u8]) -> Result<Vec<u8>, JsonError> {
    to_protobuf(&METRICS_REQUEST, json)
}

/// Converts the JSON of any message.
pub(crate) fn to_protobuf(schema: &'static Schema, json: &[u8]) -> Result<Vec<u8>, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let mut written = Vec::new();
    let seed = MessageSeed {
        schema,
        written: &mut written,
    };
    seed.deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| JsonError(format!("invalid JSON for {}: {error}", schema.name)))?;
    Ok(written)
}

const WIRE_VARINT: u32 = 0;
const WIRE_FIXED64: u32 = 1;
const WIRE_BYTES: u32 = 2;

fn put_varint(written: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        written.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    written.push(value as u8);
}

fn put_tag(written: &mut Vec<u8>, number: u32, wire: u32) {
    put_varint(written, u64::from(number << 3 | wire));
}

fn put_bytes(written: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(written, number, WIRE_BYTES);
    put_varint(written, bytes.len() as u64);
    written.extend_from_slice(bytes);
}

/// An object, written as the fields of a message.
struct MessageSeed<'w> {
    schema: &'static Schema,
    written: &'w mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an object ({})", self.schema.name)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(field) = map.next_key_seed(NameSeed(self.schema))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            map.next_value_seed(FieldSeed {
                field,
                written: &mut *self.written,
            })?;
        }
        Ok(())
    }
}

/// Finds a name without copying it.
struct NameSeed(&'static Schema);

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.fields.iter().find(|field| field.name == name))
    }
}

/// The value of a field, with its tag; `null` is the default and writes nothing.
struct FieldSeed<'w> {
    field: &'static Field,
    written: &'w mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Kind::Refused(why) = self.field.kind {
            return Err(de::Error::custom(format_args!("`{}` {why}", self.field.name)));
        }
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a value of `{}`", self.field.name)
    }

    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.field.repeated {
            return deserializer.deserialize_seq(ListVisitor(self));
        }
        OneSeed {
            field: self.field,
            written: self.written,
        }
        .deserialize(deserializer)
    }
}

/// All values of a repeated field.
struct ListVisitor<'w>(FieldSeed<'w>);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of `{}`", self.0.field.name)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        let FieldSeed { field, written } = self.0;
        let wire = match field.kind {
            Kind::Varint | Kind::ZigZag | Kind::Bool | Kind::Enum(_) => WIRE_VARINT,
            Kind::Fixed64 | Kind::Double => WIRE_FIXED64,
            _ => WIRE_BYTES,
        };
        if wire == WIRE_BYTES {
            loop {
                let seed = OneSeed {
                    field,
                    written: &mut *written,
                };
                if list.next_element_seed(seed)?.is_none() {
                    return Ok(());
                }
            }
        }
        // Numbers are packed: one tag, one length, then the values.
        let mut packed = Vec::new();
        while let Some(bits) = list.next_element_seed(BitsSeed(field))? {
            put_bits(&mut packed, wire, bits);
        }
        put_bytes(written, field.number, &packed);
        Ok(())
    }
}

fn put_bits(written: &mut Vec<u8>, wire: u32, bits: u64) {
    if wire == WIRE_FIXED64 {
        written.extend_from_slice(&bits.to_le_bytes());
    } else {
        put_varint(written, bits);
    }
}

/// One value with its tag.
struct OneSeed<'w> {
    field: &'static Field,
    written: &'w mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for OneSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let OneSeed { field, written } = self;
        match field.kind {
            Kind::Message(schema) => {
                let mut inner = Vec::new();
                let seed = MessageSeed {
                    schema,
                    written: &mut inner,
                };
                seed.deserialize(deserializer)?;
                put_bytes(written, field.number, &inner);
            }
            Kind::Text | Kind::Base64 | Kind::Hex => {
                let bytes = deserializer.deserialize_str(TextVisitor(field))?;
                put_bytes(written, field.number, &bytes);
            }
            Kind::Refused(why) => return Err(de::Error::custom(format_args!("`{}` {why}", field.name))),
            Kind::Varint | Kind::ZigZag | Kind::Bool | Kind::Enum(_) => {
                let bits = BitsSeed(field).deserialize(deserializer)?;
                put_tag(written, field.number, WIRE_VARINT);
                put_varint(written, bits);
            }
            Kind::Fixed64 | Kind::Double => {
                let bits = BitsSeed(field).deserialize(deserializer)?;
                put_tag(written, field.number, WIRE_FIXED64);
                written.extend_from_slice(&bits.to_le_bytes());
            }
        }
        Ok(())
    }
}

struct TextVisitor(&'static Field);

impl Visitor<'_> for TextVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.kind {
            Kind::Hex => write!(f, "hexadecimal text in `{}`", self.0.name),
            Kind::Base64 => write!(f, "base64 text in `{}`", self.0.name),
            _ => write!(f, "text in `{}`", self.0.name),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        let decoded = match self.0.kind {
            Kind::Hex => hexadecimal(text),
            Kind::Base64 => base64_of_any_alphabet(text),
            _ => Some(text.as_bytes().to_vec()),
        };
        decoded.ok_or_else(|| E::invalid_value(de::Unexpected::Str(&text.chars().take(40).collect::<String>()), &self))
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?))
        .collect()
}

fn base64_of_any_alphabet(text: &str) -> Option<Vec<u8>> {
    use base64::{
        alphabet,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    const EITHER_PADDING: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, EITHER_PADDING);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, EITHER_PADDING);
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// A number, as the bits that protobuf writes.
struct BitsSeed(&'static Field);

impl<'de> DeserializeSeed<'de> for BitsSeed {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl BitsSeed {
    fn of_integer(&self, value: i128) -> Option<u64> {
        let signed = || i64::try_from(value).ok();
        let bits = || u64::try_from(value).ok().or_else(|| Some(signed()? as u64));
        match self.0.kind {
            Kind::ZigZag => {
                let value = i32::try_from(value).ok()?;
                Some(u64::from((value.wrapping_shl(1) ^ (value >> 31)) as u32))
            }
            Kind::Double => Some((value as f64).to_bits()),
            Kind::Bool => None,
            _ => bits(),
        }
    }

    fn of_float(&self, value: f64) -> Option<u64> {
        if matches!(self.0.kind, Kind::Double) {
            return Some(value.to_bits());
        }
        // 2^63 is exact; beyond it, a float's last digits are meaningless.
        let whole = value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0;
        if whole { self.of_integer(value as i128) } else { None }
    }
}

impl Visitor<'_> for BitsSeed {
    type Value = u64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.0.kind {
            Kind::Bool => "true or false",
            Kind::Double => "a number",
            _ => "an integer in range, as a number or string,",
        };
        write!(f, "{kind} in `{}`", self.0.name)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<u64, E> {
        match self.0.kind {
            Kind::Bool => Ok(u64::from(value)),
            _ => Err(E::invalid_type(de::Unexpected::Bool(value), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        self.of_integer(i128::from(value))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        self.of_integer(i128::from(value))
            .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<u64, E> {
        self.of_float(value)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        let bits = match self.0.kind {
            Kind::Enum(names) => names.iter().position(|name| *name == text).map(|at| at as u64),
            // `NaN`, `Infinity` and `-Infinity` are parsed by the same function.
            Kind::Double => text.parse().ok().and_then(|value| self.of_float(value)),
            Kind::Bool => None,
            _ => match text.parse::<i64>() {
                Ok(value) => self.of_integer(i128::from(value)),
                Err(_) => text.parse::<u64>().ok().and_then(|v| self.of_integer(i128::from(v))),
            },
        };
        bits.ok_or_else(|| E::invalid_value(de::Unexpected::Str(&text.chars().take(40).collect::<String>()), &self))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::{
        metrics::v1::ExportMetricsServiceRequest, profiles::v1development::ExportProfilesServiceRequest,
    };
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn profiles(json: &str) -> ExportProfilesServiceRequest {
        ExportProfilesServiceRequest::decode(profiles_to_protobuf(json.as_bytes()).unwrap().as_slice()).unwrap()
    }

    #[test]
    fn ids_are_hexadecimal_and_numbers_may_be_text() {
        let request = profiles(
            r#"{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"timeUnixNano":"1790000000000000000",
            "durationNano":10000000000,"period":"7","profileId":"AAEC","samples":[{"stackIndex":1,"values":["5",6],
            "timestampsUnixNano":["9"],"linkIndex":1}],"whatever":{"x":[1,{}]},"periodType":null}]}]}],
            "dictionary":{"linkTable":[{},{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"00f067aa0ba902b7"}]}}"#,
        );
        let profile = &request.resource_profiles[0].scope_profiles[0].profiles[0];
        assert_eq!(profile.time_unix_nano, 1_790_000_000_000_000_000);
        assert_eq!(profile.duration_nano, 10_000_000_000);
        assert_eq!(profile.profile_id, [0, 1, 2]);
        assert_eq!(profile.period_type, None);
        assert_eq!(profile.samples[0].values, [5, 6]);
        assert_eq!(profile.samples[0].timestamps_unix_nano, [9]);
        let link = &request.dictionary.unwrap().link_table[1];
        assert_eq!(link.trace_id[..2], [0x5b, 0x8e]);
        assert_eq!(link.span_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
    }

    #[test]
    fn metrics_keep_signs_floats_and_optional_zeros() {
        let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"d","exponentialHistogram":{
            "aggregationTemporality":1,"dataPoints":[{"scale":-3,"count":"2","sum":0,"max":"Infinity","min":1.5,
            "positive":{"offset":-7,"bucketCounts":["1",1]}}]}}]}],
            "resource":{"attributes":[{"key":"k","value":{"intValue":"-4"}},{"key":"e","value":{}}]}}]}"#;
        let bytes = metrics_to_protobuf(json.as_bytes()).unwrap();
        let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
        let group = &request.resource_metrics[0];
        let attributes = &group.resource.as_ref().unwrap().attributes;
        assert_eq!(attributes[0].value.as_ref().unwrap().value, Some(Value::IntValue(-4)));
        let text = format!("{:?}", group.scope_metrics[0].metrics[0]);
        assert!(text.contains("scale: -3") && text.contains("offset: -7"), "{text}");
        assert!(
            text.contains("sum: Some(0.0)") && text.contains("max: Some(inf)"),
            "{text}"
        );
        assert!(text.contains("bucket_counts: [1, 1]"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (json, word) in [
            (
                r#"{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"period":"x"}]}]}]}"#,
                "`period`",
            ),
            (r#"{"dictionary":{"linkTable":[{"traceId":"zz"}]}}"#, "`traceId`"),
            (r#"{"dictionary":{"linkTable":[{"traceId":"abc"}]}}"#, "`traceId`"),
            (r#"{"resourceProfiles":3}"#, "`resourceProfiles`"),
            (r#"{"resourceProfiles":["#, "line 1"),
            ("[]", "an object"),
            ("{} {}", "trailing"),
            (
                r#"{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"sample":[{"locationsStartIndex":1}]}]}]}]}"#,
                "before 1.8",
            ),
        ] {
            let error = profiles_to_protobuf(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word), "{json}: {error}");
        }
        let deep = format!(
            r#"{{"dictionary":{{"attributeTable":[{{"value":{}1{}}}]}}}}"#,
            r#"{"arrayValue":{"values":["#.repeat(10_000),
            "]}}".repeat(10_000)
        );
        assert!(profiles_to_protobuf(deep.as_bytes()).is_err(), "nesting is bounded");
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[0-9a-f]{0,8}".prop_map(Into::into),
        ];
        let names: Vec<&'static str> = vec![
            "resourceProfiles",
            "scopeProfiles",
            "profiles",
            "samples",
            "values",
            "dictionary",
            "stringTable",
            "attributeTable",
            "value",
            "stringValue",
            "arrayValue",
            "resource",
            "attributes",
            "key",
            "period",
        ];
        leaf.prop_recursive(6, 60, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::Array),
                prop::collection::vec((prop::sample::select(names.clone()), inner), 0..5)
                    .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn text_of_any_kind_is_refused_or_gives_readable_protobuf(value in json_value()) {
            if let Ok(bytes) = profiles_to_protobuf(value.to_string().as_bytes()) {
                prop_assert!(ExportProfilesServiceRequest::decode(bytes.as_slice()).is_ok());
            }
        }

        #[test]
        fn bytes_of_any_kind_are_refused_or_give_no_more_than_they_hold(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for protobuf in [profiles_to_protobuf(&bytes), metrics_to_protobuf(&bytes)].into_iter().flatten() {
                prop_assert!(protobuf.len() <= 8 * bytes.len());
            }
        }

        #[test]
        fn whole_numbers_survive_as_text_and_as_number(value in any::<i64>()) {
            for json in [format!(r#"{{"period":{value}}}"#), format!(r#"{{"period":"{value}"}}"#)] {
                let json = format!(r#"{{"resourceProfiles":[{{"scopeProfiles":[{{"profiles":[{json}]}}]}}]}}"#);
                prop_assert_eq!(profiles(&json).resource_profiles[0].scope_profiles[0].profiles[0].period, value);
            }
        }
    }
}
