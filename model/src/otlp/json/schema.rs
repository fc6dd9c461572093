//! The JSON names and protobuf numbers of a message.

/// How a field is encoded in JSON and in protobuf.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// An object.
    Message(&'static Schema),
    /// Text.
    Text,
    /// Bytes as base64, of either alphabet.
    Base64,
    /// Bytes in hexadecimal.
    Hex,
    /// `int32`, `int64`, `uint32`, `uint64`.
    Varint,
    /// `sint32`.
    ZigZag,
    /// `fixed64`, `sfixed64`.
    Fixed64,
    /// `double`.
    Double,
    /// `bool`.
    Bool,
    /// An enumeration: a number, or one of these names, which count from 0.
    Enum(&'static [&'static str]),
    /// A name used only by an unsupported layout; the text says which.
    Refused(&'static str),
}

/// One field of a message.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
}

/// The fields of a message.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}
