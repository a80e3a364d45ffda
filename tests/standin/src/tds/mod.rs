//! The TDS 7.4 wire: packets, the PRELOGIN and TLS negotiation, LOGIN7, RPC parameters and reply tokens.
//! Knows bytes only; it neither checks a password nor runs a statement.

pub mod login;
pub mod packet;
pub mod prelogin;
pub mod reply;
pub mod rpc;
pub mod tls;

use std::io;

/// A little-endian reader over one message body; running past the end is a protocol error, never a panic.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from the start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> io::Result<&'a [u8]> {
        let end = self
            .at
            .checked_add(n)
            .filter(|end| *end <= self.bytes.len())
            .ok_or_else(truncated)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// One byte.
    pub fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian `u16`.
    pub fn u16(&mut self) -> io::Result<u16> {
        let b = self.take(2)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    }

    /// A little-endian `u32`.
    pub fn u32(&mut self) -> io::Result<u32> {
        let b = self.take(4)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// UTF-16 text of `chars` code units.
    pub fn text(&mut self, chars: usize) -> io::Result<String> {
        decode_utf16(self.take(chars.saturating_mul(2))?)
    }

    /// Text with a one-byte length in characters.
    pub fn b_varchar(&mut self) -> io::Result<String> {
        let chars = usize::from(self.u8()?);
        self.text(chars)
    }
}

/// The text of little-endian UTF-16 bytes.
pub fn decode_utf16(bytes: &[u8]) -> io::Result<String> {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]))
        .collect();
    if !bytes.len().is_multiple_of(2) {
        return Err(truncated());
    }
    String::from_utf16(&units).map_err(|_| invalid("text is not UTF-16"))
}

/// A protocol error; the session ends with it.
pub fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn truncated() -> io::Error {
    invalid("a message is shorter than its contents say")
}
