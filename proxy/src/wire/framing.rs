//! Follows the framing of HTTP/1 requests byte by byte, in parallel with the HTTP library that parses them, and finds
//! what a proxy must not forward: forms that two parsers could read differently.
//!
//! Guarantees: every request head is inspected before the library has all of it; a head is refused for bare line feeds,
//! any form of two lengths (`Content-Length` twice or together with `Transfer-Encoding`), `Transfer-Encoding` twice or
//! anything but exactly `chunked`, and folded lines; a chunked body whose framing is not exact ends the connection.
//! After a refusal, nothing more is served on the connection. Pure: bytes in, findings out.
//!
//! Wrong on purpose: names and values are not validated here (the library refuses bad ones), and `Host` is checked
//! later, on the parsed head.
//!
//! Source: RFC 9112 sections 2.2, 5.2, 6 and 7.
//!
//! One file because it is one state machine over bytes, and each of its states decides what the next byte means. A
//! third of it is the table of heads that have to be refused.

use memchr::memchr;

use super::target::Unescaped;

/// Longest chunk-size line, extensions included.
const MAX_CHUNK_LINE: usize = 4096;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A line ends in a line feed alone.
    BareLineFeed,
    /// A header line begins with white space.
    FoldedLine,
    /// `Content-Length` twice, or not a plain number.
    ContentLength,
    /// `Content-Length` together with `Transfer-Encoding`.
    TwoFramings,
    /// `Transfer-Encoding` twice, or not ending in `chunked`.
    TransferEncoding,
    /// A transfer coding before `chunked`.
    UnknownTransferCoding,
}

impl Refusal {
    /// The status of the response: 501 for a coding that is not implemented, otherwise 400.
    pub(crate) fn status(self) -> u16 {
        if self == Refusal::UnknownTransferCoding {
            501
        } else {
            400
        }
    }

    /// Name in metrics and in the response.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::BareLineFeed => "bare_line_feed",
            Refusal::FoldedLine => "folded_line",
            Refusal::ContentLength => "content_length",
            Refusal::TwoFramings => "content_length_and_transfer_encoding",
            Refusal::TransferEncoding => "transfer_encoding",
            Refusal::UnknownTransferCoding => "unknown_transfer_coding",
        }
    }
}

/// What ends a connection at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A chunk's size line or end is malformed.
    Chunk,
    /// A head that is too long.
    HeadTooLong,
}

/// What the connection is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between requests.
    Idle,
    /// Inside a head, after its first line began.
    Head,
    /// Inside a body of known length: bytes left.
    Fixed(u64),
    /// In a chunk's size line.
    ChunkSize,
    /// Inside a chunk: bytes left, including its line end.
    Chunk(u64),
    /// In the trailers.
    Trailers,
    /// A request was refused: nothing is inspected any more.
    Over,
}

/// What was learnt from one head.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    content_length: Option<u64>,
    chunked: bool,
    refusal: Option<Refusal>,
}

/// The framing of one connection's requests.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    head: Head,
    /// A line that began in an earlier read.
    carry: Vec<u8>,
    head_bytes: usize,
    max_head_bytes: usize,
    heads: u64,
    refused: Option<(u64, Refusal)>,
    unescaped: Unescaped,
}

impl Framing {
    /// At the start of a connection. `max_head_bytes` limits how much of an unfinished line is kept.
    pub(crate) fn new(max_head_bytes: usize) -> Framing {
        Framing {
            state: State::Idle,
            head: Head::default(),
            carry: Vec::new(),
            head_bytes: 0,
            max_head_bytes,
            heads: 0,
            refused: None,
            unescaped: Unescaped::default(),
        }
    }

    /// The refused request, if any: its number on this connection (from 1) and why.
    pub(crate) fn refused(&self) -> Option<(u64, Refusal)> {
        self.refused
    }

    /// What the library would refuse in the targets among the bytes fed last.
    pub(crate) fn unescaped(&self) -> &Unescaped {
        &self.unescaped
    }

