//! Cuts a batch into tokens. Comments and white space vanish; every token knows where it stood, so that an error can
//! quote the statement as it was written.

use std::ops::Range;

/// A token's kind and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a plain name.
    Word(String),
    /// `[name]` or `"name"`: never a keyword.
    Quoted(String),
    /// Digits.
    Number(i64),
    /// `'text'` or `N'text'`.
    Text(String),
    /// `@name`.
    Parameter(String),
    /// `@@name`, without the signs.
    Global(String),
    /// Anything else.
    Symbol(char),
}

/// A token and its place in the batch.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it stood, in bytes.
    pub span: Range<usize>,
}

impl Token {
    /// True for this keyword.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(own) if own.eq_ignore_ascii_case(word))
    }

    /// True for this sign.
    pub fn is_symbol(&self, symbol: char) -> bool {
        self.kind == Kind::Symbol(symbol)
    }
}

/// The tokens of `sql`. A text without end becomes the symbol `'`, which no statement has.
pub fn tokens(sql: &str) -> Vec<Token> {
    let mut lexer = Lexer { sql, at: 0 };
    let mut out = Vec::new();
    while let Some(token) = lexer.next() {
        out.push(token);
    }
    out
}

struct Lexer<'a> {
    sql: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.sql[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let skipped = if rest.starts_with("--") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else {
                rest.len()
                    - rest
                        .trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
                        .len()
            };
            if skipped == 0 {
                return;
            }
            self.at += skipped;
        }
    }

    fn next(&mut self) -> Option<Token> {
        self.skip_blanks();
        let start = self.at;
        let first = self.rest().chars().next()?;
        let kind = match first {
            'N' | 'n' if self.rest()[1..].starts_with('\'') => {
                self.at += 1;
                self.delimited('\'').map(Kind::Text)
            }
            '\'' => self.delimited('\'').map(Kind::Text),
            '[' => self.delimited(']').map(Kind::Quoted),
            '"' => self.delimited('"').map(Kind::Quoted),
            '@' if self.rest().starts_with("@@") => {
                self.at += 2;
                Some(Kind::Global(self.word()))
            }
            '@' => {
                self.at += 1;
                Some(Kind::Parameter(format!("@{}", self.word())))
            }
            c if c.is_alphabetic() || c == '_' || c == '#' => Some(Kind::Word(self.word())),
            c if c.is_ascii_digit() => {
                let digits = self.word();
                digits.parse().ok().map(Kind::Number)
            }
            _ => None,
        };
        let kind = kind.unwrap_or_else(|| {
            self.at = start + first.len_utf8();
            Kind::Symbol(first)
        });
        Some(Token {
            kind,
            span: start..self.at,
        })
    }

    fn word(&mut self) -> String {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || "_#$@".contains(c)))
            .unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.at += end;
        word
    }

    /// Text up to `close`, which stands doubled for itself.
    fn delimited(&mut self, close: char) -> Option<String> {
        let mut text = String::new();
        let rest = &self.sql[self.at + 1..];
        let mut characters = rest.char_indices().peekable();
        while let Some((index, c)) = characters.next() {
            if c != close {
                text.push(c);
            } else if characters.next_if(|(_, next)| *next == close).is_some() {
                text.push(close);
            } else {
                self.at += 1 + index + close.len_utf8();
                return Some(text);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sql: &str) -> Vec<Kind> {
        tokens(sql).into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn comments_and_blanks_vanish() {
        assert_eq!(kinds(" -- x\n/* y */ a /* open"), [Kind::Word("a".into())]);
    }

    #[test]
    fn texts_and_quoted_names_undouble_their_sign() {
        let expected = [
            Kind::Text("it's".into()),
            Kind::Quoted("a]b".into()),
            Kind::Text("x".into()),
        ];
        assert_eq!(kinds("'it''s' [a]]b] N'x'"), expected);
    }

    #[test]
    fn a_text_without_end_is_a_lone_quote() {
        assert_eq!(kinds("'abc")[0], Kind::Symbol('\''));
    }

    #[test]
    fn parameters_and_globals_differ() {
        assert_eq!(
            kinds("@p1 @@VERSION"),
            [Kind::Parameter("@p1".into()), Kind::Global("VERSION".into())]
        );
    }
}
