//! The notice as a file, for workloads that would rather look into a folder than ask.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Notice, Reader};

const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why the file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum NoticeFileError {
    #[error("--notice-file {0} names no file in a folder")]
    NotAFile(PathBuf),
    #[error("cannot write {path}; its folder must exist and be writable for this process's user")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {path}; its folder must be writable for this process's user")]
    Remove { path: PathBuf, source: io::Error },
}

/// The file at one path.
#[derive(Clone, Debug)]
pub struct NoticeFile {
    path: PathBuf,
    /// Beside it, so that renaming it into place is atomic.
    draft: PathBuf,
}

impl NoticeFile {
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, NoticeFileError> {
        let path = path.into();
        let Some(name) = path.file_name() else {
            return Err(NoticeFileError::NotAFile(path));
        };
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(".draft");
        let draft = path.with_file_name(draft);
        Ok(Self { path, draft })
    }

    /// Keeps the file as the board is until the board is dropped, beginning with what a process before this one left
    /// there. A failure is logged once, and tried again every second.
    pub async fn follow(self, reader: Reader) {
        let mut said = reader.said;
        let mut failed = false;
        loop {
            let notice = said.borrow_and_update().notice.clone();
            let file = self.clone();
            // A folder of the host may hang; the main loop must not.
            let set = tokio::task::spawn_blocking(move || file.set(notice.as_deref()));
            let again = match set.await {
                Ok(Err(error)) => {
                    if !failed {
                        let source = std::error::Error::source(&error).map(ToString::to_string);
                        tracing::warn!(%error, source, "the notice file is not up to date, trying again");
                    }
                    true
                }
                _ => false,
            };
            failed = again;
            tokio::select! {
                changed = said.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TRY_AGAIN), if again => {}
            }
        }
    }

    /// Makes the file say this, or removes it.
    pub fn set(&self, notice: Option<&Notice>) -> Result<(), NoticeFileError> {
        match notice {
            Some(notice) => {
                self.write(notice).map_err(|source| NoticeFileError::Write { path: self.path.clone(), source })
            }
            None => remove(&self.path).map_err(|source| NoticeFileError::Remove { path: self.path.clone(), source }),
        }
    }

    fn write(&self, notice: &Notice) -> io::Result<()> {
        let mut text = serde_json::to_vec(notice)?;
        text.push(b'\n');
        // `create_new` follows no link that somebody may have put there.
        remove(&self.draft)?;
        let mut draft = OpenOptions::new().write(true).create_new(true).open(&self.draft)?;
        draft.write_all(&text)?;
        drop(draft);
        fs::rename(&self.draft, &self.path)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
