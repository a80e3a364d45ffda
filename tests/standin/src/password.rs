//! The password rule of the engine, and the salted hash that is stored.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA512};
use aws_lc_rs::rand;

/// Few, because the stand-in answers one login for every statement of a test and its passwords guard nothing.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// A salt and the hash made with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash {
    /// Random bytes.
    pub salt: Vec<u8>,
    /// PBKDF2-HMAC-SHA512 of the password.
    pub hash: Vec<u8>,
}

impl Hash {
    /// Hashes a new password.
    pub fn of(password: &str) -> Self {
        let mut salt = vec![0; 16];
        rand::fill(&mut salt).expect("the kernel gives random bytes");
        let mut hash = vec![0; 64];
        pbkdf2::derive(PBKDF2_HMAC_SHA512, ITERATIONS, &salt, password.as_bytes(), &mut hash);
        Self { salt, hash }
    }

    /// True when this is the password, found out in constant time.
    pub fn matches(&self, password: &str) -> bool {
        pbkdf2::verify(
            PBKDF2_HMAC_SHA512,
            ITERATIONS,
            &self.salt,
            password.as_bytes(),
            &self.hash,
        )
        .is_ok()
    }
}

/// Why a password is not allowed, in the engine's words.
pub fn weakness(password: &str) -> Option<&'static str> {
    let length = password.chars().count();
    if length < 8 {
        return Some(
            "The password does not meet SQL Server password policy requirements because it is too short. The password \
             must be at least 8 characters.",
        );
    }
    if length > 128 {
        return Some("The password does not meet SQL Server password policy requirements because it is too long.");
    }
    let classes: [fn(char) -> bool; 4] = [char::is_uppercase, char::is_lowercase, char::is_numeric, |c| {
        !c.is_alphanumeric()
    }];
    let present = classes.iter().filter(|class| password.chars().any(**class)).count();
    (present < 3).then_some(
        "The password does not meet SQL Server password policy requirements because it is not complex enough. The \
         password must be at least 8 characters long and contain characters from three of the following four sets: \
         uppercase letters, lowercase letters, numbers, and symbols.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_characters_of_three_classes_are_enough_and_no_less() {
        assert_eq!(weakness("abcdEF12"), None);
        assert_eq!(weakness("abcde!12"), None);
        assert!(weakness("abcEF12").unwrap().contains("too short"));
        assert!(weakness("abcdefg1").unwrap().contains("not complex enough"));
        assert!(weakness("ABCDEFGH").is_some());
        assert!(weakness(&"aB1".repeat(43)).unwrap().contains("too long"));
    }

    #[test]
    fn a_hash_matches_its_password_only_and_never_looks_the_same_twice() {
        let hash = Hash::of("Str0ng!Passw0rd");
        assert!(hash.matches("Str0ng!Passw0rd"));
        assert!(!hash.matches("Str0ng!Passw0rD"));
        assert_ne!(hash, Hash::of("Str0ng!Passw0rd"));
    }
}
