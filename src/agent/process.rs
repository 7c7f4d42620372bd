//! What a process asks of the kernel for itself and its child: limits, an end with its parent, a signal.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Raises the soft limits on open files and locked memory to the hard ones; gives a sentence for each that failed.
#[must_use]
pub fn raise_soft_limits() -> Vec<String> {
    let mut messages = Vec::new();
    for (resource, name) in [
        (libc::RLIMIT_NOFILE, "open files (RLIMIT_NOFILE)"),
        (libc::RLIMIT_MEMLOCK, "locked memory (RLIMIT_MEMLOCK)"),
    ] {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` lives across both calls, which read and write nothing else.
        let result = unsafe {
            if libc::getrlimit(resource, &raw mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(resource, &raw const limit)
            } else {
                -1
            }
        };
        if result != 0 {
            let error = io::Error::last_os_error();
            messages.push(format!("the soft limit on {name} stays as it is: {error}"));
        }
    }
    messages
}

/// How many files this process may have open (the soft limit); 0 where the kernel does not say.
#[must_use]
pub fn open_files_max() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives across the call, which reads and writes nothing else.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result == 0 { limit.rlim_cur } else { 0 }
}

/// Makes the child end when the thread that starts it ends, so that no switch outlives its demo.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        });
    }
}

/// The user who has connected to a Unix socket, as the kernel knows him.
#[must_use]
pub fn peer_user(stream: &UnixStream) -> Option<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both live across the call, which writes at most `length` bytes into `credentials`.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(credentials.uid)
}

/// Asks a child of this process to end in good order (SIGTERM).
///
/// # Errors
/// When there is no such process any more.
pub fn terminate(child: &std::process::Child) -> io::Result<()> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: no memory is involved; the pid is that of a child not yet waited for, so it is no other process's.
    if unsafe { libc::kill(pid, libc::SIGTERM) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_child_ends_when_it_is_asked_to() {
        let mut command = Command::new("sleep");
        command.arg("60");
        die_with_parent(&mut command);
        let mut child = command.spawn().unwrap();
        terminate(&child).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn soft_limits_rise_to_the_hard_ones() {
        assert_eq!(raise_soft_limits(), Vec::<String>::new());
    }
}
