//! Packets: eight bytes of header and a payload; a message is one or more of them.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::invalid;

/// Length of a packet's header.
pub const HEADER: usize = 8;
/// The packet size this server agrees on with every client.
pub const SIZE: usize = 4096;
/// A batch that is longer than this is not one of the statements we know.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// SQL text.
pub const SQL_BATCH: u8 = 0x01;
/// A procedure call; `sp_executesql` is the only one known.
pub const RPC: u8 = 0x03;
/// What a server answers with.
pub const REPLY: u8 = 0x04;
/// The client gives up on its request.
pub const ATTENTION: u8 = 0x06;
/// Begin, commit or roll back.
pub const TRANSACTION: u8 = 0x0E;
/// User and password.
pub const LOGIN7: u8 = 0x10;
/// The first packet of a connection; it also carries the TLS handshake.
pub const PRELOGIN: u8 = 0x12;

const END_OF_MESSAGE: u8 = 0x01;
const RESET_CONNECTION: u8 = 0x08;
const RESET_KEEPING_TRANSACTION: u8 = 0x10;

/// A whole message of a client.
pub struct Message {
    /// Packet type, such as [`SQL_BATCH`].
    pub kind: u8,
    /// The client (a connection pool) asks to start afresh before this request.
    pub resets: bool,
    /// The payloads of all its packets.
    pub body: Vec<u8>,
}

impl Message {
    /// The body after the `ALL_HEADERS` block that requests carry.
    pub fn after_headers(&self) -> io::Result<&[u8]> {
        let total = super::Reader::new(&self.body).u32()?;
        usize::try_from(total)
            .ok()
            .and_then(|total| self.body.get(total..))
            .ok_or_else(|| invalid("the ALL_HEADERS block is longer than its message"))
    }
}

/// Reads one message; `None` when the client closed the connection between two messages.
pub async fn read_message<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Message>> {
    let mut message: Option<Message> = None;
    loop {
        let mut header = [0; HEADER];
        if from.read(&mut header[..1]).await? == 0 {
            return match message {
                None => Ok(None),
                Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        from.read_exact(&mut header[1..]).await?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let payload = length
            .checked_sub(HEADER)
            .ok_or_else(|| invalid("a packet is shorter than its header"))?;
        let message = message.get_or_insert_with(|| Message {
            kind: header[0],
            resets: header[1] & (RESET_CONNECTION | RESET_KEEPING_TRANSACTION) != 0,
            body: Vec::new(),
        });
        let start = message.body.len();
        if start + payload > MESSAGE_LIMIT {
            return Err(invalid(format!("a message is longer than {MESSAGE_LIMIT} bytes")));
        }
        message.body.resize(start + payload, 0);
        from.read_exact(&mut message.body[start..]).await?;
        if header[1] & END_OF_MESSAGE != 0 {
            let whole = Message {
                kind: message.kind,
                resets: message.resets,
                body: std::mem::take(&mut message.body),
            };
            return Ok(Some(whole));
        }
    }
}

/// `body` cut into packets of type `kind`.
pub fn packets(kind: u8, body: &[u8]) -> Vec<u8> {
    let room = SIZE - HEADER;
    let count = body.len().div_ceil(room).max(1);
    let mut out = Vec::with_capacity(body.len() + count * HEADER);
    for number in 0..count {
        let payload = &body[number * room..body.len().min((number + 1) * room)];
        let status = if number + 1 == count { END_OF_MESSAGE } else { 0 };
        let length = u16::try_from(payload.len() + HEADER).expect("a packet is at most 4096 bytes");
        // the packet id counts modulo 256
        let id = u8::try_from((number + 1) % 256).expect("a remainder of 256 fits a byte");
        out.extend([kind, status]);
        out.extend(length.to_be_bytes());
        out.extend([0, 51, id, 0]);
        out.extend(payload);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_longer_than_a_packet_is_cut_and_read_back_whole() {
        let body: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        let wire = packets(SQL_BATCH, &body);
        assert_eq!(wire.len(), body.len() + 3 * HEADER);
        let mut from = wire.as_slice();
        let message = read_message(&mut from).await.unwrap().unwrap();
        assert_eq!(message.kind, SQL_BATCH);
        assert_eq!(message.body, body);
        assert!(read_message(&mut from).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_connection_closed_in_the_middle_of_a_message_is_an_error() {
        let wire = packets(SQL_BATCH, &[1; 5000]);
        assert!(read_message(&mut &wire[..SIZE]).await.is_err());
        assert!(read_message(&mut &wire[..100]).await.is_err());
    }

    #[tokio::test]
    async fn a_packet_length_below_the_header_is_refused() {
        assert!(
            read_message(&mut [0x01, 0x01, 0x00, 0x04, 0, 0, 0, 0].as_slice())
                .await
                .is_err()
        );
    }
}
