//! What the disk does to a daemon: the kernel holds each of its calls on files, and the test decides what comes of it.
//!
//! The daemon is the binary as it is shipped: it has no door for faults. The kernel asks (seccomp's user notifications,
//! Linux 5.5) whenever the daemon writes at an offset, syncs or allocates, and waits for the answer.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

/// What the daemon asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// `pwritev`.
    Write,
    /// `fdatasync`.
    Sync,
    /// `fallocate`.
    Allocate,
}

/// A call that is held.
#[derive(Debug)]
pub struct DiskCall {
    pub wish: Wish,
    pub file: PathBuf,
    /// Of a write.
    pub offset: u64,
    thread: u32,
    /// Address and length of each part of a write.
    parts: Vec<(u64, usize)>,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The kernel does it.
    Done,
    /// Nothing is done; the daemon is told this errno.
    Refused(i32),
    /// So many bytes are written, and the daemon is told so.
    Short(usize),
    /// Nothing is done, and the daemon is told that all is.
    Pretended,
    /// The daemon is killed before the kernel does anything. What the test wrote itself is there.
    Killed,
}

impl DiskCall {
    /// True on a segment that has its name: one that is being made has another.
    pub fn on_segment(&self) -> bool {
        self.file.extension().is_some_and(|extension| extension == "seg")
    }

    /// Bytes to be written.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.1).sum()
    }

    /// What is to be written, out of the daemon's memory.
    pub fn content(&self) -> Vec<u8> {
        let memory = File::open(format!("/proc/{}/mem", self.thread)).unwrap();
        let mut content = vec![0; self.bytes()];
        let mut rest = &mut content[..];
        for &(address, length) in &self.parts {
            let (part, behind) = rest.split_at_mut(length);
            memory.read_exact_at(part, address).unwrap();
            rest = behind;
        }
        content
    }

    /// Reads what the kernel says of the call.
    fn of(notice: &libc::seccomp_notif) -> Option<Self> {
        let arguments = notice.data.args;
        let wish = match i64::from(notice.data.nr) {
            libc::SYS_pwritev => Wish::Write,
            libc::SYS_fdatasync => Wish::Sync,
            libc::SYS_fallocate => Wish::Allocate,
            _ => return None,
        };
        let process = format!("/proc/{}", notice.pid);
        let file = fs::read_link(format!("{process}/fd/{}", arguments[0])).ok()?;
        let mut call = Self {
            wish,
            file,
            offset: 0,
            thread: notice.pid,
            parts: Vec::new(),
        };
        if wish == Wish::Write {
            call.offset = arguments[3];
            let memory = File::open(format!("{process}/mem")).ok()?;
            for part in 0..arguments[2] {
                let mut vector = [0; 16];
                memory.read_exact_at(&mut vector, arguments[1] + 16 * part).ok()?;
                let (address, length) = vector.split_at(8);
                let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
                call.parts.push((number(address), number(length) as usize));
            }
        }
        Some(call)
    }

    fn write_part(&self, bytes: usize) {
        let file = File::options().write(true).open(&self.file).unwrap();
        file.write_all_at(&self.content()[..bytes], self.offset).unwrap();
        file.sync_all().unwrap();
    }
}

