//! Convolutions of Triton's as products whose first factor is gathered from a picture.

use nnc_ptx_interpreter::{Arg, Memory};

use crate::support::{Foreign, assert_close, tf32, values};

/// A 3 x 3 convolution of NHWC pictures, padded by one.
struct Convolution {
    images: usize,
    height: usize,
    width: usize,
    channels: usize,
    filters: usize,
    stride: usize,
}

impl Convolution {
    fn out(&self) -> [usize; 2] {
        [self.height, self.width].map(|s| (s - 1) / self.stride + 1)
    }

    /// The sum of an output element, and of its products' sizes.
    fn element(&self, x: &[f32], w: &[f32], pixel: usize, filter: usize) -> (f64, f64) {
        let [height, width] = self.out();
        let (image, row, column) = (pixel / (height * width), pixel / width % height, pixel % width);
        let (mut sum, mut size) = (0.0, 0.0);
        for at in 0..9 * self.channels {
            let (dy, dx, channel) = (at / self.channels / 3, at / self.channels % 3, at % self.channels);
            let (y, z) = (row * self.stride + dy, column * self.stride + dx);
            if (1..=self.height).contains(&y) && (1..=self.width).contains(&z) {
                let pixel = (image * self.height + y - 1) * self.width + z - 1;
                let (a, b) = (x[pixel * self.channels + channel], w[at * self.filters + filter]);
                let product = f64::from(tf32(a)) * f64::from(tf32(b));
                (sum, size) = (sum + product, size + product.abs());
            }
        }
        (sum, size)
    }

    fn check(&self, file: &str) {
        let kernel = Foreign::read(file);
        let [height, width] = self.out();
        let pixels = self.images * height * width;
        let x = values(self.images * self.height * self.width * self.channels, 10);
        let w = values(9 * self.channels * self.filters, 11);
        let mut memory = Memory::new();
        let (px, pw) = (memory.upload("x", &x), memory.upload("w", &w));
        let y = memory.allocate("y", pixels * self.filters * 4);
        let mut args: Vec<Arg> = [px, pw, y].map(Arg::Buffer).into();
        let sizes = [self.height, self.width, self.channels, self.filters, height, width, pixels];
        args.extend(sizes.map(|s| Arg::U32(s as u32)));
        let tiles = |size: usize, tile: &str| (size as u32).div_ceil(kernel.constants[tile]);
        let stats = kernel.triton(&mut memory, [tiles(pixels, "BM"), tiles(self.filters, "BN"), 1], &args);
        assert!(stats.mmas > 0);
        let expected: Vec<_> = (0..pixels * self.filters)
            .map(|i| self.element(&x, &w, i / self.filters, i % self.filters))
            .collect();
        assert_close(file, &memory.download::<f32>(y).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn convolutions() {
    let odd = Convolution { images: 2, height: 9, width: 7, channels: 5, filters: 11, stride: 2 };
    odd.check("conv2d");
    Convolution { images: 1, height: 1, width: 1, channels: 1, filters: 1, stride: 2 }.check("conv2d");
    Convolution { images: 1, height: 6, width: 7, channels: 16, filters: 48, stride: 1 }
        .check("conv2d_aligned");
}
