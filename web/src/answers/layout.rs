//! Positions of the topology's cards: layers from callers to callees, rows within a layer.
//!
//! Guarantees: deterministic (every viewer sees the same picture); a card keeps its position, so one new release moves
//! nothing else. If more than [`FRESH_SHARE`] of the cards are new, everything is laid out again, starting from the old
//! order. Wrong on purpose: edges that skip layers get no lane of their own and may pass behind cards.
//!
//! Method: layered drawing (Sugiyama, Tagawa, Toda 1981) without dummy nodes: cut back edges found by depth-first
//! search, layer by longest path, order by barycentre sweeps.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

/// Above this share of new cards, a view is laid out again.
pub(crate) const FRESH_SHARE: f64 = 0.15;
/// Sweeps of an initial layout.
const SWEEPS: usize = 12;
/// Sweeps that start from an old order.
const SEEDED_SWEEPS: usize = 2;
/// Positions remembered per view; beyond that, only those of the current picture are kept.
const MOST_REMEMBERED: usize = 20_000;
/// Views remembered.
const MOST_VIEWS: usize = 64;

/// Layer and row, in cards.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Place {
    /// Layer: 0 calls, higher ones are called.
    pub(crate) x: f64,
    /// Row in the layer.
    pub(crate) y: f64,
}

/// Positions of cards by view, kept for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct LayoutMemory {
    views: Mutex<HashMap<String, HashMap<String, Place>>>,
}

impl LayoutMemory {
    /// Positions for `nodes` (sorted, unique) joined by `edges` (indices: caller, callee), in the same order.
    pub(crate) fn place(&self, view: &str, nodes: &[String], edges: &[(usize, usize)]) -> Vec<Place> {
        let mut views = self.views.lock();
        if views.len() >= MOST_VIEWS && !views.contains_key(view) {
            views.clear();
        }
        let remembered = views.entry(view.to_owned()).or_default();
        let places = place(nodes, edges, remembered);
        if remembered.len() + nodes.len() > MOST_REMEMBERED {
            remembered.clear();
        }
        nodes.iter().zip(&places).for_each(|(node, &place)| {
            remembered.insert(node.clone(), place);
        });
        places
    }
}

/// See [`LayoutMemory::place`]; `old` contains the known positions.
fn place(nodes: &[String], edges: &[(usize, usize)], old: &HashMap<String, Place>) -> Vec<Place> {
    let graph = Graph::new(nodes.len(), edges);
    let layers = graph.layers();
    let mut taken: HashSet<(i64, i64)> = HashSet::new();
    // A card keeps its position only in its layer, and only if no other card took it in the meantime.
    let mut keep = |node: &String, layer: usize| {
        let place = old
            .get(node)
            .copied()
            .filter(|p| p.x == layer as f64 && is_free(&taken, *p))?;
        taken.insert(cell(place));
        Some(place)
    };
    let kept: Vec<Option<Place>> = nodes
        .iter()
        .zip(&layers)
        .map(|(node, &layer)| keep(node, layer))
        .collect();
    let fresh = kept.iter().filter(|p| p.is_none()).count();
    if fresh == 0 || fresh as f64 <= FRESH_SHARE * nodes.len() as f64 {
        return graph.fill_gaps(&layers, &kept, taken);
    }
    graph.arrange(&layers, &kept)
}

/// The cell of a position; rows are multiples of a half.
fn cell(place: Place) -> (i64, i64) {
    (place.x as i64, (place.y * 2.0).round() as i64)
}

/// A card covers its own cell and the halves next to it.
fn is_free(taken: &HashSet<(i64, i64)>, place: Place) -> bool {
    let (layer, half) = cell(place);
    (half - 1..=half + 1).all(|row| !taken.contains(&(layer, row)))
}

/// Calls without their back edges.
struct Graph {
    /// Callees of each node.
    down: Vec<Vec<usize>>,
    /// Callers of each node.
    up: Vec<Vec<usize>>,
    /// Every node after all its callers.
    order: Vec<usize>,
}

