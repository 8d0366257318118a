//! Places for the boxes of a drawing, in layers from top to bottom, so that arrows point down.
//!
//! Sugiyama, Tagawa & Toda (1981): a box's layer is the longest path to it; an arrow over several
//! layers becomes a chain of bends; the order within layers is improved by barycentres; then every
//! box moves towards its neighbours as far as the others let it.

/// Space between boxes of a layer, and between layers, in pixels.
const GAP_X: f64 = 24.0;
const GAP_Y: f64 = 36.0;
/// Sweeps down and up, for the order and for the places. More change little.
const SWEEPS: usize = 8;

/// A place on the drawing, in pixels.
pub type Point = (f64, f64);

/// Where everything is.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The centre of every box.
    pub centres: Vec<Point>,
    /// For every arrow, the points where it bends: one in every layer it passes.
    pub bends: Vec<Vec<Point>>,
    /// Width and height of the whole.
    pub size: Point,
}

/// Something with a place in a layer: a box or a bend.
struct Item {
    layer: usize,
    width: f64,
    height: f64,
    x: f64,
    up: Vec<usize>,
    down: Vec<usize>,
}

/// Places boxes of these sizes (width, height). Arrows go from lower to higher indices.
pub fn place(sizes: &[Point], arrows: &[(usize, usize)]) -> Placed {
    let mut items = boxes(sizes, arrows);
    let chains = add_bends(&mut items, arrows);
    let mut layers = order(&items);
    improve_order(&items, &mut layers);
    spread(&mut items, &layers);

    let heights: Vec<f64> =
        layers.iter().map(|l| l.iter().map(|&i| items[i].height).fold(0.0, f64::max)).collect();
    let mut middles = vec![];
    let mut y = GAP_Y / 2.0;
    for height in heights {
        middles.push(y + height / 2.0);
        y += height + GAP_Y;
    }
    let left = items.iter().map(|i| i.x - i.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = items.iter().map(|i| i.x + i.width / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let centre = |i: usize| (items[i].x - left + GAP_X, middles[items[i].layer]);
    let width = if items.is_empty() { 0.0 } else { right - left };
    Placed {
        centres: (0..sizes.len()).map(centre).collect(),
        bends: chains.into_iter().map(|c| c.into_iter().map(centre).collect()).collect(),
        size: (width + 2.0 * GAP_X, y - GAP_Y / 2.0),
    }
}

/// The boxes in their layers. A box without predecessors stands just above its first successor.
fn boxes(sizes: &[Point], arrows: &[(usize, usize)]) -> Vec<Item> {
    let mut layer = vec![0; sizes.len()];
    let mut into: Vec<Vec<usize>> = vec![vec![]; sizes.len()];
    arrows.iter().for_each(|&(from, to)| into[to].push(from));
    for to in 0..sizes.len() {
        layer[to] = into[to].iter().map(|&from| layer[from] + 1).max().unwrap_or(0);
    }
    for from in (0..sizes.len()).filter(|&b| into[b].is_empty()) {
        let first = arrows.iter().filter(|a| a.0 == from).map(|a| layer[a.1]).min();
        layer[from] = first.map_or(0, |l: usize| l.saturating_sub(1));
    }
    let item = |(&(width, height), layer)| Item { layer, width, height, x: 0.0, up: vec![], down: vec![] };
    sizes.iter().zip(layer).map(item).collect()
}

/// Adds the bends of long arrows and joins all neighbours; returns every arrow's bends.
fn add_bends(items: &mut Vec<Item>, arrows: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut chains = vec![];
    for &(from, to) in arrows {
        let mut chain = vec![];
        let mut last = from;
        for layer in items[from].layer + 1..items[to].layer {
            let bend = items.len();
            items.push(Item { layer, width: 1.0, height: 0.0, x: 0.0, up: vec![], down: vec![] });
            join(items, last, bend);
            chain.push(bend);
            last = bend;
        }
        join(items, last, to);
        chains.push(chain);
    }
    chains
}

fn join(items: &mut [Item], upper: usize, lower: usize) {
    items[upper].down.push(lower);
    items[lower].up.push(upper);
}

fn order(items: &[Item]) -> Vec<Vec<usize>> {
    let count = items.iter().map(|i| i.layer + 1).max().unwrap_or(0);
    let mut layers = vec![vec![]; count];
    items.iter().enumerate().for_each(|(i, item)| layers[item.layer].push(i));
    layers
}

/// Sorts every layer by the mean position of the neighbours in the layer before, down and up.
fn improve_order(items: &[Item], layers: &mut [Vec<usize>]) {
    let mut position = vec![0.0; items.len()];
    let note = |layer: &[usize], position: &mut Vec<f64>| {
        layer.iter().enumerate().for_each(|(p, &i)| position[i] = p as f64);
    };
    layers.iter().for_each(|l| note(l, &mut position));
    for sweep in 0..SWEEPS {
        for step in 0..layers.len() {
            let down = sweep % 2 == 0;
            let at = if down { step } else { layers.len() - 1 - step };
            let mean = |i: usize| {
                let near = if down { &items[i].up } else { &items[i].down };
                match near.len() {
                    0 => position[i],
                    n => near.iter().map(|&n| position[n]).sum::<f64>() / n as f64,
                }
            };
            let mut keyed: Vec<(f64, usize)> = layers[at].iter().map(|&i| (mean(i), i)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0)); // stable: equal ones keep their order
            layers[at] = keyed.into_iter().map(|(_, i)| i).collect();
            note(&layers[at], &mut position);
        }
    }
}

/// Finds horizontal places: packed first, then moved below the neighbours above, above those
/// below, and so on; an even number of sweeps after the first ends with the former.
fn spread(items: &mut [Item], layers: &[Vec<usize>]) {
    for layer in layers {
        let wanted = vec![0.0; layer.len()];
        settle(items, layer, &wanted);
    }
    for sweep in 0..=SWEEPS {
        for step in 0..layers.len() {
            let down = sweep % 2 == 0;
            let at = if down { step } else { layers.len() - 1 - step };
            let wish = |&i: &usize| {
                let near = if down { &items[i].up } else { &items[i].down };
                match near.len() {
                    0 => items[i].x,
                    n => near.iter().map(|&n| items[n].x).sum::<f64>() / n as f64,
                }
            };
            let wanted: Vec<f64> = layers[at].iter().map(wish).collect();
            settle(items, &layers[at], &wanted);
        }
    }
}

/// Puts a layer's items as near as they come (in the least squares) to where they want to be,
/// in order and without overlap: runs that collide are merged and centred on their mean wish.
fn settle(items: &mut [Item], layer: &[usize], wanted: &[f64]) {
    // A run: the sum of what its items want of its first item's place, their number, their offsets.
    let mut runs: Vec<(f64, Vec<(usize, f64)>)> = vec![];
    for (&i, &want) in layer.iter().zip(wanted) {
        let mut run = (want, vec![(i, 0.0)]);
        while let Some((sum, members)) = runs.last() {
            let &(last, offset) = members.last().expect("a run has members");
            let first = run.1[0].0;
            let distance = (items[last].width + items[first].width) / 2.0 + GAP_X;
            if run.0 / run.1.len() as f64 >= sum / members.len() as f64 + offset + distance {
                break;
            }
            let (mut sum, mut members) = runs.pop().expect("there is a last run");
            let shift = offset + distance;
            sum += run.0 - shift * run.1.len() as f64;
            members.extend(run.1.iter().map(|&(i, o)| (i, o + shift)));
            run = (sum, members);
        }
        runs.push(run);
    }
    for (sum, members) in runs {
        let start = sum / members.len() as f64;
        members.into_iter().for_each(|(i, offset)| items[i].x = start + offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_a_straight_line() {
        let placed = place(&[(100.0, 20.0), (50.0, 20.0), (80.0, 40.0)], &[(0, 1), (1, 2)]);
        assert!(placed.centres.iter().all(|c| c.0 == placed.centres[0].0), "{placed:?}");
        assert!(placed.centres.is_sorted_by(|a, b| a.1 < b.1), "{placed:?}");
    }

    #[test]
    fn branches_stand_beside_each_other_without_overlap() {
        let placed = place(&[(50.0, 20.0); 5], &[(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)]);
        let x = |i: usize| placed.centres[i].0;
        assert!(x(1) + 50.0 < x(2) && x(2) + 50.0 < x(3), "{placed:?}");
        assert!((x(0) - x(2)).abs() < 1e-6 && (x(4) - x(2)).abs() < 1e-6, "{placed:?}");
    }

    #[test]
    fn a_shortcut_bends_around_what_it_passes() {
        let placed = place(&[(50.0, 20.0); 3], &[(0, 1), (1, 2), (0, 2)]);
        assert_eq!(placed.bends[2].len(), 1);
        assert!((placed.bends[2][0].0 - placed.centres[1].0).abs() > 25.0, "{placed:?}");
    }

    #[test]
    fn nothing_has_no_places() {
        assert!(place(&[], &[]).centres.is_empty());
    }
}
