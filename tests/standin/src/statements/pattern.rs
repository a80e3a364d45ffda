//! The small pattern language of the statement table, and its matcher.
//!
//! Words and signs stand for themselves, `[..]` may be left out, `{kind}` captures. A pattern is matched from left to
//! right without coming back on a choice; the table has no statement that needs more.

use super::lexer::{Kind, Token};
use super::{Aggregate, ColumnDefinition, Condition, Operand, Projection, Scalar, ScalarKind};
use crate::value::{MAX_CHARS, SqlType, Value};

/// No list of a statement is longer.
const LIST_LIMIT: usize = 1024;
/// Words with which another statement starts. WITH is not among them: it also stands inside statements.
const STARTERS: &[&str] = &[
    "SET",
    "SELECT",
    "INSERT",
    "DELETE",
    "USE",
    "CREATE",
    "DROP",
    "IF",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "CHECKPOINT",
    "SHUTDOWN",
    "ALTER",
    "UPDATE",
    "EXEC",
    "EXECUTE",
    "DECLARE",
    "BACKUP",
    "RESTORE",
    "MERGE",
    "PRINT",
];

/// What a match captured, in the order of the pattern.
#[derive(Default)]
pub struct Captures {
    /// `{name}` and `{table}`.
    pub names: Vec<String>,
    /// `{value}`.
    pub values: Vec<Operand>,
    /// `{names}`.
    pub lists: Vec<Vec<String>>,
    /// `{scalars}`.
    pub scalars: Vec<Scalar>,
    /// `{tuples}`.
    pub tuples: Vec<Vec<Operand>>,
    /// `{columns}`.
    pub columns: Vec<ColumnDefinition>,
    /// The primary key that `{columns}` or its constraint names.
    pub key: Vec<String>,
    /// `{projection}`.
    pub projection: Vec<Projection>,
    /// `{where}`.
    pub conditions: Vec<Condition>,
    /// `{order}`, with true for descending.
    pub order: Vec<(String, bool)>,
}

/// Matches `pattern` at the start of `tokens`; yields the captures and how many tokens they took.
pub fn matches(pattern: &str, tokens: &[Token]) -> Option<(Captures, usize)> {
    let mut matcher = Matcher {
        tokens,
        at: 0,
        captures: Captures::default(),
    };
    matcher.pattern(pattern).then_some((matcher.captures, matcher.at))
}

/// True for a keyword with which a statement starts.
pub fn starts_statement(token: &Token) -> bool {
    STARTERS.iter().any(|word| token.is_word(word))
}

struct Matcher<'a> {
    tokens: &'a [Token],
    at: usize,
    captures: Captures,
}

