//! One thread of the daemon held still, at a call of its own to the kernel, while all others go on.

use std::fs;
use std::process::Child;

/// A thread that the test holds; it goes on when this is dropped.
pub struct HeldThread(libc::pid_t);

impl HeldThread {
    /// Lets the daemon's thread of this name go on from call to call until `here` is true, and holds it there.
    ///
    /// # Panics
    /// When there is no such thread, or the kernel does not let it be held.
    pub fn hold(daemon: &Child, name: &str, mut here: impl FnMut() -> bool) -> Self {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).expect("the daemon runs");
        let named = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks.map(Result::unwrap).find(named).expect("the thread runs");
        let thread = task.file_name().to_string_lossy().parse().expect("a number");
        ptrace(libc::PTRACE_SEIZE, thread);
        let held = Self(thread);
        ptrace(libc::PTRACE_INTERRUPT, thread);
        held.wait();
        while !here() {
            // To the next beginning or end of a call.
            ptrace(libc::PTRACE_SYSCALL, thread);
            held.wait();
        }
        held
    }

    fn wait(&self) {
        let mut status = 0;
        // SAFETY: waits for a thread that this one traces; the status is this call's alone.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) };
        assert!(
            waited == self.0 && libc::WIFSTOPPED(status),
            "{waited}, {status:#x}: the thread has ended"
        );
    }
}

impl Drop for HeldThread {
    fn drop(&mut self) {
        // SAFETY: as in `ptrace`; refused when the daemon has ended, which the test finds out by itself.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t) {
    // SAFETY: these requests take neither an address nor data; the thread is one of a child of this process.
    let done = unsafe { libc::ptrace(request, thread, 0, 0) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
