//! Kernels of CUDA C++ that call CUB: shuffles whose predicates say who takes part, counters packed in words, exchanges
//! through shared memory.

use nnc_ptx_interpreter::{Arg, Memory};

use crate::support::{Foreign, assert_close, values};

#[test]
fn sums_of_blocks() {
    let kernel = Foreign::read("cub_sums_before");
    for n in [1usize, 700, 1024] {
        let x = values(n, 40);
        let mut memory = Memory::new();
        let (px, y) = (memory.upload("x", &x), memory.allocate("y", n * 4));
        let blocks = n.div_ceil(512);
        let sums = memory.allocate("sums", blocks * 4);
        let args = [Arg::Buffer(px), Arg::Buffer(y), Arg::Buffer(sums), Arg::U32(n as u32)];
        kernel.launch(&mut memory, ([blocks as u32, 1, 1], [128, 1, 1], 0), &args);
        let add = |(sum, size): (f64, f64), v: f32| (sum + f64::from(v), size + f64::from(v.abs()));
        let (mut before, mut totals) = (vec![], vec![]);
        for block in x.chunks(512) {
            let mut all = (0.0, 0.0);
            for &v in block {
                before.push(all);
                all = add(all, v);
            }
            totals.push(all);
        }
        assert_close("before", &memory.download::<f32>(y).unwrap(), &before, 1e-6);
        assert_close("sums", &memory.download::<f32>(sums).unwrap(), &totals, 1e-6);
    }
}

#[test]
fn pairs_in_order() {
    let keys: Vec<i32> = values(512, 41).iter().map(|v| (v * 60.0) as i32 - 1).collect();
    let numbers: Vec<i32> = (0..512).collect();
    let mut memory = Memory::new();
    let inputs = [memory.upload("keys", &keys), memory.upload("values", &numbers)];
    let outputs = ["keys_out", "values_out"].map(|name| memory.allocate(name, 512 * 4));
    let args: Vec<Arg> = inputs.into_iter().chain(outputs).map(Arg::Buffer).collect();
    Foreign::read("cub_ordered_pairs").launch(&mut memory, ([2, 1, 1], [64, 1, 1], 0), &args);
    let mut pairs: Vec<(i32, i32)> = keys.into_iter().zip(numbers).collect();
    pairs.chunks_mut(256).for_each(|block| block.sort_by_key(|p| p.0));
    let (keys, numbers): (Vec<i32>, Vec<i32>) = pairs.into_iter().unzip();
    assert_eq!(memory.download::<i32>(outputs[0]).unwrap(), keys);
    assert_eq!(memory.download::<i32>(outputs[1]).unwrap(), numbers);
}

#[test]
fn largest_numbers_of_segments() {
    let x: Vec<i32> = values(128, 42).iter().map(|v| (v * 1000.0) as i32).collect();
    let mut memory = Memory::new();
    let (px, y) = (memory.upload("x", &x), memory.allocate("y", 512));
    let args = [Arg::Buffer(px), Arg::Buffer(y)];
    Foreign::read("cub_largest_so_far").launch(&mut memory, ([2, 1, 1], [64, 1, 1], 0), &args);
    let largest = |segment: &[i32]| {
        let so_far = |largest: &mut i32, &v: &i32| {
            *largest = v.max(*largest);
            Some(*largest)
        };
        segment.iter().scan(i32::MIN, so_far).collect::<Vec<i32>>()
    };
    assert_eq!(memory.download::<i32>(y).unwrap(), x.chunks(8).flat_map(largest).collect::<Vec<i32>>());
}

#[test]
fn numbers_changed_places() {
    let x = values(2 * 512 * 2, 43);
    let mut memory = Memory::new();
    let (px, y) = (memory.upload("x", &x), memory.allocate("y", x.len() * 4));
    let args = [Arg::Buffer(px), Arg::Buffer(y)];
    Foreign::read("cub_exchanged").launch(&mut memory, ([2, 1, 1], [128, 1, 1], 0), &args);
    // The i-th pair of a thread is the one numbered 128 i + thread.
    let from = |i: usize| i / 1024 * 1024 + 2 * (i / 2 % 4 * 128 + i / 8 % 128) + i % 2;
    assert_eq!(memory.download::<f32>(y).unwrap(), (0..x.len()).map(|i| x[from(i)]).collect::<Vec<f32>>());
}
