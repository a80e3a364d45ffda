//! Texts that the API server takes only up to a length. Pure.

/// The beginning of a text: at most so many bytes, and no half character.
pub fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(cut("größe", 5), "grö");
        assert_eq!(cut("größe", 4), "grö");
        assert_eq!(cut("größe", 3), "gr");
        assert_eq!(cut("größe", 100), "größe");
        assert_eq!(cut("ö", 1), "");
    }
}
