//! What a run was made on: processor, kernel, file system; and what a process costs.

use std::fs;
use std::path::Path;

/// Clock ticks a second in `/proc/PID/stat`: USER_HZ, which is 100 on every architecture this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// The processor's name, as the kernel says it.
#[must_use]
pub fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The cores this process may run on, by number.
#[must_use]
pub fn cores() -> Vec<usize> {
    core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|core| core.id)
        .collect()
}

/// The kernel's release.
#[must_use]
pub fn kernel_release() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_owned())
}

/// What a report says of the machine: its processor, cores, kernel, and the file system that holds `place`.
#[must_use]
pub fn described(place: &Path) -> serde_json::Value {
    serde_json::json!({
        "cpu": cpu_name(),
        "cores": cores().len(),
        "kernel": kernel_release(),
        "filesystem": filesystem(place),
    })
}

/// The type of the file system that holds `path`.
#[must_use]
pub fn filesystem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    filesystem_in(&fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
}

/// The mount with the longest mount point above `path`; the last one where several lie on the same place.
fn filesystem_in(mountinfo: &str, path: &Path) -> Option<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mount_point = place.split(' ').nth(4)?.replace("\\040", " ");
        path.starts_with(&mount_point)
            .then(|| (mount_point.len(), kind.split(' ').next().unwrap_or_default()))
    });
    mounts
        .max_by_key(|(length, _)| *length)
        .map(|(_, kind)| kind.to_owned())
}

/// Processor time a process has used, all threads together, microseconds.
#[must_use]
pub fn cpu_us(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it are numbers, from the third on.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks * (1_000_000 / TICKS_PER_SECOND))
}

/// A process's anonymous memory that is resident, bytes.
#[must_use]
pub fn anonymous_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_above_a_path_is_its_file_system() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      23 22 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
                      24 23 0:6 / /dev/shm rw shared:2 - tmpfs tmpfs rw\n";
        let of = |path: &str| filesystem_in(mounts, Path::new(path)).unwrap();
        assert_eq!(of("/dev/shm/data"), "tmpfs");
        assert_eq!(of("/dev/shmother"), "devtmpfs");
        assert_eq!(of("/home/data"), "ext4");
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        let before = cpu_us(pid).unwrap();
        let mut sum = 0u64;
        while cpu_us(pid).unwrap() < before + 20_000 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(anonymous_bytes(pid).unwrap() > 10_000);
        assert!(cores().len() == std::thread::available_parallelism().unwrap().get());
    }
}
