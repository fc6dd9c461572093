//! Profiles of other profilers as windows: what they measured, of which workload, and when.
//!
//! Guarantees: every value that was read is in exactly one window, under the sender's service and version, and the
//! window covers the profile's time, in whole seconds; what no format states (version, instance) is `unknown` and never
//! guessed. All names from a sender are truncated to the maximum length of a name.
//!
//! Wrong on purpose: a profile longer than a day is in a window of a day: its sums are right, its rates are not. Values
//! that grow from the start of the process (Go's `alloc_space`, `mutex`, `block`) are taken unchanged here; callers
//! that know about them take differences first ([`cumulative`]).

pub mod app_name;
mod austin;
mod bpftrace;
mod call_tree;
mod callgrind;
mod chrome_trace;
mod code_maps;
pub mod cumulative;
mod edges;
pub mod folded;
mod format;
mod fractions;
mod gperftools;
mod jemalloc;
mod jfr;
mod json_tokens;
mod marshal;
pub mod meaning;
mod mojo;
pub mod perf_script;
mod pstats;
mod read;
pub mod read_error;
pub mod recognise;
pub mod series;
pub mod speedscope;
mod table;
mod text_frame;
mod v8_cpu;
mod v8_heap;

pub use self::{
    format::{FORMAT_NAMES, Format},
    read::{FormatError, ReadProfiles, Reading, read},
};
use crate::{
    batch::WorkloadWindow,
    otlp::{Decoded, names},
    profile::{Profile, ProfileType},
    time::{LONGEST_SECONDS, WINDOW_SECONDS, whole_seconds},
    workload::{Component, LabelSet, Side, UNKNOWN, Workload, clean_name},
};

const NS: i64 = 1_000_000_000;
/// The largest float below 2^63.
const MOST_WEIGHT: f64 = 9_223_372_036_854_774_784.0;
/// The longest window that is not merged with others.
const LONGEST_WINDOW_S: u32 = LONGEST_SECONDS;

/// What a sender states in addition to the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The profiled workload.
    pub workload: Workload,
    /// What is measured, if the file does not say: `mutex`, `block`, `goroutine`, `wall`, ...
    pub name: Option<String>,
    /// When it was recorded.
    pub times: Times,
    /// Labels for samples that have none.
    pub labels: LabelSet,
}

/// When a profile was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Times {
    /// The time in the file; if there is none, it ended when it was received.
    #[default]
    OfFile,
    /// It ended when it was received, whatever the file says.
    Received,
    /// From and until, nanoseconds since the Unix epoch, whatever the file says.
    Given {
        /// First instant.
        from_unix_ns: i64,
        /// Instant after the last.
        until_unix_ns: i64,
    },
}

/// How to interpret plain numbers in text formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units {
    /// What is measured.
    pub profile_type: ProfileType,
    /// Factor for each number.
    pub factor: i64,
    /// Distance between samples in the unit of the type; 0 if unknown.
    pub period: i64,
}

/// Samples per second if the sender does not say: the usual default of profilers.
pub const DEFAULT_RATE_HZ: u32 = 100;

/// More often than that nothing takes samples.
const HIGHEST_SAMPLE_RATE_HZ: u32 = 1_000_000;

impl Units {
    /// Samples of CPU time at a rate; each is worth its share of a second.
    ///
    /// Beyond [`HIGHEST_SAMPLE_RATE_HZ`] it is no rate of samples but the unit of a clock, and the numbers are times.
    pub fn cpu(rate_hz: u32) -> Units {
        let factor = NS / i64::from(rate_hz.max(1));
        Units {
            profile_type: ProfileType::cpu(),
            factor,
            period: if rate_hz > HIGHEST_SAMPLE_RATE_HZ { 0 } else { factor },
        }
    }

    /// The same for wall time, on or off the CPU.
    pub fn wall(rate_hz: u32) -> Units {
        Units {
            profile_type: ProfileType::from_parts("wall", "wall", "nanoseconds", "wall", "nanoseconds"),
            ..Units::cpu(rate_hz)
        }
    }

    /// Numbers that are already values.
    pub fn plain(name: &str, sample_type: &str, unit: &str, period_type: &str) -> Units {
        // As in Go's runtime, and therefore in every viewer: memory is sampled by bytes, locks by contentions.
        let period_unit = match period_type {
            "space" => "bytes",
            "contentions" => "count",
            _ => unit,
        };
        Units {
            profile_type: ProfileType::from_parts(name, sample_type, unit, period_type, period_unit),
            factor: 1,
            period: 0,
        }
    }

