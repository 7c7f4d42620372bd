//! Which backend a driver gets, and why.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::poll::PollDriver;
use super::uring::UringDriver;
use super::{Backend, Driver, DriverOptions, DriverWakeup, UringError};

/// The backend that the configuration asks for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// `io_uring` where the kernel has what it takes, else `mio`.
    #[default]
    Auto,
    /// `io_uring` or nothing.
    Uring,
    /// `mio` (epoll).
    Mio,
}

impl BackendChoice {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Uring, Self::Mio];

    /// The choice's name in configuration and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Mio => "mio",
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Auto, Self::Uring, Self::Mio]
            .into_iter()
            .find(|choice| choice.name() == text)
            .ok_or_else(|| format!("{text:?} is no backend; one of auto, uring, mio"))
    }
}

impl Backend {
    /// The backend's name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Mio => "mio",
            Self::InMemory => "in-memory",
        }
    }
}

/// Why there is no driver.
#[derive(Debug, Error)]
pub enum OpenError {
    /// `io_uring` was asked for and can't be had.
    #[error("backend io_uring: {0}")]
    Uring(#[from] UringError),
    /// The poll could not be set up.
    #[error("backend mio: {0}")]
    Mio(#[source] io::Error),
}

/// Opens a driver that sleeps on `wakeup` among its sockets, and says in words which backend it is and why.
///
/// # Errors
/// When the backend asked for can't be had, or none.
pub fn open(
    choice: BackendChoice,
    options: &DriverOptions,
    wakeup: DriverWakeup,
) -> Result<(Box<dyn Driver>, String), OpenError> {
    let mio = |wakeup| PollDriver::open(options, wakeup).map_err(OpenError::Mio);
    match choice {
        BackendChoice::Mio => Ok((Box::new(mio(wakeup)?), "mio: asked for".to_owned())),
        BackendChoice::Uring => Ok((
            Box::new(UringDriver::open(options, wakeup)?),
            "io_uring: asked for".to_owned(),
        )),
        BackendChoice::Auto => {
            let uring = UringDriver::open(options, wakeup.clone());
            first_or_else(uring, || mio(wakeup))
        }
    }
}

fn first_or_else(
    uring: Result<UringDriver, UringError>,
    mio: impl FnOnce() -> Result<PollDriver, OpenError>,
) -> Result<(Box<dyn Driver>, String), OpenError> {
    match uring {
        Ok(driver) => Ok((Box::new(driver), "io_uring: the kernel has what it takes".to_owned())),
        Err(error) => Ok((Box::new(mio()?), format!("io_uring: {error}; using mio"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_choice_reads_back_from_its_name() {
        for choice in [BackendChoice::Auto, BackendChoice::Uring, BackendChoice::Mio] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!(
            "epoll"
                .parse::<BackendChoice>()
                .unwrap_err()
                .contains("auto, uring, mio")
        );
    }

    #[test]
    fn a_refused_ring_is_told_in_words_and_mio_takes_its_place() {
        let options = DriverOptions {
            connections_max: 1,
            receive_bytes: 64,
            receive_buffers: 1,
            gather_completions: 1,
            send_buffer_bytes: None,
            sqpoll: false,
        };
        let wakeup = Arc::new(crate::agent::Wakeup::new().unwrap());
        let refused = Err(UringError::Setup(io::Error::from_raw_os_error(libc::EPERM)));
        let (driver, reason) =
            first_or_else(refused, || PollDriver::open(&options, wakeup).map_err(OpenError::Mio)).unwrap();
        assert_eq!(driver.backend(), Backend::Mio);
        assert!(
            reason.contains("kernel.io_uring_disabled") && reason.ends_with("using mio"),
            "{reason}"
        );
    }
}