impl Graph {
    fn new(nodes: usize, edges: &[(usize, usize)]) -> Graph {
        let mut all: Vec<(usize, usize)> = edges.iter().copied().filter(|(a, b)| a != b).collect();
        all.sort_unstable();
        all.dedup();
        let mut callees = vec![Vec::new(); nodes];
        let mut callers = vec![0usize; nodes];
        for &(a, b) in &all {
            callees[a].push(b);
            callers[b] += 1;
        }
        // Start at nodes without callers, so that cycles are entered the way requests enter them.
        let mut starts: Vec<usize> = (0..nodes).collect();
        starts.sort_by_key(|&n| (callers[n] != 0, n));
        let mut graph = Graph {
            down: vec![Vec::new(); nodes],
            up: vec![Vec::new(); nodes],
            order: Vec::with_capacity(nodes),
        };
        let mut state = vec![State::New; nodes];
        for start in starts {
            graph.visit(start, &callees, &mut state);
        }
        graph.order.reverse();
        graph
    }

    /// Depth-first search with its own stack; an edge to a node that is still open closes a cycle and is left out.
    fn visit(&mut self, start: usize, callees: &[Vec<usize>], state: &mut [State]) {
        if state[start] != State::New {
            return;
        }
        state[start] = State::Open;
        let mut stack = vec![(start, 0usize)];
        while let Some((node, at)) = stack.pop() {
            let Some(&next) = callees[node].get(at) else {
                state[node] = State::Done;
                self.order.push(node);
                continue;
            };
            stack.push((node, at + 1));
            if state[next] == State::Open {
                continue;
            }
            self.down[node].push(next);
            self.up[next].push(node);
            if state[next] == State::New {
                state[next] = State::Open;
                stack.push((next, 0));
            }
        }
    }

    /// Longest path from a node without callers.
    fn layers(&self) -> Vec<usize> {
        let mut layers = vec![0usize; self.order.len()];
        for &node in &self.order {
            for &callee in &self.down[node] {
                layers[callee] = layers[callee].max(layers[node] + 1);
            }
        }
        layers
    }

    /// Lays out everything, starting from the old order if there is one.
    fn arrange(&self, layers: &[usize], old: &[Option<Place>]) -> Vec<Place> {
        let count = layers.iter().max().map_or(0, |&l| l + 1);
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); count];
        for &node in &self.order {
            rows[layers[node]].push(node);
        }
        for row in &mut rows {
            row.sort_by(|&a, &b| {
                let at = |n: usize| old[n].map_or(f64::INFINITY, |p| p.y);
                at(a).total_cmp(&at(b))
            });
        }
        let seeded = old.iter().any(Option::is_some);
        let mut position = vec![0.0f64; layers.len()];
        rows.iter().for_each(|row| number(row, &mut position));
        for sweep in 0..if seeded { SEEDED_SWEEPS } else { SWEEPS } {
            let downwards = sweep % 2 == 0;
            let neighbours = if downwards { &self.up } else { &self.down };
            for at in 0..count {
                let row = &mut rows[if downwards { at } else { count - 1 - at }];
                let mut keyed: Vec<(f64, usize)> = row
                    .iter()
                    .map(|&n| (barycentre(&neighbours[n], &position).unwrap_or(position[n]), n))
                    .collect();
                // Stable: nodes with equal pull stay in order.
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
                *row = keyed.into_iter().map(|k| k.1).collect();
                number(row, &mut position);
            }
        }
        let tallest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut places = vec![Place::default(); layers.len()];
        for (layer, row) in rows.iter().enumerate() {
            let offset = (tallest - row.len()) as f64 / 2.0;
            for (at, &node) in row.iter().enumerate() {
                places[node] = Place {
                    x: layer as f64,
                    y: at as f64 + offset,
                };
            }
        }
        places
    }

    /// Keeps existing positions and gives each other node the free row nearest to its neighbours.
    fn fill_gaps(&self, layers: &[usize], kept: &[Option<Place>], mut taken: HashSet<(i64, i64)>) -> Vec<Place> {
        let mut position: Vec<f64> = kept.iter().map(|p| p.map_or(0.0, |p| p.y)).collect();
        let mut places: Vec<Option<Place>> = kept.to_vec();
        for &node in &self.order {
            if places[node].is_some() {
                continue;
            }
            let around: Vec<usize> = self.up[node]
                .iter()
                .chain(&self.down[node])
                .copied()
                .filter(|&n| places[n].is_some())
                .collect();
            let wanted = barycentre(&around, &position).unwrap_or(0.0).round().max(0.0);
            let layer = layers[node] as f64;
            let nearest = (0..)
                .flat_map(|distance| [wanted + f64::from(distance), wanted - f64::from(distance)])
                .find(|&y| y >= 0.0 && is_free(&taken, Place { x: layer, y }))
                .expect("rows below the last card are free");
            let place = Place { x: layer, y: nearest };
            taken.insert(cell(place));
            position[node] = nearest;
            places[node] = Some(place);
        }
        places.into_iter().map(Option::unwrap_or_default).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Done,
}

