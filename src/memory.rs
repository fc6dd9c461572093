//! Watches how much memory the process holds, for [`Pressure`].

use std::{fs, thread, time::Duration};

use emberline_storage::Pressure;

/// From this share of the limit on nothing large may begin, in percent: what was begun just before may hold as much again as a large
/// request and a large answer together.
const HIGH_PERCENT: u64 = 55;
/// From this share down it may again.
const LOW_PERCENT: u64 = 50;
/// How often it is looked at; half a second is too long: a request takes tens of megabytes in that time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Begins to watch, on a thread of its own, for as long as the process lives.
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

/// What it holds of its own: what it maps from files the system takes back when memory is short (proc(5), `status`, `RssAnon`).
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
