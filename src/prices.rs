//! The file of `--prices`: what instance types cost on demand. EC2 does not say it, so whoever wants it known writes it down.

use std::collections::BTreeMap;
use std::path::Path;

use crate::domain::offering::MicroDollars;

/// On-demand prices of an hour by instance type.
pub type OnDemandPrices = BTreeMap<String, MicroDollars>;

/// The price file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PricesError {
    #[error("--prices {path} cannot be read")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "--prices {path} is not a JSON object of instance types and dollars an hour, such as {{\"m7g.large\": 0.0816}}"
    )]
    Parse {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("--prices {path}: {name} costs {dollars}, which is no price in dollars an hour")]
    Price { path: String, name: String, dollars: f64 },
}

/// Reads the price file.
pub fn read(path: &Path) -> Result<OnDemandPrices, PricesError> {
    let shown = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| PricesError::Read { path: shown(), source })?;
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    let all: BTreeMap<String, f64> =
        serde_json::from_slice(text).map_err(|source| PricesError::Parse { path: shown(), source })?;
    let price = |(name, dollars): (String, f64)| {
        if dollars.is_finite() && (0.0..100_000.0).contains(&dollars) {
            // In range, so nothing is cut off but what is less than a millionth.
            Ok((name, (dollars * 1e6).round() as MicroDollars))
        } else {
            Err(PricesError::Price { path: shown(), name, dollars })
        }
    };
    all.into_iter().map(price).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &[u8]) -> Result<OnDemandPrices, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path()).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}: {}", cause.unwrap_or_default())
        })
    }

    #[test]
    fn a_price_file_is_read_and_nonsense_in_it_is_named() {
        assert_eq!(read_text(br#"{"m7g.large": 0.0816}"#).unwrap()["m7g.large"], 81_600);
        assert_eq!(read_text("\u{feff}{}".as_bytes()).unwrap(), OnDemandPrices::new());
        assert!(read_text(br#"{"m7g.large": -1}"#).unwrap_err().contains("m7g.large costs -1"));
        assert!(read_text(br#"{"m7g.large": 1e300}"#).unwrap_err().contains("m7g.large"));
        for (text, place) in [
            (&b"[1]"[..], "line 1 column 0"),
            (b"", "line 1 column 0"),
            (br#"{"m7g.large": "cheap"}"#, "line 1 column 21"),
            (b"{\"m7g.large\": \xff}", "line 1 column 15"),
        ] {
            let said = read_text(text).unwrap_err();
            assert!(said.contains("JSON object") && said.contains(place), "{said}");
        }
        assert!(read(Path::new("no/such/file")).unwrap_err().to_string().contains("no/such/file"));
    }
}