    /// By profilers' name for a kind of profile; `None` if it is unknown.
    pub fn of_kind(kind: &str, rate_hz: u32) -> Option<Units> {
        Some(match kind {
            "cpu" | "samples" | "itimer" | "process_cpu" => Units::cpu(rate_hz),
            "wall" => Units::wall(rate_hz),
            // Values that are already nanoseconds, as `perf` and this program write them.
            "cpu_nanoseconds" => Units {
                factor: 1,
                period: 0,
                ..Units::cpu(rate_hz)
            },
            "wall_nanoseconds" => Units {
                factor: 1,
                period: 0,
                ..Units::wall(rate_hz)
            },
            "inuse_objects" | "alloc_objects" => Units::plain("memory", kind, "count", "space"),
            "inuse_space" | "alloc_space" => Units::plain("memory", kind, "bytes", "space"),
            "objects" => Units::plain("memory", "alloc_objects", "count", "space"),
            "bytes" | "memory" | "alloc" => Units::plain("memory", "alloc_space", "bytes", "space"),
            "goroutine" | "goroutines" => Units::plain("goroutine", "goroutine", "count", "goroutine"),
            "lock_samples" | "mutex_count" => Units::plain("mutex", "contentions", "count", "contentions"),
            "lock_nanoseconds" | "mutex_duration" | "mutex" => {
                Units::plain("mutex", "delay", "nanoseconds", "contentions")
            }
            "block_count" => Units::plain("block", "contentions", "count", "contentions"),
            "block_duration" | "block" => Units::plain("block", "delay", "nanoseconds", "contentions"),
            _ => return None,
        })
    }
}

/// The first of the five parts of a profile type, from what a file says it measures.
pub(crate) fn name_of(sample_type: &str, period_type: &str) -> String {
    match (period_type, sample_type) {
        ("cpu", _) | (_, "cpu") => "process_cpu",
        ("space", _) | (_, "inuse_space" | "inuse_objects" | "alloc_space" | "alloc_objects") => "memory",
        // Go's mutex and block profiles differ only in their address.
        ("contentions", _) | (_, "contentions" | "delay") => "mutex",
        ("wall", _) => "wall",
        _ => sample_type,
    }
    .to_owned()
}

/// Assembles a type; a part cannot contain the separator.
pub(crate) fn type_of(name: &str, sample_type: &str, unit: &str, period_type: &str, period_unit: &str) -> ProfileType {
    let clean = |part: &str| clean_name(part).replace(':', "_");
    // Node's sampler names its period after what it samples, all others after the heap.
    let period_type = match period_type {
        "inuse_space" | "alloc_space" if name == "memory" => "space",
        other => other,
    };
    ProfileType(clean_name(
        &ProfileType::from_parts(
            &clean(name),
            &clean(sample_type),
            &clean(unit),
            &clean(period_type),
            &clean(period_unit),
        )
        .0,
    ))
}

impl Sender {
    /// A sender that states only its service.
    pub fn of_service(service: &str) -> Sender {
        Sender {
            workload: Workload {
                service: clean_name(service),
                version: UNKNOWN.to_owned(),
                instance: UNKNOWN.to_owned(),
                namespace: String::new(),
            },
            name: None,
            times: Times::OfFile,
            labels: LabelSet::none(),
        }
    }

    /// From labels, by the names that profilers and meshes use; the first non-empty one counts. `None` if no label
    /// names a service.
    pub fn from_labels(labels: &[(&str, &str)]) -> Option<Sender> {
        let find = |wanted: &[&str]| {
            wanted.iter().find_map(|name| {
                let mut known = labels.iter().filter(|(key, value)| key == name && !value.is_empty());
                known.next().map(|(_, value)| clean_name(value))
            })
        };
        let mut sender = Sender::of_service(&find(&["service_name", names::SERVICE, "service", "app", "job"])?);
        let workload = &mut sender.workload;
        if let Some(version) = find(&[
            "version",
            "service_version",
            names::VERSION,
            "release",
            "service_git_ref",
        ]) {
            workload.version = version;
        }
        if let Some(namespace) = find(&["namespace", "service_namespace", names::NAMESPACE]) {
            workload.namespace = namespace;
        }
        if let Some(instance) = find(&[
            "instance",
            "service_instance_id",
            names::INSTANCE,
            "pod",
            "hostname",
            "host",
        ]) {
            workload.instance = instance;
        }
        if let Some(route) = find(&[names::ROUTE, "http_route", "route", "endpoint"]) {
            sender.labels.route = route;
            sender.labels.side = Some(Side::Server);
        }
        Some(sender)
    }

    /// Puts a file's profiles into windows, together with what was dropped. Profiles without a time end when they were
    /// received.
    pub fn place(&self, read: ReadProfiles, received_unix_ns: i64) -> Decoded {
        let mut decoded = self.windows(read.profiles, received_unix_ns);
        read.left_out
            .into_iter()
            .for_each(|left_out| decoded.leave_out(left_out));
        read.changed.into_iter().for_each(|changed| decoded.change(changed));
        decoded
    }

