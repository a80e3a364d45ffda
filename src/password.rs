//! Passwords of `sa`: the engine's rule, and a generator. Also the random identity of a volume.
//!
//! The only place that asks the kernel for random bytes. A password never appears in a message.

/// Longest password the engine takes.
const LONGEST: usize = 128;

const SHORTEST: usize = 8;

const GENERATED: usize = 24;

/// Characters of a generated password: no look-alikes, and nothing that a shell, a URL or a connection string would take
/// for its own.
const CLASSES: [&[u8]; 4] = [
    b"ABCDEFGHJKLMNPQRSTUVWXYZ",
    b"abcdefghijkmnopqrstuvwxyz",
    b"23456789",
    b"-_.+",
];

/// The kernel gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the kernel gave no random bytes: check that the node offers getrandom(2)")]
pub struct NoRandomness(#[from] getrandom::Error);

/// The engine's rule: 8 to 128 characters of at least three of the four classes upper case, lower case, digits and symbols.
/// An engine that is given another password stops while it starts.
pub fn check(password: &str) -> Result<(), String> {
    let length = password.chars().count();
    if length < SHORTEST {
        return Err(format!(
            "the password has fewer than {SHORTEST} characters: choose a longer one"
        ));
    }
    if length > LONGEST {
        return Err(format!(
            "the password has more than {LONGEST} characters: choose a shorter one"
        ));
    }
    // typically a line feed from `echo`: the engine would take it as part of the password, clients would not send it
    if password.chars().any(char::is_control) {
        return Err("the password contains a control character such as a line feed: write it without one".to_owned());
    }
    let classes = [
        password.chars().any(char::is_uppercase),
        password.chars().any(char::is_lowercase),
        password.chars().any(|c| c.is_ascii_digit()),
        password.chars().any(|c| !c.is_alphanumeric()),
    ];
    if classes.into_iter().filter(|present| *present).count() < 3 {
        return Err(
            "the password needs three of upper case, lower case, digits and symbols: add another kind".to_owned(),
        );
    }
    Ok(())
}

/// A password of 24 characters with all four classes in it.
pub fn generate() -> Result<String, NoRandomness> {
    let mut characters = Vec::with_capacity(GENERATED);
    for class in CLASSES {
        characters.push(class[below(class.len())?]);
    }
    let all = CLASSES.concat();
    while characters.len() < GENERATED {
        characters.push(all[below(all.len())?]);
    }
    // Fisher-Yates: otherwise the first four places would tell their class
    for place in (1..characters.len()).rev() {
        characters.swap(place, below(place + 1)?);
    }
    Ok(String::from_utf8(characters).expect("the classes are ASCII"))
}

/// A random identity for a volume, 32 hexadecimal digits: what the marker file on it must say.
pub fn random_id() -> Result<String, NoRandomness> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// A number below `bound`, each equally likely: bytes beyond the largest multiple are thrown away.
fn below(bound: usize) -> Result<usize, NoRandomness> {
    let limit = 256 - 256 % bound;
    loop {
        let mut byte = [0];
        getrandom::fill(&mut byte)?;
        let value = usize::from(byte[0]);
        if value < limit {
            return Ok(value % bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{CLASSES, check, generate, random_id};

    #[test]
    fn the_engines_rule_decides() {
        for (password, accepted) in [
            ("Abcdefg1", true),
            ("abcdef1-", true),
            ("ABCDEF1-", true),
            ("Abcdefg-", true),
            ("Äöüdefg1", true),
            ("Abcdef1", false),
            ("abcdefgh", false),
            ("abcdefg1", false),
            ("12345678", false),
            ("ABCDEFG1", false),
            ("Abcdefg1\n", false),
            ("", false),
        ] {
            assert_eq!(check(password).is_ok(), accepted, "{password:?}");
        }
        assert!(check(&"Aa1".repeat(42)).is_ok());
        assert!(check(&"Aa1".repeat(43)).is_err());
    }

    #[test]
    fn the_reason_never_repeats_the_password() {
        let reason = check("hunter2").expect_err("too short");
        assert!(!reason.contains("hunter2"));
    }

    #[test]
    fn a_generated_password_passes_the_rule_with_all_four_classes_and_never_comes_twice() {
        let passwords: BTreeSet<String> = (0..200).map(|_| generate().expect("random bytes")).collect();
        assert_eq!(passwords.len(), 200);
        for password in &passwords {
            assert_eq!(password.len(), 24);
            assert_eq!(check(password), Ok(()));
            assert!(
                CLASSES
                    .iter()
                    .all(|class| password.bytes().any(|byte| class.contains(&byte))),
                "a class is missing"
            );
        }
        // the shuffle works: the place of a class is not fixed
        let first: BTreeSet<usize> = passwords
            .iter()
            .filter_map(|password| CLASSES.iter().position(|class| class.contains(&password.as_bytes()[0])))
            .collect();
        assert_eq!(first.len(), 4);
    }

    #[test]
    fn a_volume_identity_is_32_hexadecimal_digits() {
        let id = random_id().expect("random bytes");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, random_id().expect("random bytes"));
    }
}
