//! Reply tokens, collected into one message.

use crate::error::ServerError;
use crate::value::{Column, MAX_CHARS, SqlType, Value};

/// `SQL_Latin1_General_CP1_CI_AS`.
const COLLATION: [u8; 5] = [0x09, 0x04, 0xD0, 0x00, 0x34];
/// TDS 7.4, which LOGINACK alone carries in big-endian.
const TDS_VERSION: [u8; 4] = [0x74, 0x00, 0x00, 0x04];

const MORE: u16 = 0x01;
const ERROR: u16 = 0x02;
const COUNT: u16 = 0x10;
const ATTENTION: u16 = 0x20;

/// What a DONE token says it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing in particular.
    None = 0,
    /// Rows were read.
    Select = 0xC1,
    /// Rows were written.
    Insert = 0xC3,
    /// Rows were deleted.
    Delete = 0xC4,
}

/// A message under construction.
pub struct Reply {
    bytes: Vec<u8>,
    /// The answer to a procedure call ends its statements with another token than a batch.
    in_procedure: bool,
}

impl Reply {
    /// The reply to a batch or a login.
    pub fn to_batch() -> Self {
        Self {
            bytes: Vec::new(),
            in_procedure: false,
        }
    }

    /// The reply to a procedure call.
    pub fn to_procedure() -> Self {
        Self {
            bytes: Vec::new(),
            in_procedure: true,
        }
    }

    /// The finished message.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Login succeeded.
    pub fn login(&mut self, program: &str, version: [u8; 4], database: &str) {
        self.database_changed(database, "master");
        self.env_change_bytes(7, &COLLATION, &[]);
        self.env_change_text(2, "us_english", "");
        self.info(5703, "Changed language setting to us_english.");
        let mut ack = vec![1];
        ack.extend(TDS_VERSION);
        ack.extend(b_varchar(program));
        ack.extend(version);
        self.token(0xAD, &ack);
        let size = super::packet::SIZE.to_string();
        self.env_change_text(4, &size, &size);
        self.done(false, None);
    }

    /// The session is in another database now.
    pub fn database_changed(&mut self, new: &str, old: &str) {
        self.env_change_text(1, new, old);
        self.info(5701, &format!("Changed database context to '{new}'."));
    }

    /// A transaction began.
    pub fn transaction_began(&mut self, id: u64) {
        self.env_change_bytes(8, &id.to_le_bytes(), &[]);
    }

    /// The transaction was committed.
    pub fn transaction_committed(&mut self, id: u64) {
        self.env_change_bytes(9, &[], &id.to_le_bytes());
    }

    /// The transaction was rolled back.
    pub fn transaction_rolled_back(&mut self, id: u64) {
        self.env_change_bytes(10, &[], &id.to_le_bytes());
    }

    /// The session was reset for the next user of a connection pool.
    pub fn reset(&mut self) {
        self.env_change_bytes(18, &[], &[]);
    }

    /// A result's columns; rows follow.
    pub fn columns(&mut self, columns: &[Column]) {
        self.bytes.push(0x81);
        self.bytes.extend(short(columns.len()).to_le_bytes());
        for Column { name, sql_type } in columns {
            self.bytes.extend([0, 0, 0, 0]);
            // nullable
            self.bytes.extend([1, 0]);
            match sql_type {
                SqlType::Int => self.bytes.extend([0x26, 4]),
                SqlType::BigInt => self.bytes.extend([0x26, 8]),
                SqlType::NVarChar(chars) => {
                    self.bytes.push(0xE7);
                    self.bytes.extend((2 * (*chars).min(MAX_CHARS)).to_le_bytes());
                    self.bytes.extend(COLLATION);
                }
                SqlType::Variant => {
                    self.bytes.push(0x62);
                    self.bytes.extend(8009_u32.to_le_bytes());
                }
            }
            self.bytes.extend(b_varchar(name));
        }
    }

    /// One row.
    pub fn row(&mut self, columns: &[Column], values: &[Value]) {
        self.bytes.push(0xD1);
        for (column, value) in columns.iter().zip(values) {
            self.value(column.sql_type, value);
        }
    }

