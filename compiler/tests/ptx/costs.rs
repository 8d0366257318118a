//! What the kernels of every example ask of memory: a change that ruins coalesced accesses, or has banks conflict, is
//! seen in a table. `INSTA_UPDATE=always` blesses it; `cargo run --example gpu_traffic` shows a program kernel by
//! kernel.

use std::fmt::Write;

use nnc_compiler::emit::cuda;
use nnc_compiler::graph::Graph;
use nnc_compiler::kernel::Module;
use nnc_compiler::lower::lower_for_gpu;
use nnc_compiler::pass;
use nnc_compiler::target::GpuTarget;
use nnc_compiler::training::{StepOptions, build_step};

use crate::assemble::{each_program, sizes};
use crate::ptxas::{Usage, assemble, ptxas};
use crate::traffic::{Row, traffic};

/// Sectors beyond those that side by side would be enough.
fn excess(row: &Row) -> u64 {
    row.stats.map_or(u64::MAX, |s| s.global_sectors.saturating_sub(s.global_bytes.div_ceil(32)))
}

fn line(name: &str, graph: &Graph) -> String {
    let (mut graph, target) = (graph.clone(), GpuTarget::Sm90);
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    let module = lower_for_gpu(&graph, target, None).unwrap_or_else(|e| panic!("{name}: {e}"));
    let rows = traffic(&module, target);
    let sum = |f: fn(&Row) -> u64| rows.iter().map(|r| f(r) * r.launches as u64).sum::<u64>() as f64;
    let sectors = sum(|r| r.stats.map_or(0, |s| s.global_sectors));
    let least = sum(|r| r.stats.map_or(0, |s| s.global_bytes)) / 32.0;
    let (conflicts, wavefronts) = (
        sum(|r| r.stats.map_or(0, |s| s.bank_conflicts)),
        sum(|r| r.stats.map_or(0, |s| s.shared_wavefronts)),
    );
    let worst = rows.iter().max_by_key(|r| excess(r)).unwrap();
    let [its, least_of_it] = worst.sectors();
    format!(
        "{name:<24} {:>10.1}  {:>8.2}  {:>9.3}  {its:>5.1} {least_of_it:>5.1}  {}, {} x {}: {}\n",
        sum(|r| r.bytes) / 1e6,
        sectors / least,
        conflicts / wavefronts.max(1.0),
        worst.name,
        worst.launch.grid,
        worst.launch.block,
        worst.layer
    )
}

#[test]
fn sectors_and_conflicts_of_every_example() {
    let mut table = String::from(
        "                                  MB   sectors  conflicts    most beyond what side by side would take:
program                  of arguments  of least  a wavefront  sectors a request, least, kernel, blocks, layer
",
    );
    each_program(&mut |name, graph| {
        let _ = write!(table, "{}", line(name, graph));
    });
    insta::assert_snapshot!(table);
}

/// Elementwise work on neighbours, masks among them, takes four of them at once: of values that lie alike, and of those
/// that share channels alone.
#[test]
fn neighbours_are_accessed_at_once() {
    let target = GpuTarget::Sm90;
    for body in [
        "output y = x -> relu",
        "output y = x -> conv(64, 1) -> maxpool(3, stride = 2) -> relu -> conv(3, 1)",
    ] {
        let text = format!("use std.vision\nnet n {{\n    input x: f32[N, 64, 64, 48]\n    {body}\n}}\n");
        let mut graph = crate::nets::built(&text, false).graph.specialise(&sizes(4)).unwrap();
        pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
        let rows = traffic(&lower_for_gpu(&graph, target, None).unwrap(), target);
        let row = rows.iter().find(|r| r.name.contains("relu")).unwrap();
        assert_eq!(row.sectors(), [16.0, 16.0], "{row:?}");
    }
}

/// The kernels of a training step.
fn step(layers: &str, shape: &str, batch: usize) -> Module {
    let text = format!(
        "use std.vision
block inception(x) {{
    concat(x -> conv(32, 1) -> relu, x -> conv(64, 3, pad = 1) -> relu)
}}
net n {{
    input x: f32[N, {shape}]
    output y = x -> {layers} -> global_avgpool -> dense(10)
    train {{
        input label: i32[N]
        loss = cross_entropy(y, label)
        optimizer = sgd(lr = 0.1, momentum = 0.9)
    }}
}}
"
    );
    let options = StepOptions { sizes: sizes(batch), gradients: false };
    let mut graph = build_step(&crate::nets::built(&text, true), &options).unwrap().graph;
    let target = GpuTarget::Sm90;
    pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
    lower_for_gpu(&graph, target, None).unwrap()
}

/// The gradients of depthwise convolutions access four channels at once, and read little more than there is; two blocks of
/// 256 threads fit a multiprocessor.
#[test]
fn gradients_of_depthwise_convolutions_are_wide() {
    let target = GpuTarget::Sm90;
    let module = step(
        "conv(48, 1) -> depthwise(3, pad = 1) -> relu -> depthwise(3, stride = 2, pad = 1) -> relu",
        "3, 56, 56",
        16,
    );
    let rows = traffic(&module, target);
    for name in ["conv2d_input_grad", "conv2d_weight_grad_parts"] {
        let rows: Vec<&Row> =
            rows.iter().filter(|r| r.name.contains(name) && !r.layer.contains("conv1")).collect();
        assert_eq!(rows.len(), 2, "{name}");
        for row in rows {
            let [sectors, least] = row.sectors();
            assert!(least > 14.0 && sectors < 16.5, "{row:?}");
        }
    }
    let Some(ptxas) = ptxas() else { return };
    let ptx = cuda::emit(&module, target).unwrap();
    let usage = assemble(&ptxas, &ptx.text, target);
    let is_one = |u: &&Usage| ["input_grad", "weight_grad_parts"].iter().any(|name| u.kernel.contains(name));
    for usage in usage.iter().filter(is_one) {
        assert!(usage.spilled == 0 && usage.registers <= 128, "{usage:?}");
    }
}

/// Weights are packed, their gradients joined, and layouts changed with neighbours side by side both times; gradients of a
/// concatenation have no kernels.
#[test]
fn what_lies_the_other_way_round_is_side_by_side() {
    let target = GpuTarget::Sm90;
    let module = step(
        "conv(64, 3, pad = 1) -> batchnorm -> relu -> inception -> conv(96, 3, pad = 1)",
        "3, 32, 32",
        16,
    );
    let rows = traffic(&module, target);
    assert!(rows.iter().all(|r| r.name != "slice"), "{rows:?}");
    let mut seen = 0;
    for row in &rows {
        let turned = ["pack_conv2d", "pack_transposed_conv2d", "conv2d_weight_grad", "relayout"];
        if turned.contains(&row.name.as_str()) && row.launch.grid >= 64 {
            let [sectors, least] = row.sectors();
            assert!(sectors < 1.5 * least, "{row:?}");
            seen += 1;
        }
    }
    assert!(seen >= 3, "{rows:?}");
}
