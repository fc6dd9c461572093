//! How the names of a message in JSON and its numbers in protobuf are written down.

/// How a field is written in JSON and in protobuf.
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
    /// A name that means that the sender speaks a layout that is not read; the text says which.
    Refused(&'static str),
}

/// One name of a message.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
}

/// The names of a message.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
}