    /// True between requests: no byte of the next one has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle && self.carry.is_empty()
    }

    /// True while a head has begun and not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        self.state == State::Head || (self.state == State::Idle && !self.carry.is_empty())
    }

    /// Bytes of the head that has begun and not ended.
    pub(crate) fn unfinished_head(&self) -> usize {
        let whole_lines = if self.state == State::Head { self.head_bytes } else { 0 };
        if self.is_in_head() {
            whole_lines + self.carry.len()
        } else {
            0
        }
    }

    /// Inspects the next bytes of the connection.
    ///
    /// # Errors
    ///
    /// When the connection must end now; what was read so far must not be acted on any further.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        let length = bytes.len();
        self.unescaped.clear();
        while !bytes.is_empty() {
            match self.state {
                State::Over => return Ok(()),
                State::Fixed(left) => {
                    let here = left.min(bytes.len() as u64);
                    bytes = &bytes[here as usize..];
                    self.state = if here == left {
                        State::Idle
                    } else {
                        State::Fixed(left - here)
                    };
                }
                State::Chunk(left) => {
                    bytes = self.chunk_data(left, bytes)?;
                }
                State::Idle | State::Head | State::ChunkSize | State::Trailers => {
                    bytes = self.line(bytes, length - bytes.len())?;
                }
            }
        }
        Ok(())
    }

    /// Skips the data of a chunk and checks the CR LF after it.
    fn chunk_data<'b>(&mut self, mut left: u64, mut bytes: &'b [u8]) -> Result<&'b [u8], Broken> {
        if left > 2 {
            let here = (left - 2).min(bytes.len() as u64);
            bytes = &bytes[here as usize..];
            left -= here;
        }
        while left <= 2 && left > 0 && !bytes.is_empty() {
            let wanted = if left == 2 { b'\r' } else { b'\n' };
            if bytes[0] != wanted {
                return Err(Broken::Chunk);
            }
            bytes = &bytes[1..];
            left -= 1;
        }
        self.state = if left == 0 {
            State::ChunkSize
        } else {
            State::Chunk(left)
        };
        Ok(bytes)
    }

    /// Takes one line, or keeps its beginning until the rest arrives. It is at `offset` of the bytes fed.
    fn line<'b>(&mut self, bytes: &'b [u8], offset: usize) -> Result<&'b [u8], Broken> {
        let end = memchr(b'\n', bytes);
        if self.state == State::Idle {
            let part = &bytes[..end.unwrap_or(bytes.len())];
            self.unescaped.look(&self.carry, part, offset);
        }
        let Some(end) = end else {
            let limit = if self.state == State::ChunkSize {
                MAX_CHUNK_LINE
            } else {
                self.max_head_bytes
            };
            if self.carry.len() + self.head_bytes + bytes.len() > limit {
                return Err(if self.state == State::ChunkSize {
                    Broken::Chunk
                } else {
                    Broken::HeadTooLong
                });
            }
            self.carry.extend_from_slice(bytes);
            return Ok(&[]);
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if self.carry.is_empty() {
            self.whole_line(line)?;
        } else {
            let mut whole = std::mem::take(&mut self.carry);
            whole.extend_from_slice(line);
            self.whole_line(&whole)?;
            whole.clear();
            self.carry = whole;
        }
        Ok(rest)
    }

    /// A line without its line feed.
    fn whole_line(&mut self, line: &[u8]) -> Result<(), Broken> {
        let (text, strict) = match line.split_last() {
            Some((b'\r', text)) => (text, true),
            _ => (line, false),
        };
        match self.state {
            // Empty lines before a request are allowed, up to the size limit of a head.
            State::Idle if text.is_empty() && strict => {
                self.head_bytes += 2;
                if self.head_bytes > self.max_head_bytes {
                    return Err(Broken::HeadTooLong);
                }
            }
            State::Idle => {
                self.state = State::Head;
                self.head = Head::default();
                self.head_bytes = line.len() + 1;
                if !strict {
                    self.refuse(Refusal::BareLineFeed);
                    // For a parser that accepts an empty line of this form, the head ends here.
                    if text.is_empty() {
                        self.end_of_head();
                    }
                }
            }
            State::Head => {
                self.head_bytes += line.len() + 1;
                if self.head_bytes > self.max_head_bytes {
                    return Err(Broken::HeadTooLong);
                }
                if !strict {
                    self.refuse(Refusal::BareLineFeed);
                }
                if text.is_empty() {
                    self.end_of_head();
                } else {
                    self.header(text);
                }
            }
            State::ChunkSize => {
                let size = if strict { chunk_size(text) } else { None }.ok_or(Broken::Chunk)?;
                self.head_bytes = 0;
                self.state = if size == 0 {
                    State::Trailers
                } else {
                    State::Chunk(size + 2)
                };
            }
            State::Trailers => {
                self.head_bytes += line.len() + 1;
                if !strict {
                    return Err(Broken::Chunk);
                }
                if self.head_bytes > self.max_head_bytes {
                    return Err(Broken::HeadTooLong);
                }
                if text.is_empty() {
                    self.begin_idle();
                }
            }
            State::Fixed(_) | State::Chunk(_) | State::Over => {}
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.head.refusal.get_or_insert(refusal);
    }

    fn begin_idle(&mut self) {
        self.state = State::Idle;
        self.head_bytes = 0;
    }

    fn header(&mut self, text: &[u8]) {
        match text[0] | 0x20 {
            b'c' => {
                let Some(value) = value_of(text, b"content-length") else {
                    return;
                };
                let length = plain_number(value);
                if length.is_none() || self.head.content_length.is_some() {
                    self.refuse(Refusal::ContentLength);
                }
                if self.head.chunked {
                    self.refuse(Refusal::TwoFramings);
                }
                self.head.content_length = length.or(Some(0));
            }
            b't' => {
                let Some(value) = value_of(text, b"transfer-encoding") else {
                    return;
                };
                if self.head.content_length.is_some() {
                    self.refuse(Refusal::TwoFramings);
                }
                if self.head.chunked {
                    self.refuse(Refusal::TransferEncoding);
                }
                self.head.chunked = true;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    let last = value.rsplit(|&b| b == b',').next().unwrap_or_default();
                    let ends_in_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
                    self.refuse(if ends_in_chunked && !value.trim_ascii_start().starts_with(b",") {
                        Refusal::UnknownTransferCoding
                    } else {
                        Refusal::TransferEncoding
                    });
                }
            }
            // ' ' and tab: `| 0x20` leaves the first and turns the second into ')'.
            b' ' | b')' if text[0] == b' ' || text[0] == b'\t' => self.refuse(Refusal::FoldedLine),
            _ => {}
        }
    }

    fn end_of_head(&mut self) {
        self.heads += 1;
        if let Some(refusal) = self.head.refusal {
            self.refused = Some((self.heads, refusal));
            self.state = State::Over;
            return;
        }
        match (self.head.chunked, self.head.content_length) {
            (true, _) => {
                self.state = State::ChunkSize;
                self.head_bytes = 0;
            }
            (false, Some(length)) if length > 0 => {
                self.state = State::Fixed(length);
                self.head_bytes = 0;
            }
            _ => self.begin_idle(),
        }
    }
}

