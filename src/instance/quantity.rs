//! Kubernetes quantities: read, compared, and written the way the API server stores them.
//!
//! The API server rewrites `0.5` to `500m` and `1024Mi` to `1Gi`. Desired objects carry that form from the start, so that
//! comparing them with stored ones finds real differences only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Invalid;

const NANO: i128 = 1_000_000_000;

/// Suffixes by power of 1024, from 1024^1.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Suffixes by power of 1000, from 1000^-3.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// How a quantity was written; it is stored in the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// A quantity's value in billionths, the finest that Kubernetes knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    nanos: i128,
    format: Format,
}

impl Parsed {
    pub(super) fn is_positive(&self) -> bool {
        self.nanos > 0
    }

    /// The value rounded up to a whole number, as Kubernetes does for bytes.
    pub(super) fn whole(self) -> i128 {
        let rest = self.nanos.rem_euclid(NANO);
        let floor = (self.nanos - rest) / NANO;
        if rest == 0 { floor } else { floor + 1 }
    }

    /// The form that the API server stores.
    pub(super) fn canonical(self) -> String {
        if self.nanos == 0 {
            return "0".to_owned();
        }
        // below 1024 a binary suffix could not express fractions
        if self.format == Format::Binary && self.nanos.abs() >= 1024 * NANO {
            let (mantissa, power) = factor_out(self.whole(), 1024, BINARY.len());
            let suffix = power.checked_sub(1).map_or("", |index| BINARY[index]);
            return format!("{mantissa}{suffix}");
        }
        let (mantissa, power) = factor_out(self.nanos, 1000, DECIMAL.len() - 1);
        match (self.format, power) {
            (Format::Exponent, 3) => mantissa.to_string(),
            (Format::Exponent, _) => {
                let exponent = 3 * i32::try_from(power).expect("a power of at most 9") - 9;
                format!("{mantissa}e{exponent}")
            }
            (Format::Binary | Format::Decimal, _) => format!("{mantissa}{}", DECIMAL[power]),
        }
    }
}

/// Divides by `base` as long as nothing is lost, at most `limit` times.
fn factor_out(mut mantissa: i128, base: i128, limit: usize) -> (i128, usize) {
    let mut power = 0;
    while power < limit && mantissa % base == 0 {
        mantissa /= base;
        power += 1;
    }
    (mantissa, power)
}

/// Whether the first one, in whole units, is more; what is no quantity is no more than anything.
pub fn exceeds(one: &Quantity, other: &Quantity) -> bool {
    parse(&one.0)
        .zip(parse(&other.0))
        .is_some_and(|(one, other)| one.whole() > other.whole())
}

/// Reads a quantity; none where Kubernetes would refuse it, or where it is beyond 2^63.
pub(super) fn parse(text: &str) -> Option<Parsed> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (format, multiplier, divisor) = scale(suffix)?;

    // exact: all digits as one integer, then one multiplication and one division that rounds away from zero
    let digits = format!("{whole}{fraction}");
    let digits = if digits.is_empty() {
        0
    } else {
        digits.parse::<i128>().ok()?
    };
    let divisor = 10_i128
        .checked_pow(u32::try_from(fraction.len()).ok()?)?
        .checked_mul(divisor)?;
    let scaled = digits.checked_mul(multiplier)?.checked_mul(NANO)?;
    let nanos = scaled / divisor + i128::from(scaled % divisor != 0);
    (nanos <= i128::from(i64::MAX) * NANO).then_some(Parsed {
        nanos: if negative { -nanos } else { nanos },
        format,
    })
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(Format, i128, i128)> {
    if let Some(index) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Format::Binary, 1024_i128.pow(u32::try_from(index).ok()? + 1), 1));
    }
    if let Some(index) = DECIMAL.iter().position(|known| *known == suffix) {
        let power = u32::try_from(index).ok()?;
        return Some((
            Format::Decimal,
            1000_i128.pow(power.saturating_sub(3)),
            1000_i128.pow(3_u32.saturating_sub(power)),
        ));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    Some(if exponent < 0 {
        (Format::Exponent, 1, power)
    } else {
        (Format::Exponent, power, 1)
    })
}

/// Resources with every quantity checked and in stored form; empty maps, which the API server drops, are left out.
pub(super) fn canonical_resources(resources: ResourceRequirements) -> Result<ResourceRequirements, Invalid> {
    let ResourceRequirements {
        claims,
        limits,
        requests,
    } = resources;
    if let (Some(limits), Some(requests)) = (&limits, &requests) {
        for (key, request) in requests {
            let limit = limits.get(key).and_then(|limit| parse(&limit.0));
            if let (Some(limit), Some(request)) = (limit, parse(&request.0))
                && request.nanos > limit.nanos
            {
                return Err(Invalid::new(
                    format!("spec.resources.requests.{key}"),
                    "is more than the limit: lower it, or raise the limit",
                ));
            }
        }
    }
    Ok(ResourceRequirements {
        claims: claims.filter(|claims| !claims.is_empty()),
        limits: canonical_list("limits", limits)?,
        requests: canonical_list("requests", requests)?,
    })
}

fn canonical_list(
    list: &str,
    quantities: Option<BTreeMap<String, Quantity>>,
) -> Result<Option<BTreeMap<String, Quantity>>, Invalid> {
    quantities
        .filter(|quantities| !quantities.is_empty())
        .map(|quantities| {
            quantities
                .into_iter()
                .map(
                    |(key, quantity)| match parse(&quantity.0).filter(|parsed| parsed.nanos >= 0) {
                        Some(parsed) => Ok((key, Quantity(parsed.canonical()))),
                        None => Err(Invalid::new(
                            format!("spec.resources.{list}.{key}"),
                            "is no quantity: write memory such as 4Gi and cpu such as 2 or 500m",
                        )),
                    },
                )
                .collect()
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn quantities_take_the_form_that_the_api_server_stores() {
        for (written, stored) in [
            ("8Gi", "8Gi"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1073741824", "1073741824"),
            ("0.5Ki", "512"),
            ("0.0005Ki", "512m"),
            ("0.5", "500m"),
            ("2000m", "2"),
            ("1500m", "1500m"),
            ("2", "2"),
            ("10000", "10k"),
            ("1000M", "1G"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("5e0", "5"),
            ("1E", "1E"),
            ("500000e-6", "500e-3"),
            (".5", "500m"),
            ("5.", "5"),
            ("0", "0"),
            ("0Gi", "0"),
            ("-1Gi", "-1Gi"),
            ("+4Gi", "4Gi"),
            ("1n", "1n"),
            ("0.1n", "1n"),
        ] {
            assert_eq!(
                parse(written).map(super::Parsed::canonical).as_deref(),
                Some(stored),
                "{written}"
            );
        }
    }

    #[test]
    fn what_kubernetes_would_refuse_is_no_quantity() {
        for text in [
            "",
            ".",
            "Gi",
            "8 Gi",
            "8GB",
            "8gi",
            "lots",
            "1..2",
            "1.2.3",
            "1e",
            "1e1.5",
            "--1",
            "0x10",
            "9e30",
            "\u{661}Gi",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_are_rounded_up_to_whole_ones() {
        for (written, bytes) in [("1Ki", 1024), ("0.1", 1), ("1500m", 2), ("-1500m", -1), ("2", 2)] {
            assert_eq!(parse(written).map(super::Parsed::whole), Some(bytes), "{written}");
        }
    }
}
