//! What a command reads: files, and standard input where one is called `-`.

use std::error::Error;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

/// What is called standard input.
pub const STDIN: &str = "-";

/// What some editors put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What an input is called when something is said of it.
pub fn named(file: &Path) -> String {
    if file == Path::new(STDIN) { "standard input".to_owned() } else { file.display().to_string() }
}

/// All bytes of a file or of standard input, up to so many: a device or a slip of the pen does not fill the memory.
fn bytes(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new(STDIN) {
        if io::stdin().is_terminal() {
            eprintln!("spotkeeper: reading from the terminal; Ctrl-D ends it");
        }
        io::stdin().lock().take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(file)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than the {} that are read", size(most))));
    }
    Ok(bytes)
}

/// The same as text; a byte order mark before it is none of it.
pub fn text(file: &Path, most: u64) -> io::Result<String> {
    let mut text = bytes(file, most)?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        return Err(io::Error::other("it is UTF-16, as PowerShell's `>` writes; write it as UTF-8"));
    }
    String::from_utf8(text).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        io::Error::other(format!("line {line}: it is no text (UTF-8)"))
    })
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

/// An error with what is beneath it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let beneath = error.to_string();
        if !text.contains(&beneath) {
            text = format!("{text}: {beneath}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_no_text_is_said_with_its_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"a\nb\n\xff\n").unwrap();
        assert_eq!(bytes(file.path(), 6).unwrap().len(), 6);
        assert!(bytes(file.path(), 5).unwrap_err().to_string().contains("longer than the 0 MiB"));
        assert_eq!(text(file.path(), 100).unwrap_err().to_string(), "line 3: it is no text (UTF-8)");
        std::fs::write(file.path(), "\u{feff}a").unwrap();
        assert_eq!(text(file.path(), 100).unwrap(), "a");
        std::fs::write(file.path(), b"\xff\xfea\0").unwrap();
        assert!(text(file.path(), 100).unwrap_err().to_string().contains("UTF-16"));
        assert_eq!((named(Path::new("-")), named(Path::new("a/-"))), ("standard input".into(), "a/-".into()));
        assert_eq!((size(4 << 30), size(64 << 20)), ("4 GiB".into(), "64 MiB".into()));
    }
}
