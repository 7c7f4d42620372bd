//! A kernel that refuses io_uring, as containers' seccomp profiles do.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clearway::config::BackendChoice;
use clearway::domain::Code;
use serde_json::Value;

use crate::support::daemon::{Installation, ask};
use crate::support::*;

/// Lets a process start whose `io_uring_setup` fails with EPERM, and its children's too.
fn refuse_io_uring(command: &mut Command) {
    // SAFETY: the closure makes two system calls on memory of its own and allocates nothing.
    unsafe {
        command.pre_exec(install_filter);
    }
}

/// A seccomp filter of four steps: load the call's number; is it io_uring_setup? allow it; refuse it.
fn install_filter() -> io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut steps = [
        // `seccomp_data` begins with the number of the call.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            0,
            libc::SYS_io_uring_setup as u32,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn a_switch_whose_kernel_refuses_io_uring_says_so_and_pays_over_mio() {
    let installation = Installation::of(directory(2, 2), BackendChoice::Auto, |_| {});
    let mut command = installation.command();
    refuse_io_uring(&mut command);
    let mut daemon = installation.start_by(&mut command);
    let status = ask(&installation.path("data/admin.sock"), "status").unwrap();
    assert_eq!(status["backend"], "mio");
    let reason = status["backend_reason"].as_str().unwrap();
    for part in ["io_uring", "Operation not permitted", "seccomp", "using mio"] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(installation.log().contains(reason), "{}", installation.log());

    let mut institution = Participant::connect(daemon.listen, &installation.directory, 0, 0);
    let mut bank = Participant::connect(daemon.listen, &installation.directory, 2, 0);
    for serial in 1..=100 {
        assert_eq!(code(&pay(&mut institution, &mut bank, serial, 100)), Code::Committed);
    }
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_switch_that_must_have_io_uring_and_may_not_says_so_and_ends() {
    let installation = Installation::of(directory(2, 2), BackendChoice::Uring, |_| {});
    let mut command = installation.command();
    refuse_io_uring(&mut command);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    let error = told
        .lines()
        .find(|line| line.starts_with("error:"))
        .unwrap_or_else(|| panic!("{told}"));
    for part in ["backend io_uring", "Operation not permitted", "seccomp"] {
        assert!(error.contains(part), "{error}");
    }
    // It left nothing behind that keeps the next start from running.
    let mut daemon = installation.start();
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_demo_where_the_kernel_refuses_io_uring_runs_on_mio_and_is_audited() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clearway"));
    command.args(["demo", "--seconds", "2", "--rate", "500", "--json", "-"]);
    refuse_io_uring(&mut command);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("switch ready: mio (io_uring: "), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["machine"]["backend"], "mio");
    assert_eq!(report["audit"]["pass"], true);
    assert_eq!(report["payments"]["unanswered"], 0);
}