    /// Puts profiles into windows. Profiles without a time end when they were received.
    pub fn windows(&self, profiles: Vec<Profile>, received_unix_ns: i64) -> Decoded {
        let mut decoded = Decoded::default();
        for mut profile in profiles {
            self.name_and_label(&mut profile);
            // A time given by the sender counts, even if it is the epoch itself.
            let given = matches!(self.times, Times::Given { .. });
            match self.times {
                Times::OfFile => {}
                Times::Received => profile.start_unix_ns = 0,
                Times::Given {
                    from_unix_ns,
                    until_unix_ns,
                } => {
                    profile.start_unix_ns = from_unix_ns;
                    profile.duration_ns = until_unix_ns.saturating_sub(from_unix_ns);
                }
            }
            if profile.duration_ns <= 0 {
                profile.duration_ns = i64::from(WINDOW_SECONDS) * NS;
            }
            if profile.start_unix_ns <= 0 && !given {
                profile.start_unix_ns = received_unix_ns.saturating_sub(profile.duration_ns);
            }
            place_exemplars(&mut profile);
            let window = self.window(&mut decoded, &profile);
            window.has_profiles = true;
            window.profiles.push(profile);
        }
        decoded
    }

    fn name_and_label(&self, profile: &mut Profile) {
        if let Some(name) = &self.name {
            let [_, sample_type, unit, period_type, period_unit] = profile.profile_type.parts();
            profile.profile_type = type_of(name, sample_type, unit, period_type, period_unit);
        }
        for labels in &mut profile.label_sets {
            if labels.is_none() {
                labels.clone_from(&self.labels);
            }
        }
    }

    fn window<'d>(&self, decoded: &'d mut Decoded, profile: &Profile) -> &'d mut WorkloadWindow {
        let end = profile.start_unix_ns.saturating_add(profile.duration_ns);
        let (start, length_s) = whole_seconds(profile.start_unix_ns, end);
        decoded.window(
            &self.workload,
            Component::Application,
            start,
            length_s.min(LONGEST_WINDOW_S),
        )
    }
}

/// Files state the time of a whole profile, and senders' clocks differ: an exemplar is within its profile.
fn place_exemplars(profile: &mut Profile) {
    let last = profile.start_unix_ns.saturating_add(profile.duration_ns.max(1)) - 1;
    for exemplar in &mut profile.exemplars {
        exemplar.unix_ns = exemplar.unix_ns.clamp(profile.start_unix_ns.min(last), last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile_builder::ProfileBuilder;

    fn profile() -> Profile {
        let mut builder = ProfileBuilder::new(ProfileType::cpu(), 10);
        let leaf = builder.frame("leaf", "", 0);
        builder.add(vec![leaf], &LabelSet::none(), 30, 3);
        builder.finish()
    }

    #[test]
    fn labels_of_other_systems_name_the_workload() {
        let labels = [
            ("app", "fallback"),
            ("service_name", "shop"),
            ("version", ""),
            ("service_version", "v2"),
        ];
        let sender = Sender::from_labels(&labels).unwrap();
        assert_eq!(
            (sender.workload.service.as_str(), sender.workload.version.as_str()),
            ("shop", "v2")
        );
        assert_eq!(sender.workload.instance, UNKNOWN);
        assert_eq!(Sender::from_labels(&[("version", "v1")]), None);
    }

    #[test]
    fn windows_cover_what_was_measured() {
        let mut sender = Sender::of_service("shop");
        for (from, until, start, length) in [
            (1003, 1013, 1003, 10),
            (1009, 1024, 1009, 15),
            (1000, 1060, 1000, 60),
            (1000, 1061, 1000, 61),
            (1000, 9000, 1000, 8000),
            (1000, 200_000, 1000, 86_400),
            (1000, 1000, 1000, 10),
        ] {
            sender.times = Times::Given {
                from_unix_ns: from * NS,
                until_unix_ns: until * NS,
            };
            let decoded = sender.windows(vec![profile()], 0);
            let window = &decoded.windows[0];
            assert_eq!(
                (window.start_unix_s, window.length_s),
                (start, length),
                "{from}..{until}"
            );
            assert_eq!(window.profiles[0].total(), 30);
        }
        sender.times = Times::Received;
        let decoded = sender.windows(vec![profile()], 2_005 * NS);
        assert_eq!(
            decoded.windows[0].start_unix_s, 1995,
            "what has no time ended when it came"
        );
    }

    #[test]
    fn a_name_and_a_route_are_filled_in_where_the_file_has_none() {
        let mut sender = Sender::from_labels(&[("app", "shop"), ("route", "/a")]).unwrap();
        sender.name = Some("mu:tex".to_owned());
        let decoded = sender.windows(vec![profile()], NS);
        let profile = &decoded.windows[0].profiles[0];
        assert_eq!(profile.profile_type.0, "mu_tex:cpu:nanoseconds:cpu:nanoseconds");
        assert_eq!(profile.label_sets[0].route, "/a");
        assert_eq!(profile.label_sets[0].side, Some(Side::Server));
    }
}
