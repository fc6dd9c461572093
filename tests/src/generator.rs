//! Generated profiles that look like those of services: deep stacks that share their root side, weights 1/rank, releases
//! that differ in some functions, routes, instances. One generator for benches and tests.
//!
//! Guarantee: the same arguments give the same profiles, everywhere and in every run; every shape prints itself
//! (`Display`), so that a figure can stand beside what it was measured on.
//!
//! Wrong on purpose: a service does the same at every hour of the day, and all instances of a release work alike.

pub mod mesh;
pub mod pinned;

/// Xorshift: numbers that look random.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts anew; equal seeds give equal numbers.
    pub fn new(seed: u64) -> Random {
        // The state may not be zero, and small seeds should not begin alike.
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Picks numbers in `0..n` with weights 1/rank.
#[derive(Debug, Clone)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    /// Of `n` numbers, at least one.
    pub fn new(n: usize) -> Zipf {
        let mut sum = 0.0;
        let sums = (1..=n.max(1)).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Zipf(sums.collect())
    }

    /// One of them.
    pub fn pick(&self, random: &mut Random) -> usize {
        let total = self.0.last().copied().unwrap_or(1.0);
        let at = random.unit() * total;
        self.0.partition_point(|&sum| sum < at).min(self.0.len() - 1)
    }
}

/// Stacks, leaf first, as numbers of functions: `depth` within a quarter up and down; each begins at its root side as an
/// earlier one does and ends in 5 to 15 frames of its own, functions picked with weights 1/rank.
pub fn stacks(random: &mut Random, count: usize, functions: usize, depth: usize) -> Vec<Vec<u32>> {
    let popular = Zipf::new(functions);
    // The most frequent function is not the first of its file.
    let mut place: Vec<u32> = (0..functions as u32).collect();
    (1..functions).for_each(|at| place.swap(at, random.below(at + 1)));
    let mut all: Vec<Vec<u32>> = Vec::with_capacity(count);
    while all.len() < count {
        let length = depth * 3 / 4 + random.below(depth / 2 + 1);
        let mut stack: Vec<u32> = match all.len() {
            0 => Vec::new(),
            n => {
                let earlier = &all[random.below(n)];
                let shared = length.saturating_sub(5 + random.below(11)).min(earlier.len());
                earlier[..shared].to_vec()
            }
        };
        while stack.len() < length {
            stack.push(place[popular.pick(random)]);
        }
        all.push(stack);
    }
    all.iter_mut().for_each(|stack| stack.reverse());
    all
}

/// The name of a generated function, and the file it lies in.
pub fn function_name(service: &str, function: u32) -> (String, String) {
    let module = function % 97;
    (
        format!("{service}::module_{module}::function_{function}"),
        format!("src/module_{module}.rs"),
    )
}
