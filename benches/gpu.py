#!/usr/bin/env python3
"""nnc beside PyTorch on one GPU, in turns, one table.

    cargo build --release
    pip install torch torchvision
    python3 benches/gpu.py                       # inference, batch 1 and 64; training steps
    python3 benches/gpu.py infer --models vgg16,resnet50 --batches 1,64 --rounds 3
    python3 benches/gpu.py train --models resnet18_cifar --batches 256

PyTorch runs in its own process for each net: eager in channels_last with TF32 allowed, torch.compile(mode="max-autotune"),
and the first one replayed as a CUDA graph. Same architectures, random weights, float32.

Inference is timed by events on the GPU, with the inputs there, on both sides (`device_ms_median` of `nnc bench --json`).
Training steps are timed by the clock of the host, from one step to the next: for nnc with the copy of the batch, the loss
coming back; for PyTorch with the batch on the GPU already, waiting for the end of the step.
A ratio above 1 says that nnc is faster than the fastest of PyTorch's.

`--device cpu` rehearses the script on a machine without a GPU: the figures are not comparable then.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

# Models: example file, what it is set to.
EXAMPLES = {
    "lenet5": ("lenet", {}),
    "alexnet": ("alexnet", {}),
    "vgg11_cifar": ("vgg_cifar", {}),
    "resnet18_cifar": ("resnet_cifar", {}),
    "vgg16": ("vgg", {"depth": 16}),
    "googlenet": ("googlenet", {}),
    "resnet18": ("resnet", {"depth": 18}),
    "resnet50": ("resnet", {"depth": 50}),
    "mobilenet_v2": ("mobilenet_v2", {}),
    "squeezenet1_1": ("squeezenet", {"version": "1.1"}),
}
INFER = ["vgg16", "googlenet", "resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1", "lenet5"]
TRAIN = ["lenet5", "vgg11_cifar", "resnet18_cifar"]
MODES = ["eager", "compile", "graph"]
WARM_UP, SECONDS, FEWEST = 0.5, 2.0, 10


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("job", nargs="?", choices=["all", "infer", "train", "peer"], default="all")
    p.add_argument("--models", help="with commas; by default those of the table of the CPU")
    p.add_argument("--batches", help="with commas; by default 1,64 and for training 256")
    p.add_argument("--rounds", type=int, default=3, help="turns of nnc and PyTorch; medians of all are shown")
    p.add_argument("--modes", default=",".join(MODES))
    p.add_argument("--nnc", default="target/release/nnc")
    p.add_argument("--extra", default="", help="more arguments of nnc bench: '--precision strict'")
    p.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    a = p.parse_args()
    if a.job == "peer":
        return peer(json.loads(sys.stdin.read()))
    print(f"{devices(a)}\n", flush=True)
    table = [["net", "job", "batch", "nnc ms", *(f"{m} ms" for m in a.modes.split(",")), "ratio"]]
    print_row(table[0], head=True)
    for job, models, batches in (("infer", INFER, "1,64"), ("train", TRAIN, "256")):
        if a.job not in ("all", job):
            continue
        for model in a.models.split(",") if a.models else models:
            for batch in map(int, (a.batches or batches).split(",")):
                print_row(row(a, job, model, batch))


def devices(a):
    """What runs it, for the head of the table."""
    return subprocess.run([a.nnc, "devices"], capture_output=True, text=True).stdout.strip()


def print_row(cells, head=False):
    print("| " + " | ".join(cells) + " |", flush=True)
    if head:
        print("|" + "---|" * len(cells), flush=True)


def row(a, job, model, batch):
    """A line of the table: rounds of nnc, then PyTorch's modes."""
    ours, theirs, said = [], {m: [] for m in a.modes.split(",")}, []
    for _ in range(a.rounds):
        ms, error = nnc(a, job, model, batch)
        ours += [ms] if ms is not None else []
        said += [error] if error else []
        for mode, times in theirs.items():
            ms, error = pytorch(a, job, model, batch, mode)
            times += [ms] if ms is not None else []
            said += [f"{mode}: {error}"] if error else []
    for line in sorted(set(said)):
        print(f"{model} {job} {batch}: {line}", file=sys.stderr)
    figures = {m: statistics.median(t) for m, t in theirs.items() if t}
    mine = statistics.median(ours) if ours else None
    ratio = f"{min(figures.values()) / mine:.2f}" if mine and figures else ""
    shown = [f"{figures[m]:.3f}" if m in figures else "" for m in theirs]
    return [model, job, str(batch), f"{mine:.3f}" if mine else "", *shown, ratio]