impl Matcher<'_> {
    fn pattern(&mut self, pattern: &str) -> bool {
        let mut rest = pattern.trim_start();
        while let Some(first) = rest.chars().next() {
            let end = match first {
                '[' => {
                    let end = closing(rest);
                    self.optional(&rest[1..end]);
                    end + 1
                }
                '{' => {
                    let end = rest.find('}').expect("the table's captures are closed");
                    if self.capture(&rest[1..end]).is_none() {
                        return false;
                    }
                    end + 1
                }
                c if c.is_alphanumeric() || c == '_' => {
                    let end = rest
                        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                        .unwrap_or(rest.len());
                    if !self.word(&rest[..end]) {
                        return false;
                    }
                    end
                }
                symbol => {
                    if !self.symbol(symbol) {
                        return false;
                    }
                    symbol.len_utf8()
                }
            };
            rest = rest[end..].trim_start();
        }
        true
    }

    /// Takes an optional part if all of it is there. Its captures come last in the pattern or are harmless twice, so
    /// only the position needs to be put back.
    fn optional(&mut self, pattern: &str) {
        let start = self.at;
        if !self.pattern(pattern) {
            self.at = start;
        }
    }

    fn peek(&self) -> Option<&Kind> {
        self.tokens.get(self.at).map(|token| &token.kind)
    }

    fn word(&mut self, word: &str) -> bool {
        let matched = self.tokens.get(self.at).is_some_and(|token| match token.kind {
            Kind::Number(number) => number.to_string() == word,
            _ => token.is_word(word),
        });
        self.at += usize::from(matched);
        matched
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let matched = self.tokens.get(self.at).is_some_and(|token| token.is_symbol(symbol));
        self.at += usize::from(matched);
        matched
    }

    fn capture(&mut self, kind: &str) -> Option<()> {
        match kind {
            "name" => {
                let name = self.name()?;
                self.captures.names.push(name);
            }
            "table" => {
                let table = self.table()?;
                self.captures.names.push(table);
            }
            "value" => {
                let value = self.operand()?;
                self.captures.values.push(value);
            }
            "names" => {
                let names = self.list(Self::name)?;
                self.captures.lists.push(names);
            }
            "scalars" => self.captures.scalars = self.list(Self::scalar)?,
            "tuples" => self.captures.tuples = self.list(Self::tuple)?,
            "columns" => {
                self.list(Self::column)?;
            }
            "projection" => self.captures.projection = self.list(Self::projection)?,
            "where" => loop {
                let condition = self.condition()?;
                self.captures.conditions.push(condition);
                if !self.word("AND") {
                    break;
                }
            },
            "order" => self.captures.order = self.list(Self::order)?,
            "option" => self.option()?,
            _ => unreachable!("the table has no capture {kind}"),
        }
        Some(())
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = vec![item(self)?];
        while self.symbol(',') {
            items.push(item(self)?);
            if items.len() > LIST_LIMIT {
                return None;
            }
        }
        Some(items)
    }

    fn name(&mut self) -> Option<String> {
        let (Kind::Word(name) | Kind::Quoted(name)) = self.peek()? else {
            return None;
        };
        let name = name.clone();
        self.at += 1;
        Some(name)
    }

    /// A table of the schema `dbo`, the only one there is.
    fn table(&mut self) -> Option<String> {
        let first = self.name()?;
        if !self.symbol('.') {
            return Some(first);
        }
        first.eq_ignore_ascii_case("dbo").then(|| self.name())?
    }

    fn operand(&mut self) -> Option<Operand> {
        let negative = self.symbol('-');
        let operand = match self.peek()? {
            Kind::Number(number) => Operand::Literal(Value::Int(if negative { -*number } else { *number })),
            _ if negative => return None,
            Kind::Text(text) => Operand::Literal(Value::Text(text.clone())),
            Kind::Parameter(name) => Operand::Parameter(name.clone()),
            Kind::Word(word) if word.eq_ignore_ascii_case("NULL") => Operand::Literal(Value::Null),
            _ => return None,
        };
        self.at += 1;
        Some(operand)
    }

    fn tuple(&mut self) -> Option<Vec<Operand>> {
        if !self.symbol('(') {
            return None;
        }
        let values = self.list(Self::operand)?;
        self.symbol(')').then_some(values)
    }

    fn scalar(&mut self) -> Option<Scalar> {
        let kind = self.scalar_kind()?;
        Some(Scalar {
            kind,
            alias: self.alias(),
        })
    }

    fn alias(&mut self) -> String {
        if self.word("AS") {
            return self.name().unwrap_or_default();
        }
        String::new()
    }

    fn scalar_kind(&mut self) -> Option<ScalarKind> {
        if let Some(Kind::Global(name)) = self.peek() {
            let name = name.to_ascii_uppercase();
            let kind = match name.as_str() {
                "VERSION" => ScalarKind::Version,
                "SERVERNAME" => ScalarKind::ServerName,
                "TRANCOUNT" => ScalarKind::TransactionCount,
                _ => return None,
            };
            self.at += 1;
            return Some(kind);
        }
        if self.word("CAST") {
            let inner = self.symbol('(').then(|| self.scalar_kind())??;
            let sql_type = self.word("AS").then(|| self.sql_type())??;
            return self.symbol(')').then(|| ScalarKind::Cast(Box::new(inner), sql_type));
        }
        if self.word("SERVERPROPERTY") {
            let name = self.symbol('(').then(|| self.operand())??;
            return self.symbol(')').then_some(ScalarKind::ServerProperty(name));
        }
        if self.word("DB_NAME") {
            return (self.symbol('(') && self.symbol(')')).then_some(ScalarKind::DatabaseName);
        }
        self.operand().map(ScalarKind::Constant)
    }

    fn sql_type(&mut self) -> Option<SqlType> {
        let Kind::Word(word) = self.peek()? else { return None };
        let sql_type = match word.to_ascii_uppercase().as_str() {
            "INT" => SqlType::Int,
            "BIGINT" => SqlType::BigInt,
            "NVARCHAR" => {
                self.at += 1;
                let Kind::Number(chars) = self.symbol('(').then(|| self.peek())?? else {
                    return None;
                };
                let chars = u16::try_from(*chars)
                    .ok()
                    .filter(|chars| (1..=MAX_CHARS).contains(chars))?;
                self.at += 1;
                return self.symbol(')').then_some(SqlType::NVarChar(chars));
            }
            _ => return None,
        };
        self.at += 1;
        Some(sql_type)
    }

    /// A column, or the table's `PRIMARY KEY (..)`.
    fn column(&mut self) -> Option<()> {
        if self.word("PRIMARY") {
            let names = (self.word("KEY") && self.symbol('(')).then(|| self.list(Self::name))??;
            self.captures.key = names;
            return self.symbol(')').then_some(());
        }
        let name = self.name()?;
        let sql_type = self.sql_type()?;
        let mut column = ColumnDefinition {
            name,
            sql_type,
            nullable: true,
            identity: false,
        };
        loop {
            if self.word("NOT") {
                column.nullable = self.word("NULL").then_some(false)?;
            } else if self.word("NULL") {
                column.nullable = true;
            } else if self.word("IDENTITY") {
                let one = Some(Operand::Literal(Value::Int(1)));
                let counts_from_one = !self.symbol('(')
                    || (self.operand() == one && self.symbol(',') && self.operand() == one && self.symbol(')'));
                // SQLite's row id, which stands behind it, has 64 bits
                column.identity = (counts_from_one && sql_type == SqlType::BigInt).then_some(true)?;
            } else if self.word("PRIMARY") {
                self.word("KEY").then_some(())?;
                self.captures.key = vec![column.name.clone()];
            } else {
                break;
            }
        }
        self.captures.columns.push(column);
        Some(())
    }

    fn projection(&mut self) -> Option<Projection> {
        if self.symbol('*') {
            return Some(Projection::Everything);
        }
        let start = self.at;
        let name = self.name()?;
        if !self.symbol('(') {
            return Some(Projection::Column {
                name,
                alias: self.alias(),
            });
        }
        let aggregate = match name.to_ascii_uppercase().as_str() {
            "COUNT" | "COUNT_BIG" => {
                let everything = self.symbol('*');
                let big = name.len() > "COUNT".len();
                everything.then_some(if big { Aggregate::CountBig } else { Aggregate::Count })
            }
            "MAX" => self.name().map(Aggregate::Max),
            "MIN" => self.name().map(Aggregate::Min),
            _ => None,
        };
        match aggregate {
            Some(aggregate) if self.symbol(')') => Some(Projection::Aggregate {
                aggregate,
                alias: self.alias(),
            }),
            _ => {
                self.at = start;
                None
            }
        }
    }

    fn condition(&mut self) -> Option<Condition> {
        let column = self.name()?;
        let mut comparison = String::new();
        while let Some(Kind::Symbol(sign @ ('=' | '<' | '>'))) = self.peek() {
            comparison.push(*sign);
            self.at += 1;
        }
        matches!(comparison.as_str(), "=" | "<" | ">" | "<=" | ">=" | "<>").then_some(())?;
        Some(Condition {
            column,
            comparison,
            value: self.operand()?,
        })
    }

    fn order(&mut self) -> Option<(String, bool)> {
        let name = self.name()?;
        let descending = self.word("DESC");
        if !descending {
            self.word("ASC");
        }
        Some((name, descending))
    }

    /// What follows an ignored SET: everything up to the next statement.
    fn option(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(token) = self.tokens.get(self.at) {
            if token.is_symbol(';') || starts_statement(token) {
                break;
            }
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// Where the bracket that opens `pattern` closes.
fn closing(pattern: &str) -> usize {
    let mut depth = 0;
    for (at, c) in pattern.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    unreachable!("the table's brackets are closed")
}
