//! When what the witnesses are sure of is stated: what is held back, and what is so gross that fewer blocks carry it.
//!
//! Guarantee: all of it only ever removes statements, so the bound on false ones stands without it.

use emberline_model::alert::ComparisonMode;

use crate::{
    latency::HeldBack,
    latency_past::Piece,
    latency_sums::Pooled,
    latency_watch::{LatencyWatch, Stated, needed_ln},
};

/// What takes so many times as long is gross.
const GROSS: f64 = 2.5;
/// What begins so many seconds after the release, ...
const LATE_S: i64 = 600;
/// ... must be so many times as large.
const LATE_FLOORS: f64 = 3.0;
/// What is not gross is not stated of a release that is younger: a warm-up of some minutes does not show yet that it is one.
const YOUNG_S: i64 = 300;

impl LatencyWatch {
    /// States what the newest window completes; blocks carry what is not gross, so it is looked for when one is over.
    pub(crate) fn state(&mut self, ends_block: bool) {
        let needed = needed_ln(self.config.alpha);
        if self.stated_slower.is_none() && self.slower.requests.ln_value() >= needed {
            let is_lasting = self.lasting.ln_value() >= needed_ln(self.config.gross_block_alpha);
            if ends_block || is_lasting {
                let pieces = self.past.pieces(&self.reference, self.block.as_ref());
                let stated = match self.may_state(&pieces, ends_block) {
                    Err(why) if is_lasting => self.is_gross(&pieces).ok_or(why),
                    other => other,
                };
                match stated {
                    Ok((feature, first)) => {
                        self.held_back = None;
                        self.stated_slower = Some(self.stated(feature, first));
                    }
                    Err(why) => self.held_back = Some(why),
                }
            }
        }
        if ends_block && self.stated_faster.is_none() && self.faster.are_sure(&self.config) {
            let (feature, first) = self.faster.requests.leading();
            let first = self.began(first);
            let pieces = self.past.pieces(&self.reference, None);
            let pooled = self.pool(self.since(&pieces, first));
            if pooled.is_large_enough(&self.config) && pooled.turned().is_worth_stating(&self.config, 1.0) {
                self.stated_faster = Some(self.stated(feature, first));
            }
        }
    }

    fn stated(&self, feature: usize, first: i64) -> Box<Stated> {
        let over = self.past.pieces(&self.reference, None);
        Box::new(Stated {
            at: self.now,
            first,
            feature,
            last_baseline: self.last_baseline,
            evidence: self.pool(self.since(&over, first)),
        })
    }

    /// The pieces that lie after a second, with the block that it lies in.
    pub(crate) fn since<'a>(&self, pieces: &'a [Piece], first: i64) -> &'a [Piece] {
        let is_before = |piece: &Piece| match piece.is_block {
            true => piece.start + self.block_s() <= first,
            false => piece.start < first,
        };
        &pieces[pieces.partition_point(is_before)..]
    }

    /// The feature that carries a slowdown and when it began, or why none is stated.
    fn may_state(&self, pieces: &[Piece], ends_block: bool) -> Result<(usize, i64), HeldBack> {
        if !ends_block || !self.slower.are_sure(&self.config) {
            return Err(self.held_back.unwrap_or(HeldBack::FewBlocks));
        }
        let mut why = HeldBack::Small;
        if self.first_candidate.is_some_and(|first| self.now < first + YOUNG_S) {
            return Err(HeldBack::Falls);
        }
        let all_effects = self.effects(pieces);
        for feature in 0..=self.config.quantiles.len() {
            if self.slower.requests.ln_value_of(feature) < needed_ln(self.config.alpha) {
                continue;
            }
            let first = self.began(self.slower.requests.beginning(feature));
            let evidence = self.since(pieces, first);
            let effects = &all_effects[pieces.len() - evidence.len()..];
            // What is cheap to know is asked first.
            let fades = |of: usize| self.fades(of, pieces, &all_effects);
            if Self::falls(feature, effects) || fades(0) || fades(feature) {
                why = HeldBack::Falls;
                continue;
            }
            let pooled = self.pool(evidence);
            if !pooled.is_large_enough(&self.config) || !pooled.is_worth_stating(&self.config, self.floors(first)) {
                continue;
            }
            let errors = self.errors(feature, first, pieces, effects);
            if errors < self.config.wander_errors || Self::drifts(feature, pieces, &all_effects) {
                why = HeldBack::Wanders;
                continue;
            }
            return Ok((feature, first));
        }
        Err(why)
    }

    /// A slowdown so large that fewer blocks carry it: the requests take twice as long, in each window, and it does not fall.
    fn is_gross(&self, pieces: &[Piece]) -> Option<(usize, i64)> {
        let (feature, first) = self.slower.requests.leading();
        let first = self.began(first);
        let evidence = self.since(pieces, first);
        let pooled = self.pool(evidence);
        let is_gross = pooled.is_large_enough(&self.config)
            && pooled.is_worth_stating(&self.config, self.floors(first))
            && pooled.times() >= GROSS;
        // Each of its steps is a window.
        let windows = self
            .lasting
            .steps()
            .saturating_sub(self.lasting.beginning(0).cast_unsigned());
        let falls = || self.lately_falls(windows as usize) || Self::falls(feature, &self.effects(evidence));
        (is_gross && !falls()).then_some((feature, first))
    }

    /// How many floors a slowdown must be: a release brings it along, and what begins later may have another cause.
    fn floors(&self, begins: i64) -> f64 {
        let is_late = self.first_candidate.is_some_and(|first| begins > first + LATE_S);
        if is_late { LATE_FLOORS } else { 1.0 }
    }

    /// Durations of both releases behind some pieces. One before/after piece makes all of it before/after: the reference must
    /// not be counted once per piece.
    pub(crate) fn pool(&self, pieces: &[Piece]) -> Pooled {
        let mut pooled = Pooled::of(pieces);
        if pooled.mode == ComparisonMode::BeforeAfter {
            pooled.baseline = self.reference.pooled();
        }
        pooled
    }
}
