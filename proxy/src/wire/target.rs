//! Characters of a request's target that clients send unescaped although RFC 3986 requires escaping (`"`, `<`, `>` and
//! the grave accent): the HTTP library refuses them, other proxies forward them. They are percent-encoded, as browsers
//! send them.
//!
//! Guarantees: only bytes of a target are changed: those between the first and the second space of a request line; how
//! a connection's bytes are split into reads makes no difference. A request without such characters costs a search over
//! its first line.
//!
//! Wrong on purpose: over HTTP/2 they are still refused, because the library decodes and checks those heads itself.
//!
//! Source: RFC 9112 section 3, the URL Standard (percent-encode sets).

use memchr::{memchr, memchr3};

/// Positions of such characters in the bytes inspected last, in order.
#[derive(Debug, Default)]
pub(crate) struct Unescaped(Vec<usize>);

impl Unescaped {
    /// Forgets what was found before.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Inspects a part of a request line at `offset`; `earlier` is what came before it in the same line.
    pub(crate) fn look(&mut self, earlier: &[u8], part: &[u8], offset: usize) {
        if memchr3(b'"', b'<', b'>', part).or_else(|| memchr(b'`', part)).is_none() {
            return;
        }
        let mut spaces = earlier.iter().filter(|&&byte| byte == b' ').count();
        for (at, &byte) in part.iter().enumerate() {
            match byte {
                b' ' => spaces += 1,
                b'"' | b'<' | b'>' | b'`' if spaces == 1 => self.0.push(offset + at),
                _ => {}
            }
        }
    }

    /// The inspected bytes, with the characters found percent-encoded.
    pub(crate) fn escape(&self, bytes: &[u8]) -> Vec<u8> {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let mut escaped = Vec::with_capacity(bytes.len() + 2 * self.0.len());
        let mut done = 0;
        for &at in &self.0 {
            escaped.extend_from_slice(&bytes[done..at]);
            let byte = usize::from(bytes[at]);
            escaped.extend_from_slice(&[b'%', DIGITS[byte >> 4], DIGITS[byte & 15]]);
            done = at + 1;
        }
        escaped.extend_from_slice(&bytes[done..]);
        escaped
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::framing::Framing;

    /// What reaches the library when bytes come in pieces of `step`.
    fn passed(input: &str, step: usize) -> String {
        let mut framing = Framing::new(8192);
        let mut all = Vec::new();
        for part in input.as_bytes().chunks(step) {
            framing.feed(part).unwrap();
            all.extend(framing.unescaped().escape(part));
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn only_targets_change_however_the_bytes_are_cut() {
        let body = "{\"a\": \"<b>\"} `GET /\" HTTP/1.1";
        let sent = format!(
            "\r\nPOST /a\"<b>`?c=\"<d>` HTTP/1.1\r\nHost: a\r\nX: \"<>`\r\nContent-Length: {}\r\n\r\n{body}\
             G`T /` HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;\"<\r\n\"<>`\r\n0\r\nX: \"`\r\n\r\n\
             GET /plain HTTP/1.1\r\nHost: a\r\n\r\n",
            body.len()
        );
        let expected = sent
            .replace("/a\"<b>`?c=\"<d>` ", "/a%22%3Cb%3E%60?c=%22%3Cd%3E%60 ")
            .replace("G`T /` ", "G`T /%60 ");
        for step in [1, 2, 3, 7, 31, usize::MAX] {
            assert_eq!(passed(&sent, step), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn what_comes_after_a_refused_request_stays_as_it_is() {
        let sent = "GET /\" HTTP/1.1\nHost: a\r\n\r\nGET /\" HTTP/1.1\r\n\r\n";
        assert_eq!(passed(sent, usize::MAX), sent.replacen("/\"", "/%22", 1));
    }
}
