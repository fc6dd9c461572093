//! What a basket costs. The regression: a table lookup became a search through all discounts for every line.

use std::{collections::HashMap, hint::black_box};

use crate::work::{Numbers, seed_of};

const LINES: u64 = 640;
const DISCOUNTS: u64 = 8_000;

struct Line {
    product: u64,
    cents: u64,
}

struct Discount {
    product: u64,
    percent: u64,
}

fn basket(id: &str) -> Vec<Line> {
    let mut numbers = Numbers::new(seed_of(id));
    (0..LINES)
        .map(|_| Line {
            product: numbers.below(1 << 40),
            cents: 100 + numbers.below(9_900),
        })
        .collect()
}

fn discounts(id: &str) -> Vec<Discount> {
    let mut numbers = Numbers::new(seed_of(id) ^ 1);
    (0..DISCOUNTS)
        .map(|_| Discount {
            product: numbers.below(1 << 40),
            percent: numbers.below(40),
        })
        .collect()
}

/// Price of a basket in cents. With `search_all` every line is compared with every discount.
#[inline(never)]
pub fn price_basket(id: &str, search_all: bool) -> u64 {
    let (basket, discounts) = (basket(id), discounts(id));
    let percent_of: HashMap<u64, u64> = discounts.iter().map(|d| (d.product, d.percent)).collect();
    let percent = |line: &Line| {
        if search_all {
            let matching = discounts.iter().filter(|d| black_box(d.product) == line.product);
            matching.map(|d| d.percent).max().unwrap_or(0)
        } else {
            percent_of.get(&line.product).copied().unwrap_or(0)
        }
    };
    basket.iter().map(|line| line.cents * (100 - percent(line)) / 100).sum()
}
