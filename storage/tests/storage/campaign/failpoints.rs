//! Where the store can be killed: before, in the middle of and after each operation on a file.
//!
//! Operations through [`Disk`] are hit exactly. Those on DuckDB's own files are not: a thread watches them all the
//! time, and kills when one was written, has grown or was cut, which is somewhere in a commit or a checkpoint.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use emberline_storage::disk::{AppendFile, Disk, RealDisk};

/// An operation on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    Append,
    Sync,
    Truncate,
    Rename,
    Remove,
    SyncDir,
}

/// When the kill happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    /// Half of the bytes are written.
    Torn,
    After,
}

/// A place in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A step on a kind of file.
    Disk(&'static str, Step, When),
    /// A change of DuckDB's files.
    Engine(&'static str),
}

use Step::{Append, Create, Remove, Rename, Sync, SyncDir};
use When::{After, Before, Torn};

/// Every place that a store under load reaches.
pub const POINTS: [Point; 32] = [
    Point::Disk("journal", Create, Before),
    Point::Disk("journal", Create, After),
    Point::Disk("journal", Append, Before),
    Point::Disk("journal", Append, Torn),
    Point::Disk("journal", Append, After),
    Point::Disk("journal", Sync, After),
    Point::Disk("journal", SyncDir, Before),
    Point::Disk("journal", Remove, Before),
    Point::Disk("journal", Remove, After),
    Point::Disk("dedup", Create, After),
    Point::Disk("dedup", Append, Torn),
    Point::Disk("dedup", Sync, After),
    Point::Disk("dedup", Rename, Before),
    Point::Disk("dedup", Rename, After),
    Point::Disk("parts", Create, Before),
    Point::Disk("parts", Append, Before),
    Point::Disk("parts", Append, Torn),
    Point::Disk("parts", Append, After),
    Point::Disk("parts", Sync, Before),
    Point::Disk("parts", Sync, After),
    Point::Disk("parts", Rename, Before),
    Point::Disk("parts", Rename, After),
    Point::Disk("parts", SyncDir, Before),
    Point::Disk("parts", SyncDir, After),
    Point::Disk("parts", Remove, Before),
    Point::Disk("parts", Remove, After),
    Point::Disk("symbols", Append, Before),
    Point::Disk("symbols", Append, Torn),
    Point::Disk("symbols", Sync, After),
    Point::Engine("log grows"),
    Point::Engine("log shrinks"),
    Point::Engine("file written"),
];

impl Point {
    /// Roughly the least number of times that a store reaches it within some hundred batches.
    pub fn times(self) -> u64 {
        match self {
            Point::Disk("journal" | "parts", Append | Sync | Rename, _) => 12,
            Point::Disk(_, Append | Sync, _) | Point::Engine(_) => 6,
            Point::Disk(..) => 3,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Disk(place, step, when) => write!(f, "{when:?} {step:?} in {place}"),
            Point::Engine(what) => write!(f, "engine: {what}"),
        }
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Point, String> {
        let found = POINTS.into_iter().find(|point| point.to_string() == text);
        found.ok_or_else(|| format!("no failpoint is called `{text}`"))
    }
}

/// Ends this process as `kill -9` does. First reports how much memory it had: afterwards it is too late.
pub fn die(at: Point) -> ! {
    println!("\nrss {}\nat {at}", super::process::peak_rss_kb("self").unwrap_or(0));
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

/// The machine's disk, until it reaches a place for the `nth` time.
#[derive(Debug, Clone)]
pub struct FailpointDisk {
    point: Option<Point>,
    left: Arc<AtomicU64>,
}

fn place_of(path: &Path) -> String {
    let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if file == "dedup" {
        return file;
    }
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    folder.to_string_lossy().into_owned()
}

impl FailpointDisk {
    /// Dies the `nth` time that it reaches a point; never without one. DuckDB's files are watched below `data_dir`.
    pub fn new(point: Option<Point>, nth: u64, data_dir: &Path) -> FailpointDisk {
        let disk = FailpointDisk {
            point,
            left: Arc::new(AtomicU64::new(nth)),
        };
        if let Some(Point::Engine(what)) = point {
            let (disk, data_dir) = (disk.clone(), data_dir.to_owned());
            std::thread::spawn(move || disk.watch(what, &data_dir));
        }
        disk
    }

    fn hit(&self, at: Point) {
        if self.point == Some(at) && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            die(at);
        }
    }

    fn is_next(&self, at: Point) -> bool {
        self.point == Some(at) && self.left.load(Ordering::Relaxed) == 1
    }

    fn around<R>(&self, place: &str, step: Step, act: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let point = |when| {
            POINTS
                .into_iter()
                .find(|p| matches!(p, Point::Disk(a, b, c) if *a == place && *b == step && *c == when))
        };
        point(Before).into_iter().for_each(|at| self.hit(at));
        let done = act()?;
        point(After).into_iter().for_each(|at| self.hit(at));
        Ok(done)
    }

    fn watch(&self, what: &'static str, data_dir: &Path) {
        let state = || {
            let meta = |name: &str| std::fs::metadata(data_dir.join(name)).ok();
            let written = meta("hot.duckdb").and_then(|m| m.modified().ok());
            (meta("hot.duckdb.wal").map_or(0, |m| m.len()), written)
        };
        let mut before = state();
        loop {
            let now = state();
            let happened = match what {
                "log grows" => now.0 > before.0,
                "log shrinks" => now.0 < before.0,
                _ => now.1 > before.1,
            };
            if happened {
                self.hit(Point::Engine(what));
            }
            before = now;
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn wrap(&self, path: &Path, file: Box<dyn AppendFile>) -> Box<dyn AppendFile> {
        Box::new(FailpointFile {
            file,
            place: place_of(path),
            disk: self.clone(),
        })
    }
}

struct FailpointFile {
    file: Box<dyn AppendFile>,
    place: String,
    disk: FailpointDisk,
}

impl AppendFile for FailpointFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let torn = POINTS
            .into_iter()
            .find(|p| matches!(p, Point::Disk(place, Append, Torn) if *place == self.place));
        if let Some(at) = torn {
            if self.disk.is_next(at) {
                self.file.append(&bytes[..bytes.len() / 2])?;
            }
            self.disk.hit(at);
        }
        self.disk
            .clone()
            .around(&self.place, Append, || self.file.append(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.clone().around(&self.place, Sync, || self.file.sync())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk
            .clone()
            .around(&self.place, Step::Truncate, || self.file.truncate(len))
    }
}

impl Disk for FailpointDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        let file = self.around(&place_of(path), Create, || RealDisk.create(path))?;
        Ok(self.wrap(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(self.wrap(path, RealDisk.open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn read_range(&self, path: &Path, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        RealDisk.read_range(path, offset, length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.around(&place_of(to), Rename, || RealDisk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // Trying to remove a missing file changes nothing.
        if !path.exists() {
            return RealDisk.remove(path);
        }
        self.around(&place_of(path), Remove, || RealDisk.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        RealDisk.size(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let place = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.around(&place, SyncDir, || RealDisk.sync_dir(dir))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}