def nnc(a, job, model, batch):
    """Median ms of nnc, or why there is none."""
    file, sets = EXAMPLES[model]
    command = [a.nnc, "bench", f"examples/{file}.nn", "--set", f"N={batch}", "--device", a.device, "--json"]
    for name, value in sets.items():
        command += ["--set", f"{name}={value}"]
    command += ["--train"] * (job == "train") + a.extra.split()
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        return None, "nnc: " + r.stderr.strip()[-300:]
    line = json.loads(r.stdout.strip().splitlines()[-1])
    return line.get("device_ms_median", line["ms_median"]), None


def pytorch(a, job, model, batch, mode):
    """Median ms of PyTorch in a process of its own, or why there is none."""
    what = {"job": job, "model": model, "batch": batch, "mode": mode, "device": a.device}
    r = subprocess.run([sys.executable, __file__, "peer"], input=json.dumps(what), capture_output=True, text=True)
    if r.returncode:
        return None, r.stderr.strip()[-300:]
    return json.loads(r.stdout.strip().splitlines()[-1])["ms"], None


def build(name):
    """The architecture of an example, in PyTorch."""
    from torch import nn
    import torchvision.models as tv

    if name == "lenet5":
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    if name == "vgg11_cifar":
        layers, c_in = [], 3
        for c in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if c == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(c_in, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU()]
                c_in = c
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
    if name == "resnet18_cifar":
        model = tv.resnet18(num_classes=10)
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        return model
    if name == "googlenet":
        return tv.googlenet(weights=None, aux_logits=False, init_weights=False)
    return getattr(tv, name)(weights=None)


def peer(what):
    """The other process: prints a line with the median."""
    import torch

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device, name, batch = what["device"], what["model"], what["batch"]
    shape = (1, 28, 28) if name == "lenet5" else (3, 32, 32) if name.endswith("cifar") else (3, 224, 224)
    layout = {"memory_format": torch.channels_last}
    model = build(name).to(device).to(**layout)
    x = torch.rand(batch, *shape, device=device).to(**layout)
    if what["job"] == "infer":
        model.eval()
        run = inference(model, x, what)
    else:
        model.train()
        run = training(model, x, what)
    ms = by_events(run) if device == "cuda" and what["job"] == "infer" else by_clock(run, device)
    print(json.dumps({"ms": ms}))


def compiled(function, what):
    import torch

    return torch.compile(function, mode="max-autotune") if what["mode"] == "compile" else function


def graphed(step, what):
    """The step as a CUDA graph, where that is asked for."""
    import torch

    if what["mode"] != "graph":
        return step
    if what["device"] != "cuda":
        raise SystemExit("CUDA graphs need a GPU")
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def inference(model, x, what):
    import torch

    forward = compiled(model, what)

    def run():
        with torch.inference_mode():
            forward(x)

    return graphed(run, what)


def training(model, x, what):
    import torch

    classes = 10
    label = torch.randint(classes, (len(x),), device=x.device)
    forward = compiled(model, what)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, foreach=True)

    def run():
        optimizer.zero_grad(set_to_none=what["mode"] != "graph")
        torch.nn.functional.cross_entropy(forward(x), label).backward()
        optimizer.step()

    return graphed(run, what)


def enough(times, start):
    return len(times) >= FEWEST and time.monotonic() - start >= SECONDS


def warm_up(run, wait):
    start = time.monotonic()
    while time.monotonic() - start < WARM_UP:
        run()
        wait()


def by_events(run):
    """Median ms between events around each run."""
    import torch

    warm_up(run, torch.cuda.synchronize)
    times, start = [], time.monotonic()
    while not enough(times, start):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def by_clock(run, device):
    """Median ms of runs by the clock of the host."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    warm_up(run, wait)
    times, start = [], time.monotonic()
    while not enough(times, start):
        begin = time.perf_counter()
        run()
        wait()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    main()
