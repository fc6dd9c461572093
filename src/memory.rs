//! Monitors how much memory the process holds, for [`Pressure`].

use std::{fs, thread, time::Duration};

use emberline_storage::Pressure;

/// Above this share of the limit, in percent, nothing large may begin: what began just before may take as much again as
/// a large request and a large response together.
const HIGH_PERCENT: u64 = 55;
/// Below this share it may again.
const LOW_PERCENT: u64 = 50;
/// How often to check; half a second would be too long: a request takes tens of megabytes in that time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Starts monitoring, on a thread of its own, for the life of the process.
pub(crate) fn watch(pressure: Pressure, limit_bytes: u64) -> std::io::Result<()> {
    thread::Builder::new()
        .name("emberline-memory".to_owned())
        .spawn(move || {
            loop {
                if let Some(held) = held_bytes() {
                    let percent = held.saturating_mul(100) / limit_bytes.max(1);
                    if percent >= HIGH_PERCENT {
                        pressure.set(true);
                    } else if percent < LOW_PERCENT {
                        pressure.set(false);
                    }
                }
                thread::sleep(LOOK_EVERY);
            }
        })?;
    Ok(())
}

/// Anonymous memory only: pages mapped from files are reclaimed when memory is short (proc(5), `status`, `RssAnon`).
fn held_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_over_its_mark_is_under_pressure() {
        let held = held_bytes().unwrap();
        assert!(held > 100_000, "{held}");
        for (limit, is_high) in [(1 << 50, false), (held / 2, true)] {
            let pressure = Pressure::default();
            pressure.set(!is_high);
            watch(pressure.clone(), limit).unwrap();
            let until = std::time::Instant::now() + Duration::from_secs(30);
            while pressure.is_high() != is_high {
                assert!(std::time::Instant::now() < until, "limit {limit}");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
