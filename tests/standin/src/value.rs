//! The few SQL types the stand-in knows, and values of them.

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlType {
    /// 32 bits.
    Int,
    /// 64 bits.
    BigInt,
    /// Text of at most so many characters.
    NVarChar(u16),
    /// What `SERVERPROPERTY` returns: a value that carries its own type. Not every driver can read it, which is why
    /// programs cast it; answering with plain text here would hide a program that forgot.
    Variant,
}

/// The longest text that is not `NVARCHAR(MAX)`.
pub const MAX_CHARS: u16 = 4000;

/// A value of a row, a parameter or a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// NULL of any type.
    Null,
    /// INT and BIGINT.
    Int(i64),
    /// NVARCHAR.
    Text(String),
}

/// A result's column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name; empty for an expression without alias.
    pub name: String,
    /// Type on the wire.
    pub sql_type: SqlType,
}
