//! How risky is an order? The regression: the customer's history is parsed again for every item.

use crate::work::{Numbers, seed_of};

const ITEMS: u64 = 40;
const PAST_ORDERS: u64 = 1_400;

/// The stored history: one `day,cents,country` per line.
fn history(id: &str) -> String {
    let mut numbers = Numbers::new(seed_of(id));
    let mut text = String::new();
    for _ in 0..PAST_ORDERS {
        let (day, cents, country) = (numbers.below(3_650), numbers.below(500_000), numbers.below(200));
        text.push_str(&format!("{day},{cents},{country}\n"));
    }
    text
}

#[inline(never)]
fn parse_history(text: &str) -> Vec<(u64, u64, u64)> {
    let parse = |line: &str| {
        let mut fields = line.split(',').map(|field| field.parse().unwrap_or(0));
        Some((fields.next()?, fields.next()?, fields.next()?))
    };
    text.lines().filter_map(parse).collect()
}

/// Risk of an order, 0 to 100. With `parse_per_item` the history is parsed for each item instead of once.
#[inline(never)]
pub fn score_fraud_risk(id: &str, parse_per_item: bool) -> u64 {
    let text = history(id);
    let mut parsed = parse_history(&text);
    let mut risk = 0;
    for item in 0..ITEMS {
        if parse_per_item {
            parsed = parse_history(&text);
        }
        let large = parsed
            .iter()
            .filter(|order| order.1 > 400_000 && order.2 % ITEMS == item)
            .count() as u64;
        risk = (risk + large) % 101;
    }
    risk
}