    fn value(&mut self, sql_type: SqlType, value: &Value) {
        match (sql_type, value) {
            (SqlType::Int | SqlType::BigInt, Value::Int(number)) => {
                let length = if sql_type == SqlType::Int { 4 } else { 8 };
                self.bytes.push(length);
                self.bytes.extend(&number.to_le_bytes()[..usize::from(length)]);
            }
            (SqlType::Int | SqlType::BigInt, _) => self.bytes.push(0),
            (SqlType::NVarChar(_), Value::Null) => self.bytes.extend(u16::MAX.to_le_bytes()),
            (SqlType::NVarChar(_), other) => {
                let text = utf16(&shown(other));
                let text = &text[..text.len().min(2 * usize::from(MAX_CHARS))];
                self.bytes.extend(short(text.len()).to_le_bytes());
                self.bytes.extend(text);
            }
            (SqlType::Variant, Value::Null) => self.bytes.extend([0; 4]),
            (SqlType::Variant, Value::Int(number)) => {
                self.bytes.extend(10_u32.to_le_bytes());
                self.bytes.extend([0x7F, 0]);
                self.bytes.extend(number.to_le_bytes());
            }
            (SqlType::Variant, Value::Text(text)) => {
                let text = utf16(text);
                let text = &text[..text.len().min(2 * usize::from(MAX_CHARS))];
                self.bytes.extend(u32::from(short(text.len() + 9)).to_le_bytes());
                self.bytes.extend([0xE7, 7]);
                self.bytes.extend(COLLATION);
                self.bytes.extend(8000_u16.to_le_bytes());
                self.bytes.extend(text);
            }
        }
    }

    /// A statement ended well, with so many rows.
    pub fn statement_done(&mut self, command: Command, rows: Option<u64>, last: bool) {
        let more = self.in_procedure || !last;
        let status = if more { MORE } else { 0 } | if rows.is_some() { COUNT } else { 0 };
        let token = if self.in_procedure { 0xFF } else { 0xFD };
        self.done_token(token, status, command, rows.unwrap_or(0));
    }

    /// A statement failed; nothing after it was run.
    pub fn failed(&mut self, error: &ServerError) {
        self.message(0xAA, error.number, error.state, error.class, &error.text);
        if self.in_procedure {
            self.done_token(0xFF, MORE | ERROR, Command::None, 0);
        } else {
            self.done_token(0xFD, ERROR, Command::None, 0);
        }
    }

    /// The procedure call ended.
    pub fn procedure_done(&mut self, failed: bool) {
        self.bytes.push(0x79);
        self.bytes.extend(i32::from(failed).to_le_bytes());
        self.done_token(0xFE, if failed { ERROR } else { 0 }, Command::None, 0);
    }

    /// A message without statements ended.
    pub fn done(&mut self, attention: bool, rows: Option<u64>) {
        let status = if attention { ATTENTION } else { 0 };
        self.done_token(0xFD, status, Command::None, rows.unwrap_or(0));
    }

    fn done_token(&mut self, token: u8, status: u16, command: Command, rows: u64) {
        self.bytes.push(token);
        self.bytes.extend(status.to_le_bytes());
        self.bytes.extend((command as u16).to_le_bytes());
        self.bytes.extend(rows.to_le_bytes());
    }

    fn info(&mut self, number: i32, text: &str) {
        self.message(0xAB, number, 1, 0, text);
    }

    fn message(&mut self, token: u8, number: i32, state: u8, class: u8, text: &str) {
        // a message's text is an NVARCHAR(2048) in the real engine
        let text: String = text.chars().take(2048).collect();
        let mut body = Vec::new();
        body.extend(number.to_le_bytes());
        body.extend([state, class]);
        body.extend(short(text.encode_utf16().count()).to_le_bytes());
        body.extend(utf16(&text));
        body.extend(b_varchar("sqledge-standin"));
        body.extend(b_varchar(""));
        body.extend(1_i32.to_le_bytes());
        self.token(token, &body);
    }

    fn env_change_text(&mut self, kind: u8, new: &str, old: &str) {
        let mut body = vec![kind];
        body.extend(b_varchar(new));
        body.extend(b_varchar(old));
        self.token(0xE3, &body);
    }

    fn env_change_bytes(&mut self, kind: u8, new: &[u8], old: &[u8]) {
        let mut body = vec![kind];
        for bytes in [new, old] {
            body.push(u8::try_from(bytes.len()).expect("a collation or a transaction id is a few bytes"));
            body.extend(bytes);
        }
        self.token(0xE3, &body);
    }

    fn token(&mut self, token: u8, body: &[u8]) {
        self.bytes.push(token);
        self.bytes.extend(short(body.len()).to_le_bytes());
        self.bytes.extend(body);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Int(number) => number.to_string(),
        Value::Text(text) => text.clone(),
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Text with a one-byte length; names longer than that are cut.
fn b_varchar(text: &str) -> Vec<u8> {
    let units: Vec<u16> = text.encode_utf16().take(255).collect();
    let mut out = vec![u8::try_from(units.len()).expect("at most 255 units were taken")];
    out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    out
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("columns, texts and tokens of the stand-in are shorter than 64 KiB")
}
