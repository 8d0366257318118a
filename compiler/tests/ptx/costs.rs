//! What the kernels of every example ask of memory: a change that ruins coalesced accesses, or has banks conflict, is
//! seen in a table. `INSTA_UPDATE=always` blesses it; `cargo run --example gpu_traffic` shows a program kernel by
//! kernel.

use std::fmt::Write;

use nnc_compiler::graph::Graph;
use nnc_compiler::lower::lower_for_gpu;
use nnc_compiler::pass;
use nnc_compiler::target::GpuTarget;

use crate::assemble::{each_program, sizes};
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
