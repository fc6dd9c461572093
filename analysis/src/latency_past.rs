//! What a watch remembers of what it judged: enough to say how large a change is and how far levels wander by themselves, in a
//! size that does not grow with the time.
//!
//! Guarantee: bounded. Blocks of the time that the reference covers are kept as they are; older ones are joined to pieces of twenty
//! minutes and forgotten forty-five minutes after they began.
//!
//! Wrong on purpose: evidence that is held back for longer than what is kept has the size of its newest hour or more.

use emberline_model::{alert::ComparisonMode, histogram::Histogram};

use crate::{latency_reference::Reference, packed::Log, stratum::Stratum};

/// Seconds of a piece of what is older.
const PIECE_S: i64 = 1_200;
/// Seconds for which pieces are kept after they began.
const KEPT_S: i64 = 2_700;

/// Requests of both releases in a stretch of time.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Its first second.
    pub(crate) start: i64,
    /// One block, and not several that were joined.
    pub(crate) is_block: bool,
    pub(crate) mode: ComparisonMode,
    /// Empty in before/after mode, where the reference serves.
    pub(crate) baseline: Histogram,
    pub(crate) candidate: Histogram,
}

/// What was judged.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    /// Blocks: the candidate's requests. Those of the baseline are in the reference.
    recent: Log,
    /// Pieces: requests of both.
    older: Log,
    block_s: i64,
    /// Blocks that are kept as they are: fewer than the reference has.
    blocks: i64,
}

fn mark(mode: ComparisonMode) -> u8 {
    u8::from(mode == ComparisonMode::BeforeAfter)
}

fn mode_of(mark: u8) -> ComparisonMode {
    if mark == 0 {
        ComparisonMode::Concurrent
    } else {
        ComparisonMode::BeforeAfter
    }
}

impl Past {
    pub(crate) fn new(block_s: i64, reference_blocks: i64) -> Past {
        Past {
            recent: Log::default(),
            older: Log::default(),
            block_s,
            blocks: (reference_blocks - 1).max(1),
        }
    }

    /// Adds a block that the reference has taken, too.
    pub(crate) fn push(&mut self, number: i64, block: &Stratum, reference: &Reference) {
        self.recent.push(number, mark(block.mode), &[&block.candidate]);
        while let Some(oldest) = self.recent.iter().next()
            && oldest.number <= number - self.blocks
        {
            let baseline = match mode_of(oldest.mark) {
                ComparisonMode::Concurrent => reference.block(oldest.number),
                ComparisonMode::BeforeAfter => Histogram::new(),
            };
            let (candidate, number, mark) = (oldest.histogram(), oldest.number, oldest.mark);
            self.join(number, mark, baseline, candidate);
            self.recent.pop_front();
        }
    }

    /// Adds a block to its piece.
    fn join(&mut self, number: i64, mut mark: u8, mut baseline: Histogram, mut candidate: Histogram) {
        // A piece is called by its first block, so that it lies as a whole after a beginning, or not.
        let mut first = number;
        if let Some(last) = self.older.iter().last()
            && (number - last.number) * self.block_s < PIECE_S
        {
            let [b, c] = last.pair();
            baseline.merge(&b);
            candidate.merge(&c);
            mark |= last.mark;
            first = last.number;
            self.older.truncate(first);
        }
        self.older.push(first, mark, &[&baseline, &candidate]);
        while self
            .older
            .front()
            .is_some_and(|oldest| (number - oldest) * self.block_s > KEPT_S)
        {
            self.older.pop_front();
        }
    }

    /// Forgets the blocks from this one on: they are judged in another way.
    pub(crate) fn truncate(&mut self, number: i64) {
        self.recent.truncate(number);
    }

    /// What is kept, oldest first, with the block that is being filled.
    pub(crate) fn pieces(&self, reference: &Reference, open: Option<&(i64, Stratum)>) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for piece in self.older.iter() {
            let [baseline, candidate] = piece.pair();
            pieces.push(Piece {
                start: piece.number * self.block_s,
                is_block: false,
                mode: mode_of(piece.mark),
                baseline,
                candidate,
            });
        }
        let mut of_reference = reference.blocks().peekable();
        for block in self.recent.iter() {
            while of_reference.next_if(|of| of.0 < block.number).is_some() {}
            let mode = mode_of(block.mark);
            let baseline = match mode {
                ComparisonMode::Concurrent => of_reference.next_if(|of| of.0 == block.number),
                ComparisonMode::BeforeAfter => None,
            };
            pieces.push(Piece {
                start: block.number * self.block_s,
                is_block: true,
                mode,
                baseline: baseline.map(|of| of.1).unwrap_or_default(),
                candidate: block.histogram(),
            });
        }
        pieces.extend(open.map(|(number, block)| Piece {
            start: number * self.block_s,
            is_block: true,
            mode: block.mode,
            baseline: match block.mode {
                ComparisonMode::Concurrent => block.baseline.clone(),
                ComparisonMode::BeforeAfter => Histogram::new(),
            },
            candidate: block.candidate.clone(),
        }));
        pieces
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.recent.heap_bytes() + self.older.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::LatencyConfig;

    const BLOCK_S: i64 = 30;

    fn window(at: i64) -> Histogram {
        let mut window = Histogram::new();
        (0..at % 4).for_each(|r| window.record_ns(((at * 37 + r * 11) % 60 * 100_000).unsigned_abs()));
        window
    }

    fn requests(histograms: impl Iterator<Item = Histogram>) -> Vec<(i16, u64)> {
        let mut sum = Histogram::new();
        histograms.for_each(|histogram| sum.merge(&histogram));
        sum.buckets().to_vec()
    }

    /// Each request of the last forty-five minutes is in one piece, with those of the other release, and the oldest leave.
    #[test]
    fn pieces_hold_what_came_and_stay_few() {
        let config = LatencyConfig::default();
        let mut reference = Reference::new(&config, BLOCK_S);
        let mut past = Past::new(BLOCK_S, 60);
        for block in 0..1_000i64 {
            let mut stratum = Stratum::new(ComparisonMode::Concurrent, block * BLOCK_S, Vec::new());
            for start in [0, 10, 20].map(|second| block * BLOCK_S + second) {
                let (b, c) = (window(start / 10), window(start / 10 + 5));
                stratum.add(start, &b, &c);
                reference.push(start, &b, &config.quantiles);
            }
            past.push(block, &stratum, &reference);
            if block % 97 != 0 {
                continue;
            }
            let pieces = past.pieces(&reference, None);
            let first = pieces[0].start / 10;
            assert!(first == 0 || (block * 3 - first) * 10 > KEPT_S - PIECE_S, "{block}");
            let windows = first..(block + 1) * 3;
            let expected = [
                requests(windows.clone().map(window)),
                requests(windows.map(|at| window(at + 5))),
            ];
            let of = |side: fn(&Piece) -> &Histogram| requests(pieces.iter().map(|piece| side(piece).clone()));
            assert_eq!([of(|p| &p.baseline), of(|p| &p.candidate)], expected, "{block}");
            assert!(pieces.len() < 70 && past.heap_bytes() < 4_000, "{}", past.heap_bytes());
        }
    }
}