/// Has `decide` say what becomes of each call of the daemon that `command` will start, in order. The thread ends with the
/// daemon.
pub fn supervise(command: &mut Command, mut decide: impl FnMut(&DiskCall) -> Fate + Send + 'static) -> JoinHandle<()> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // SAFETY: the closure makes three system calls on memory of its own and allocates nothing.
    unsafe {
        command.pre_exec(move || send_descriptor(&theirs, &install_filter()?));
    }
    std::thread::spawn(move || {
        let listener = receive_descriptor(&ours).unwrap();
        while let Some(notice) = next_notice(&listener) {
            let (mut value, mut error, mut flags) = (0, 0, 0);
            match DiskCall::of(&notice).map(|call| (decide(&call), call)) {
                None | Some((Fate::Done, _)) => flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
                Some((Fate::Refused(errno), _)) => error = -errno,
                Some((Fate::Pretended, call)) => value = call.bytes() as i64,
                Some((Fate::Short(bytes), call)) => {
                    call.write_part(bytes);
                    value = bytes as i64;
                }
                Some((Fate::Killed, _)) => {
                    // SAFETY: no memory is involved. The thread waits for this answer, so that its number is its own; a
                    // thread's number stands for its process here.
                    unsafe { libc::kill(notice.pid as i32, libc::SIGKILL) };
                    continue;
                }
            }
            let answer = libc::seccomp_notif_resp {
                id: notice.id,
                val: value,
                error,
                flags,
            };
            // SAFETY: an answer that lives until the call returns. Where the daemon is gone, nobody waits for it.
            let sent = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
            if sent != 0 {
                eprintln!("a held call was not answered: {}", io::Error::last_os_error());
            }
        }
    })
}

/// The next held call; none when the daemon is gone.
fn next_notice(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut wait = libc::pollfd {
            fd: listener.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, alive until the call returns.
        unsafe { libc::poll(&raw mut wait, 1, -1) };
        if wait.revents & libc::POLLIN != 0 {
            // SAFETY: plain numbers, for which zero is a value; the kernel asks for zeros.
            let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: room for the answer.
            let got = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) };
            // It fails when the one who called has died meanwhile.
            if got == 0 {
                return Some(notice);
            }
        } else if wait.revents & libc::POLLHUP != 0 {
            return None;
        }
    }
}

/// A seccomp filter: the calls on files that a journal is written with are held and told, all others pass.
fn install_filter() -> io::Result<OwnedFd> {
    const HELD: [i64; 3] = [libc::SYS_pwritev, libc::SYS_fdatasync, libc::SYS_fallocate];
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let is = |call: i64, to_held: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to_held, 0, call as u32);
    let mut steps = [
        // `seccomp_data` begins with the number of the call.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        is(HELD[0], 3),
        is(HELD[1], 2),
        is(HELD[2], 1),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until the call returns; the descriptor it gives is new.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            // A call that was told is held until it is answered. Without the second flag (Linux 5.19) a signal lets it
            // begin anew, it is told once more, and what had been decided of it is lost.
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            &raw const program,
        );
        if listener < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(listener as i32))
    }
}

/// Room for a control message with one descriptor.
type Control = [u64; 4];

fn message(data: &mut [u8; 1], vector: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    *vector = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: 1,
    };
    // SAFETY: plain numbers and addresses, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: arithmetic only.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<i32>() as u32) } as usize;
    message
}

fn send_descriptor(to: &UnixStream, descriptor: &OwnedFd) -> io::Result<()> {
    let (mut data, mut control): ([u8; 1], Control) = ([0], [0; 4]);
    // SAFETY: plain numbers and addresses, for which zero is a value.
    let mut vector = unsafe { std::mem::zeroed() };
    let message = message(&mut data, &mut vector, &mut control);
    // SAFETY: the control message has room for one descriptor; all of it lives until the call returns.
    let sent = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
        libc::CMSG_DATA(header)
            .cast::<i32>()
            .write_unaligned(descriptor.as_raw_fd());
        libc::sendmsg(to.as_raw_fd(), &raw const message, 0)
    };
    if sent == 1 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn receive_descriptor(from: &UnixStream) -> io::Result<OwnedFd> {
    let (mut data, mut control): ([u8; 1], Control) = ([0], [0; 4]);
    // SAFETY: plain numbers and addresses, for which zero is a value.
    let mut vector = unsafe { std::mem::zeroed() };
    let mut message = message(&mut data, &mut vector, &mut control);
    // SAFETY: room for the message and one descriptor, which is new when it has come.
    unsafe {
        if libc::recvmsg(from.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) != 1 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null(), "the descriptor came");
        Ok(OwnedFd::from_raw_fd(
            libc::CMSG_DATA(header).cast::<i32>().read_unaligned(),
        ))
    }
}
