//! Amounts as Kubernetes and people write them: vCPUs, memory, money.

use super::offering::MicroDollars;

/// The suffixes of Kubernetes' quantities, as numerator and denominator.
const SUFFIXES: [(&str, u128, u128); 14] = [
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
    ("", 1, 1),
];

/// A quantity of Kubernetes such as `1500m`, `64`, `1.5Gi`, in thousandths; what is less than a thousandth is cut off.
fn milli(text: &str) -> Result<u128, String> {
    let wrong = || format!("`{text}` is not a quantity; write it like 1000, 500m or 64Gi");
    let (number, times, parts) =
        SUFFIXES.iter().find_map(|(suffix, n, d)| Some((text.strip_suffix(suffix)?, *n, *d))).ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let number: u128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
    Ok(number.saturating_mul(times).saturating_mul(1_000) / parts / scale)
}

/// Whole vCPUs of a quantity such as `1000` or `1500m`; a part of one is cut off.
pub fn vcpus(text: &str) -> Result<u64, String> {
    let whole = milli(text)? / 1_000;
    Ok(u64::try_from(whole).unwrap_or(u64::MAX))
}

/// Thousandths of a quantity such as `1500m` or `2`; what is less is cut off.
pub fn millis(text: &str) -> Result<u64, String> {
    Ok(u64::try_from(milli(text)?).unwrap_or(u64::MAX))
}

/// MiB of a quantity of bytes such as `64Gi`; a part of one is cut off.
pub fn mib(text: &str) -> Result<u64, String> {
    let whole = milli(text)? / 1_000 / (1 << 20);
    Ok(u64::try_from(whole).unwrap_or(u64::MAX))
}

/// `0.0831` as parts of a million; `None` for what is no price.
pub fn dollars(text: &str) -> Option<MicroDollars> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    let part = format!("{:0<6}", part.get(..6).unwrap_or(part));
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(part.parse().ok()?)
}

/// Dollars as a decimal text: `0.0831`.
pub fn in_dollars(price: MicroDollars) -> String {
    let (whole, part) = (price / 1_000_000, price % 1_000_000);
    let part = format!("{part:06}");
    let part = part.trim_end_matches('0');
    if part.is_empty() { whole.to_string() } else { format!("{whole}.{part}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_kubernetes_own_and_parts_are_cut_off() {
        assert_eq!((vcpus("1000"), vcpus("1500m"), vcpus("2.5k")), (Ok(1_000), Ok(1), Ok(2_500)));
        assert_eq!((mib("64Gi"), mib("1.5Gi"), mib("1048576"), mib("1M")), (Ok(65_536), Ok(1_536), Ok(1), Ok(0)));
        assert_eq!((millis("1500m"), millis("2"), millis("0.5")), (Ok(1_500), Ok(2_000), Ok(500)));
        assert_eq!(vcpus("999999999999999999E"), Ok(u64::MAX), "more than anybody has");
        for wrong in ["", "m", "Gi", "-1", "1e3", "1.2.3", ".5", "1 Gi", "9999999999999999999", "∞"] {
            assert!(vcpus(wrong).unwrap_err().contains("is not a quantity"), "{wrong}");
        }
    }

    #[test]
    fn prices_are_read_to_the_millionth_and_nonsense_is_none() {
        assert_eq!(dollars("0.083100"), Some(83_100));
        assert_eq!(dollars("12"), Some(12_000_000));
        assert_eq!(dollars("0.00000199"), Some(1));
        for nonsense in ["", ".", "-1", "1e9", "0,5", "1.2.3", "NaN", "99999999999999999999"] {
            assert_eq!(dollars(nonsense), None, "{nonsense}");
        }
        assert_eq!(
            (in_dollars(83_100), in_dollars(12_000_000), in_dollars(0)),
            ("0.0831".into(), "12".into(), "0".into())
        );
    }
}
