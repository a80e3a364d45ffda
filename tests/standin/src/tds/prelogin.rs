//! PRELOGIN: the first exchange of a connection, and what it decides about TLS.

use std::io;

use super::invalid;

const VERSION: u8 = 0;
const ENCRYPTION: u8 = 1;
const INSTANCE: u8 = 2;
const THREAD_ID: u8 = 3;
const MARS: u8 = 4;
const TERMINATOR: u8 = 0xFF;

const OFF: u8 = 0;
const ON: u8 = 1;
const NOT_SUPPORTED: u8 = 2;
const REQUIRED: u8 = 3;

/// Whether this server speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all.
    Off,
    /// When the client wants it; the real engine's default.
    Optional,
    /// A client without TLS is turned away.
    Forced,
}

/// How far TLS reaches on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// No TLS.
    None,
    /// The login packet is encrypted and everything after it is in clear.
    LoginOnly,
    /// Everything is encrypted.
    All,
    /// The client cannot and the server must: the connection ends.
    Refused,
}

/// The client's ENCRYPTION option; a client that sends none has no TLS.
pub fn client_encryption(body: &[u8]) -> io::Result<u8> {
    let mut at = 0;
    loop {
        match body.get(at) {
            Some(&TERMINATOR) => return Ok(NOT_SUPPORTED),
            Some(&token) => {
                let entry = body
                    .get(at + 1..at + 5)
                    .ok_or_else(|| invalid("the PRELOGIN option table is cut off"))?;
                if token == ENCRYPTION {
                    let offset = usize::from(u16::from_be_bytes([entry[0], entry[1]]));
                    return body
                        .get(offset)
                        .copied()
                        .ok_or_else(|| invalid("PRELOGIN encryption points outside"));
                }
                at += 5;
            }
            None => return Err(invalid("the PRELOGIN option table has no end")),
        }
    }
}

/// The answer to a client's ENCRYPTION option, and what follows from it.
pub fn negotiate(server: TlsMode, client: u8) -> (u8, Encryption) {
    match (server, client) {
        (TlsMode::Off, _) | (TlsMode::Optional, NOT_SUPPORTED) => (NOT_SUPPORTED, Encryption::None),
        (TlsMode::Optional, OFF) => (OFF, Encryption::LoginOnly),
        (TlsMode::Forced, NOT_SUPPORTED) => (REQUIRED, Encryption::Refused),
        (TlsMode::Forced, OFF) => (REQUIRED, Encryption::All),
        (TlsMode::Optional | TlsMode::Forced, _) => (ON, Encryption::All),
    }
}

/// The server's PRELOGIN reply.
///
/// Microsoft's ODBC driver hangs up unless INSTOPT, THREADID and MARS are answered as well.
pub fn reply(version: [u8; 4], encryption: u8) -> Vec<u8> {
    let version = [version[0], version[1], version[2], version[3], 0, 0];
    let options: [(u8, &[u8]); 5] = [
        (VERSION, &version),
        (ENCRYPTION, &[encryption]),
        (INSTANCE, &[0]),
        (THREAD_ID, &[]),
        (MARS, &[0]),
    ];
    let mut offset = 5 * 5 + 1_u16;
    let (mut table, mut data) = (Vec::new(), Vec::<u8>::new());
    for (token, value) in options {
        let length = u16::try_from(value.len()).expect("an option is a few bytes");
        table.push(token);
        table.extend(offset.to_be_bytes());
        table.extend(length.to_be_bytes());
        data.extend(value);
        offset += length;
    }
    table.push(TERMINATOR);
    table.extend(data);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_negotiated_as_the_real_engine_does() {
        use Encryption::{All, LoginOnly, None, Refused};
        for (server, client, answer, result) in [
            (TlsMode::Off, OFF, NOT_SUPPORTED, None),
            (TlsMode::Off, ON, NOT_SUPPORTED, None),
            (TlsMode::Optional, OFF, OFF, LoginOnly),
            (TlsMode::Optional, ON, ON, All),
            (TlsMode::Optional, REQUIRED, ON, All),
            (TlsMode::Optional, NOT_SUPPORTED, NOT_SUPPORTED, None),
            (TlsMode::Forced, OFF, REQUIRED, All),
            (TlsMode::Forced, ON, ON, All),
            (TlsMode::Forced, NOT_SUPPORTED, REQUIRED, Refused),
        ] {
            assert_eq!(
                negotiate(server, client),
                (answer, result),
                "{server:?} and client {client}"
            );
        }
    }

    #[test]
    fn our_own_reply_is_readable_as_a_prelogin() {
        assert_eq!(client_encryption(&reply([16, 0, 1, 2], REQUIRED)).unwrap(), REQUIRED);
    }

    #[test]
    fn a_cut_off_option_table_is_an_error_and_not_a_panic() {
        let whole = reply([16, 0, 1, 2], ON);
        for length in 0..6 {
            assert!(client_encryption(&whole[..length]).is_err());
        }
    }
}
