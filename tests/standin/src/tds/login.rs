//! The LOGIN7 packet.

use std::io;

use super::{decode_utf16, invalid};

/// Where LOGIN7 keeps the offset and length of each text.
const USER: usize = 40;
const PASSWORD: usize = 44;
const APPLICATION: usize = 48;
const DATABASE: usize = 68;

/// What a client asks to log in with.
pub struct Login {
    /// Login name.
    pub user: String,
    /// Password in clear.
    pub password: String,
    /// Name of the program, as it says itself.
    pub application: String,
    /// The database to start in; empty means the login's default.
    pub database: String,
}

impl Login {
    /// Reads the packet's body. Feature extensions are left alone: no known driver needs an acknowledgement.
    pub fn parse(body: &[u8]) -> io::Result<Self> {
        let mut password = field(body, PASSWORD)?.to_vec();
        for byte in &mut password {
            *byte = (*byte ^ 0xA5).rotate_left(4);
        }
        Ok(Self {
            user: decode_utf16(field(body, USER)?)?,
            password: decode_utf16(&password)?,
            application: decode_utf16(field(body, APPLICATION)?)?,
            database: decode_utf16(field(body, DATABASE)?)?,
        })
    }
}

fn field(body: &[u8], at: usize) -> io::Result<&[u8]> {
    let entry = body.get(at..at + 4).ok_or_else(|| invalid("LOGIN7 is cut off"))?;
    let offset = usize::from(u16::from_le_bytes([entry[0], entry[1]]));
    let chars = usize::from(u16::from_le_bytes([entry[2], entry[3]]));
    body.get(offset..offset + 2 * chars)
        .ok_or_else(|| invalid("a LOGIN7 field points outside the packet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_packet_that_is_cut_off_anywhere_is_an_error_and_not_a_panic() {
        let mut packet = vec![0; 94];
        packet[USER..USER + 4].copy_from_slice(&[94, 0, 2, 0]);
        packet.extend([b's', 0, b'a', 0]);
        assert_eq!(Login::parse(&packet).unwrap().user, "sa");
        for length in 0..packet.len() {
            assert!(Login::parse(&packet[..length]).is_err(), "{length} bytes");
        }
    }
}
