//! Procedure calls: the name and the parameters of `sp_executesql`.

use std::io;

use super::{Reader, decode_utf16, invalid};
use crate::value::Value;

const SP_EXECUTESQL: u16 = 10;
/// A length that says the value is NULL or comes in chunks.
const UNKNOWN_LENGTH: u16 = 0xFFFF;
const NULL_CHUNKS: u64 = u64::MAX;

/// A call as it came.
pub enum Call {
    /// `sp_executesql` with its text and parameters; names are as sent, empty when positional.
    ExecuteSql {
        /// The batch.
        sql: String,
        /// `@P1 bigint, @P2 nvarchar(4000)`.
        declarations: String,
        /// In the order sent.
        parameters: Vec<(String, Value)>,
    },
    /// Any other procedure.
    Unknown(String),
    /// A parameter of a type we do not know.
    UnknownType(u8),
}

/// Reads a call; `body` starts after `ALL_HEADERS`.
pub fn parse(body: &[u8]) -> io::Result<Call> {
    let mut reader = Reader::new(body);
    let length = reader.u16()?;
    if length == UNKNOWN_LENGTH {
        let id = reader.u16()?;
        if id != SP_EXECUTESQL {
            return Ok(Call::Unknown(format!("procedure number {id}")));
        }
    } else {
        let name = reader.text(usize::from(length))?;
        if !name.eq_ignore_ascii_case("sp_executesql") {
            return Ok(Call::Unknown(name));
        }
    }
    reader.u16()?;
    let mut parameters = Vec::new();
    while !reader.is_empty() {
        let name = reader.b_varchar()?;
        reader.u8()?;
        match value(&mut reader)? {
            Ok(value) => parameters.push((name, value)),
            Err(kind) => return Ok(Call::UnknownType(kind)),
        }
    }
    let mut parameters = parameters.into_iter();
    let Some((_, Value::Text(sql))) = parameters.next() else {
        return Err(invalid("sp_executesql was called without a statement"));
    };
    let declarations = match parameters.next() {
        Some((_, Value::Text(text))) => text,
        _ => String::new(),
    };
    Ok(Call::ExecuteSql {
        sql,
        declarations,
        parameters: parameters.collect(),
    })
}

/// One `TYPE_INFO` and its value; the inner error is the number of a type we do not know.
fn value(reader: &mut Reader<'_>) -> io::Result<Result<Value, u8>> {
    let kind = reader.u8()?;
    let value = match kind {
        // NULL, TINYINT, BIT, SMALLINT, INT, BIGINT of fixed length
        0x1F => Value::Null,
        0x30 | 0x32 => integer(reader.take(1)?),
        0x34 => integer(reader.take(2)?),
        0x38 => integer(reader.take(4)?),
        0x7F => integer(reader.take(8)?),
        // INTN and BITN
        0x26 | 0x68 => {
            reader.u8()?;
            let length = usize::from(reader.u8()?);
            integer(reader.take(length)?)
        }
        // NVARCHAR, NCHAR; VARCHAR, CHAR
        0xE7 | 0xEF | 0xA7 | 0xAF => {
            let longest = reader.u16()?;
            reader.take(5)?;
            let bytes = if longest == UNKNOWN_LENGTH {
                chunks(reader)?
            } else {
                counted(reader)?
            };
            match bytes {
                None => Value::Null,
                Some(bytes) if kind == 0xE7 || kind == 0xEF => Value::Text(decode_utf16(&bytes)?),
                Some(bytes) => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
            }
        }
        // NTEXT, as old drivers send long statements
        0x63 => {
            reader.take(4 + 5)?;
            let length = usize::try_from(reader.u32()?).map_err(|_| invalid("a text is too long"))?;
            if length == usize::try_from(u32::MAX).unwrap_or(usize::MAX) {
                Value::Null
            } else {
                Value::Text(decode_utf16(reader.take(length)?)?)
            }
        }
        other => return Ok(Err(other)),
    };
    Ok(Ok(value))
}

/// TINYINT and BIT are unsigned; the others are two's complement.
fn integer(bytes: &[u8]) -> Value {
    match *bytes {
        [] => Value::Null,
        [byte] => Value::Int(i64::from(byte)),
        _ => {
            let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
            let mut wide = [if negative { 0xFF } else { 0 }; 8];
            let length = bytes.len().min(8);
            wide[..length].copy_from_slice(&bytes[..length]);
            Value::Int(i64::from_le_bytes(wide))
        }
    }
}

fn counted(reader: &mut Reader<'_>) -> io::Result<Option<Vec<u8>>> {
    match reader.u16()? {
        UNKNOWN_LENGTH => Ok(None),
        length => Ok(Some(reader.take(usize::from(length))?.to_vec())),
    }
}

fn chunks(reader: &mut Reader<'_>) -> io::Result<Option<Vec<u8>>> {
    let low = u64::from(reader.u32()?);
    let total = low | u64::from(reader.u32()?) << 32;
    if total == NULL_CHUNKS {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    loop {
        let length = usize::try_from(reader.u32()?).map_err(|_| invalid("a chunk is too long"))?;
        if length == 0 {
            return Ok(Some(bytes));
        }
        bytes.extend(reader.take(length)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nvarchar(text: &str) -> Vec<u8> {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0, 0, 0xE7, 0x40, 0x1F, 0, 0, 0, 0, 0];
        out.extend(u16::try_from(bytes.len()).unwrap().to_le_bytes());
        out.extend(bytes);
        out
    }

    fn call() -> Vec<u8> {
        let mut body = vec![0xFF, 0xFF, 10, 0, 0, 0];
        body.extend(nvarchar("SELECT 1"));
        body.extend(nvarchar("@P1 bigint"));
        body.extend([3, b'@', 0, b'P', 0, b'1', 0, 0, 0x26, 8, 8]);
        body.extend((-7_i64).to_le_bytes());
        body
    }

    #[test]
    fn sp_executesql_yields_its_text_and_parameters() {
        let Call::ExecuteSql {
            sql,
            declarations,
            parameters,
        } = parse(&call()).unwrap()
        else {
            panic!()
        };
        assert_eq!((sql.as_str(), declarations.as_str()), ("SELECT 1", "@P1 bigint"));
        assert_eq!(parameters, [("@P1".to_owned(), Value::Int(-7))]);
    }

    #[test]
    fn a_call_cut_off_anywhere_never_panics() {
        let whole = call();
        for length in 0..whole.len() {
            let _ = parse(&whole[..length]);
        }
        assert!(parse(&whole[..3]).is_err());
    }

    #[test]
    fn another_procedure_is_named() {
        assert!(matches!(parse(&[0xFF, 0xFF, 13, 0]).unwrap(), Call::Unknown(name) if name.contains("13")));
    }

    #[test]
    fn small_integers_keep_their_sign() {
        assert_eq!(integer(&[0xFE, 0xFF]), Value::Int(-2));
        assert_eq!(integer(&[0xFE]), Value::Int(254));
        assert_eq!(integer(&[]), Value::Null);
    }
}