/// The trimmed value of a header line if its name is `name`.
fn value_of<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if text.len() <= name.len() || text[name.len()] != b':' || !text[..name.len()].eq_ignore_ascii_case(name) {
        return None;
    }
    Some(trim_space(&text[name.len() + 1..]))
}

/// HTTP's optional white space is space and tab, nothing else.
fn trim_space(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn plain_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Size of a chunk: hexadecimal digits, then nothing or an extension.
fn chunk_size(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 || text.len() > MAX_CHUNK_LINE {
        return None;
    }
    match trim_space(&text[digits..]) {
        [] if text.len() == digits => {}
        [b';', extension @ ..] if !extension.contains(&b'\r') => {}
        _ => return None,
    }
    u64::from_str_radix(std::str::from_utf8(&text[..digits]).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(input: &[u8], step: usize) -> Result<Framing, Broken> {
        let mut framing = Framing::new(8192);
        for part in input.chunks(step) {
            framing.feed(part)?;
        }
        Ok(framing)
    }

    fn refusal(head: &str) -> Option<Refusal> {
        let whole = fed(head.as_bytes(), usize::MAX).unwrap().refused();
        let single = fed(head.as_bytes(), 1).unwrap().refused();
        assert_eq!(whole, single, "a head is judged alike however it is cut: {head:?}");
        whole.map(|(_, refusal)| refusal)
    }

    #[test]
    fn heads_that_two_parsers_could_read_differently_are_refused() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", None),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding:\t Chunked \r\n\r\n0\r\n\r\n",
                None,
            ),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Some(Refusal::BareLineFeed)),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Some(Refusal::BareLineFeed)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Some(Refusal::BareLineFeed)),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Some(Refusal::BareLineFeed)),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Some(Refusal::FoldedLine)),
            ("GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", Some(Refusal::FoldedLine)),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
                Some(Refusal::ContentLength),
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc",
                Some(Refusal::ContentLength),
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
                Some(Refusal::ContentLength),
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\nabc",
                Some(Refusal::ContentLength),
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
                Some(Refusal::ContentLength),
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                Some(Refusal::TwoFramings),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
                Some(Refusal::TwoFramings),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Some(Refusal::TransferEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
                Some(Refusal::TransferEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
                Some(Refusal::TransferEncoding),
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                Some(Refusal::UnknownTransferCoding),
            ),
        ] {
            assert_eq!(refusal(head), expected, "{head:?}");
        }
    }

    #[test]
    fn the_number_of_the_refused_request_counts_those_before_it() {
        let good = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\n";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\n\n\n\r\n0\r\nA: b\r\n\r\n";
        let bad = "GET / HTTP/1.1\nHost: a\r\n\r\n";
        let all = format!("{good}{chunked}{good}{bad}{bad}");
        for step in [1, 2, 7, usize::MAX] {
            assert_eq!(
                fed(all.as_bytes(), step).unwrap().refused(),
                Some((4, Refusal::BareLineFeed))
            );
        }
    }

    #[test]
    fn malformed_chunks_end_the_connection() {
        for body in [
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n",
            "\r\n",
            "-1\r\n",
            "0x3\r\n",
            "3 x\r\n",
            "1111111111111111\r\n",
        ] {
            let all = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            for step in [1, usize::MAX] {
                assert_eq!(fed(all.as_bytes(), step).unwrap_err(), Broken::Chunk, "{body:?}");
            }
        }
    }

    #[test]
    fn a_head_without_end_does_not_grow_without_bound() {
        let mut framing = Framing::new(8192);
        assert!((0..100).any(|_| framing.feed(&[b'a'; 100]) == Err(Broken::HeadTooLong)));
    }

    #[test]
    fn idle_head_and_body_are_told_apart() {
        let mut framing = Framing::new(8192);
        assert!(framing.is_idle() && !framing.is_in_head());
        framing.feed(b"POST / HT").unwrap();
        assert!(!framing.is_idle() && framing.is_in_head());
        framing.feed(b"TP/1.1\r\nContent-Length: 2\r\n\r\n1").unwrap();
        assert!(!framing.is_idle() && !framing.is_in_head());
        framing.feed(b"2").unwrap();
        assert!(framing.is_idle());
    }

    proptest! {
        /// However a connection's bytes are split into reads, the findings are the same.
        #[test]
        fn findings_do_not_depend_on_the_cuts(
            parts in proptest::collection::vec("(GET / HTTP/1.1|Content-Length: [0-9]{1,2}|Transfer-Encoding: chunked|[0-9a-f]|\r\n|\n|abc)", 0..20),
            step in 1_usize..9,
        ) {
            let input: String = parts.concat();
            let whole = fed(input.as_bytes(), usize::MAX).map(|f| f.refused());
            let cut = fed(input.as_bytes(), step).map(|f| f.refused());
            prop_assert_eq!(whole, cut);
        }
    }
}
