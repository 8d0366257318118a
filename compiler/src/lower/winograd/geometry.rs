//! Sizes of the loops: tiles, strips of tiles, columns of tiles that are alike.

use crate::graph::op::Window;

use super::transform::Transform;

/// Tiles that the products of a strip should have at least, so that weights, which come from the
/// last cache or memory, are used often.
const LEAST_TILES: usize = 28;

/// A strip's transformed input that is made by the task that uses it: half of a core's L2 (1 MiB),
/// which products and weights pass through, too.
const STRIP_BYTES: usize = 512 << 10;

/// The products of a strip for one group of output channels: half of L2 (1 MiB). Larger strips read the weights less
/// often from the last cache, which gives two cores about half of what they could multiply.
const PRODUCT_BYTES: usize = 512 << 10;

/// Tasks of strips wanted: enough to balance some threads.
const STRIPS: usize = 14;

/// Transformed weights up to this size stay in L2 from strip to strip, which may be small then.
const KEPT_BYTES: usize = 640 << 10;

/// Tiles of a strip that is small: a tile of registers or two.
const FEWEST_TILES: usize = 14;

/// What is computed, in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Images.
    pub images: usize,
    /// Channels, height, width of the input.
    pub input: [usize; 3],
    /// Channels, height, width of the convolution's result.
    pub output: [usize; 3],
    /// Zeros above and to the left of the input.
    pub before: [usize; 2],
}

/// Who transforms the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The task that multiplies, for a strip of tiles and all output channels.
    Fused,
    /// A kernel of its own; tasks of the next one share what it made and split the output channels.
    Split,
}

/// How the work is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Geometry {
    /// Who transforms the input.
    pub form: Form,
    /// Channels in a block of the layout.
    pub block: usize,
    /// Blocks of input channels.
    pub in_blocks: usize,
    /// Rows and columns of tiles in an image.
    pub tiles: [usize; 2],
    /// Images, and rows of tiles, of a strip.
    pub strip: [usize; 2],
    /// Strips along images and along rows.
    pub strips: [usize; 2],
    /// Output channels of a group: those of a tile in registers.
    pub group: usize,
    /// Groups of output channels.
    pub groups: usize,
}

/// Neighbouring columns of tiles of which the same part is inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The first one.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Which columns of each are inside.
    pub inside: std::ops::Range<usize>,
}

impl Problem {
    /// The sizes of a convolution with so many rows and columns of zeros before its input.
    pub fn new(before: [usize; 2], x: &[usize], y: &[usize]) -> Problem {
        Problem { images: x[0], input: [x[1], x[2], x[3]], output: [y[1], y[2], y[3]], before }
    }

    /// Rows and columns of tiles in an image.
    pub fn tiles(&self, transform: Transform) -> [usize; 2] {
        [1, 2].map(|axis| self.output[axis].div_ceil(transform.outputs()))
    }
}

impl Geometry {
    /// Cuts the work, whatever the number of threads.
    pub fn new(problem: &Problem, transform: Transform, block: usize, group: usize) -> Geometry {
        let tiles = problem.tiles(transform);
        let in_blocks = problem.input[0].div_ceil(block);
        let groups = problem.output[0].div_ceil(group);
        let tile_bytes = 4 * transform.products() * in_blocks * block;
        let mut g = Geometry {
            form: Form::Fused,
            block,
            in_blocks,
            tiles,
            strip: [1, 1],
            strips: [0; 2],
            group,
            groups,
        };
        g.cut(problem.images, LEAST_TILES.max(STRIP_BYTES / tile_bytes));
        if g.strip_count() < STRIPS {
            let weights = 4 * transform.products() * problem.input[0] * groups * group;
            g.cut(problem.images, if weights > KEPT_BYTES { LEAST_TILES } else { FEWEST_TILES });
        }
        if g.strip_count() < STRIPS {
            g.form = Form::Split;
            g.cut(problem.images, PRODUCT_BYTES / (4 * transform.products() * group));
        }
        g
    }

    /// Makes strips of about so many tiles.
    fn cut(&mut self, images: usize, wanted: usize) {
        let [rows, columns] = self.tiles;
        let image = rows * columns;
        self.strip = if image <= wanted {
            [even(images, (wanted / image).max(1)), rows]
        } else {
            [1, even(rows, (wanted / columns).max(1))]
        };
        self.strips = [images.div_ceil(self.strip[0]), rows.div_ceil(self.strip[1])];
    }

    /// Tiles of a strip.
    pub fn strip_tiles(&self) -> usize {
        self.strip[0] * self.strip[1] * self.tiles[1]
    }

    /// All strips.
    pub fn strip_count(&self) -> usize {
        self.strips[0] * self.strips[1]
    }
}

/// The size of equal parts, each at most `most`, that `n` is cut into.
fn even(n: usize, most: usize) -> usize {
    n.div_ceil(n.div_ceil(most))
}

/// The columns of input tiles by which of their columns are inside the input.
pub fn input_columns(problem: &Problem, transform: Transform) -> Vec<Columns> {
    let (size, step) = (transform.inputs() as i64, transform.outputs() as i64);
    alike(problem.tiles(transform)[1], &|tile| {
        let first = tile as i64 * step - problem.before[1] as i64;
        let clamp = |column: i64| (column - first).clamp(0, size) as usize;
        clamp(0)..clamp(problem.input[2] as i64)
    })
}

/// The columns of output tiles by which of their columns are inside the result.
pub fn output_columns(problem: &Problem, transform: Transform) -> Vec<Columns> {
    let step = transform.outputs();
    alike(problem.tiles(transform)[1], &|tile| 0..step.min(problem.output[2] - tile * step))
}

fn alike(tiles: usize, inside: &dyn Fn(usize) -> std::ops::Range<usize>) -> Vec<Columns> {
    let mut out: Vec<Columns> = vec![];
    for tile in 0..tiles {
        match out.last_mut() {
            Some(last) if last.inside == inside(tile) => last.count += 1,
            _ => out.push(Columns { first: tile, count: 1, inside: inside(tile) }),
        }
    }
    out
}

/// True if the pooling's windows lie side by side in tiles of the transform: 2x2 windows, stride 2,
/// none padded or partial.
pub fn pool_fits(window: &Window, output: [usize; 2]) -> bool {
    let whole = !window.ceil || output.iter().all(|n| n.is_multiple_of(2));
    window.kernel == [2; 2]
        && window.stride == [2; 2]
        && window.padding == [0; 4]
        && window.dilation == [1; 2]
        && whole
}