/// Rows of a layer, centred on zero so that layers of unequal length pull equally.
fn number(row: &[usize], position: &mut [f64]) {
    let middle = (row.len() as f64 - 1.0) / 2.0;
    row.iter()
        .enumerate()
        .for_each(|(at, &node)| position[node] = at as f64 - middle);
}

fn barycentre(neighbours: &[usize], position: &[f64]) -> Option<f64> {
    let sum: f64 = neighbours.iter().map(|&n| position[n]).sum();
    (!neighbours.is_empty()).then(|| sum / neighbours.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("n{n:03}")).collect()
    }

    #[test]
    fn callees_stand_right_of_their_callers_and_cycles_end() {
        let places = place(
            &names(4),
            &[(0, 1), (1, 2), (2, 1), (0, 2), (2, 3), (3, 3)],
            &HashMap::new(),
        );
        assert_eq!(places.iter().map(|p| p.x).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn crossing_callees_are_swapped() {
        // 0 calls 3, 1 calls 2: ordered by name, the edges would cross.
        let places = place(&names(4), &[(0, 3), (1, 2)], &HashMap::new());
        let above = |a: usize, b: usize| places[a].y < places[b].y;
        assert_eq!(above(0, 1), above(3, 2));
    }

    #[test]
    fn one_new_card_moves_no_other() {
        let memory = LayoutMemory::default();
        let mut nodes = names(12);
        let edges: Vec<(usize, usize)> = (1..12).map(|n| ((n - 1) / 3, n)).collect();
        let before = memory.place("", &nodes, &edges);
        nodes.push("x".to_owned());
        let mut grown = edges;
        grown.push((0, 12));
        let after = memory.place("", &nodes, &grown);
        assert_eq!(before[..], after[..12]);
        assert_eq!(after[12].x, 1.0);
    }

    #[test]
    fn a_card_that_went_away_finds_its_place_again() {
        let memory = LayoutMemory::default();
        let nodes = names(10);
        let edges: Vec<(usize, usize)> = (1..10).map(|n| (0, n)).collect();
        let before = memory.place("", &nodes, &edges);
        memory.place("", &nodes[..9], &edges[..8]);
        assert_eq!(memory.place("", &nodes, &edges), before);
    }

    proptest! {
        #[test]
        fn no_two_cards_share_a_place_and_the_layout_repeats(
            edges in prop::collection::vec((0usize..30, 0usize..30), 0..80),
            more in prop::collection::vec((0usize..34, 0usize..34), 0..20),
        ) {
            let (first, second) = (LayoutMemory::default(), LayoutMemory::default());
            let small = first.place("", &names(30), &edges);
            prop_assert_eq!(&small, &second.place("", &names(30), &edges));
            prop_assert_eq!(&small, &first.place("", &names(30), &edges));
            let grown: Vec<(usize, usize)> = edges.iter().chain(&more).copied().collect();
            let large = first.place("", &names(34), &grown);
            for places in [&small, &large] {
                let cells: HashSet<(i64, i64)> = places.iter().map(|&p| cell(p)).collect();
                prop_assert_eq!(cells.len(), places.len());
                prop_assert!(places.iter().all(|p| p.y >= 0.0));
            }
        }
    }
}
