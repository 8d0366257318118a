"""Compiles small Triton kernels to PTX for the interpreter's tests; no GPU is needed.

    pip install triton==3.9.0
    python3 compile_triton.py            # writes ../ptx/*.ptx

A file's first line says how its kernel is launched; `../support.rs` reads that.
"""

import os
import re
from pathlib import Path

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
os.environ["TRITON_ALWAYS_COMPILE"] = "1"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

OUT = Path(__file__).parent.parent / "ptx"


@triton.jit
def matmul(a, b, c, m, n, k, a_row, a_column, b_row, b_column,
           BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr):
    """c = a·b with f32 accumulators; a and b have any strides, c is row-major f32."""
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    pa = a + rm[:, None] * a_row + rk[None, :] * a_column
    pb = b + rk[:, None] * b_row + rn[None, :] * b_column
    acc = tl.zeros((BM, BN), tl.float32)
    for i in range(0, k, BK):
        x = tl.load(pa, mask=(rm[:, None] < m) & (rk[None, :] + i < k), other=0.0)
        y = tl.load(pb, mask=(rk[:, None] + i < k) & (rn[None, :] < n), other=0.0)
        acc = tl.dot(x, y, acc, input_precision=PRECISION)
        pa += BK * a_column
        pb += BK * b_row
    tl.store(c + rm[:, None] * n + rn[None, :], acc, mask=(rm[:, None] < m) & (rn[None, :] < n))


@triton.jit
def conv2d(x, w, y, height, width, channels, filters, out_height, out_width, pixels,
           KERNEL: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr,
           BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Implicit GEMM: x is NHWC, w is (KERNEL, KERNEL, channels, filters), y is NHWC; TF32."""
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    image = rm // (out_height * out_width)
    row = rm // out_width % out_height * STRIDE - PAD
    column = rm % out_width * STRIDE - PAD
    acc = tl.zeros((BM, BN), tl.float32)
    for i in range(0, KERNEL * KERNEL * channels, BK):
        at = i + rk
        channel = at % channels
        dx = at // channels % KERNEL
        dy = at // channels // KERNEL
        yy = row[:, None] + dy[None, :]
        xx = column[:, None] + dx[None, :]
        inside = (yy >= 0) & (yy < height) & (xx >= 0) & (xx < width) & (rm[:, None] < pixels) & (dy[None, :] < KERNEL)
        p = x + ((image[:, None] * height + yy) * width + xx) * channels + channel[None, :]
        f = tl.load(p, mask=inside, other=0.0)
        g = tl.load(w + at[:, None] * filters + rn[None, :],
                    mask=(at[:, None] < KERNEL * KERNEL * channels) & (rn[None, :] < filters), other=0.0)
        acc = tl.dot(f, g, acc, input_precision="tf32")
    tl.store(y + rm[:, None] * filters + rn[None, :], acc, mask=(rm[:, None] < pixels) & (rn[None, :] < filters))


@triton.jit
def softmax(x, y, rows, columns, BR: tl.constexpr, BC: tl.constexpr):
    r = tl.program_id(0) * BR + tl.arange(0, BR)
    c = tl.arange(0, BC)
    at = r[:, None] * columns + c[None, :]
    inside = (r[:, None] < rows) & (c[None, :] < columns)
    v = tl.load(x + at, mask=inside, other=-float("inf"))
    v = tl.where(r[:, None] < rows, v, 0.0)
    e = tl.exp(v - tl.max(v, axis=1)[:, None])
    tl.store(y + at, e / tl.sum(e, axis=1)[:, None], mask=inside)


@triton.jit
def layer_norm(x, scale, shift, y, columns, epsilon, BC: tl.constexpr):
    """A row a block, in pieces of BC columns."""
    x += tl.program_id(0) * columns
    y += tl.program_id(0) * columns
    c = tl.arange(0, BC)
    total = tl.zeros((BC,), tl.float32)
    for i in range(0, columns, BC):
        total += tl.load(x + i + c, mask=i + c < columns, other=0.0)
    mean = tl.sum(total, axis=0) / columns
    squares = tl.zeros((BC,), tl.float32)
    for i in range(0, columns, BC):
        v = tl.load(x + i + c, mask=i + c < columns, other=0.0)
        v = tl.where(i + c < columns, v - mean, 0.0)
        squares += v * v
    factor = 1 / tl.sqrt(tl.sum(squares, axis=0) / columns + epsilon)
    for i in range(0, columns, BC):
        inside = i + c < columns
        v = (tl.load(x + i + c, mask=inside, other=0.0) - mean) * factor
        v = v * tl.load(scale + i + c, mask=inside) + tl.load(shift + i + c, mask=inside)
        tl.store(y + i + c, v, mask=inside)


@triton.jit
def add(a, b):
    return a + b


@triton.jit
def prefix(x, y, columns, BC: tl.constexpr):
    """Sums of a row's first elements: shuffles upwards."""
    at = tl.program_id(0) * columns + tl.arange(0, BC)
    inside = tl.arange(0, BC) < columns
    v = tl.load(x + at, mask=inside, other=0.0)
    tl.store(y + at, tl.associative_scan(v, 0, add), mask=inside)


@triton.jit
def sort(x, y, columns, BC: tl.constexpr):
    """Rows in order: integers, shuffles and selections."""
    at = tl.program_id(0) * columns + tl.arange(0, BC)
    inside = tl.arange(0, BC) < columns
    v = tl.load(x + at, mask=inside, other=0x7fffffff)
    tl.store(y + at, tl.sort(v), mask=inside)


@triton.jit
def transpose(x, y, rows, columns, BR: tl.constexpr, BC: tl.constexpr):
    """Through shared memory, since loads and stores are both along rows."""
    r = tl.program_id(0) * BR + tl.arange(0, BR)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    v = tl.load(x + r[:, None] * columns + c[None, :], mask=(r[:, None] < rows) & (c[None, :] < columns))
    tl.store(y + c[:, None] * rows + r[None, :], tl.trans(v), mask=(c[:, None] < columns) & (r[None, :] < rows))


def write(name, fn, types, constants, target=80, warps=4, stages=2, aligned=()):
    """Compiles a kernel whose arguments have these types; those that are `aligned` are multiples of 16."""
    names = fn.arg_names
    signature = dict(zip(names, types)) | {n: "constexpr" for n in constants}
    attributes = {(names.index(n),): [["tt.divisibility", 16]] for n in aligned}
    source = ASTSource(fn=fn, signature=signature, constexprs=constants, attrs=attributes)
    kernel = triton.compile(source, target=GPUTarget("cuda", target, 32),
                            options={"num_warps": warps, "num_stages": stages})
    text = kernel.asm["ptx"]
    text = re.sub(r"[ \t]+(//.*)?\n", "\n", re.sub(r"^\s*//.*\n", "", text, flags=re.M))
    text = re.sub(r"\n\n+", "\n", text)
    head = f"// Triton {triton.__version__}: threads {warps * 32}, shared {kernel.metadata.shared}, " \
           + ", ".join(f"{k} {v}" for k, v in constants.items()) + "\n"
    (OUT / f"{name}.ptx").write_text(head + text.strip() + "\n")
    print(f"{name}: {len(text)} bytes, shared {kernel.metadata.shared}")


def products():
    pointers = ["a", "b", "c"]
    row = {"a_column": 1, "b_column": 1}
    turned_b = {"a_column": 1, "b_row": 1}
    turned_a = {"a_row": 1, "b_column": 1}
    turned = {"a_row": 1, "b_row": 1}

    def one(name, ty, tile, strides, aligned, **options):
        constants = strides | dict(zip(["BM", "BN", "BK"], tile)) | {"PRECISION": "tf32"}
        types = [f"*{ty}", f"*{ty}", "*fp32"] + ["i32"] * 7 + ["constexpr"] * 4
        multiples = pointers + (["m", "n", "k"] if aligned else [])
        multiples += [s for s in ("a_row", "a_column", "b_row", "b_column") if aligned and s not in strides]
        write(name, matmul, types, constants, aligned=multiples, **options)

    one("tf32", "fp32", (32, 32, 16), row, False, warps=2)
    one("tf32_aligned", "fp32", (32, 32, 32), row, True, stages=3)
    one("tf32_wide", "fp32", (16, 64, 16), row, True, stages=4)
    one("tf32_turned_b", "fp32", (32, 32, 32), turned_b, True)
    one("tf32_turned_a", "fp32", (64, 16, 16), turned_a, True, stages=3)
    one("tf32_turned", "fp32", (32, 16, 16), turned, False, warps=1)
    one("tf32_sm_90", "fp32", (32, 32, 16), row, True, target=90, warps=2, stages=3)
    one("bf16", "bf16", (32, 32, 32), row, True, stages=3)
    one("bf16_turned_b", "bf16", (32, 32, 32), turned_b, True)
    one("bf16_turned_a", "bf16", (32, 32, 32), turned_a, True)
    one("bf16_loose", "bf16", (32, 16, 16), row, False, warps=1)
    one("f16", "fp16", (32, 32, 32), turned, True, stages=3)


def others():
    for target in (80, 90):
        end = "" if target == 80 else "_sm_90"
        write("softmax" + end, softmax, ["*fp32"] * 2 + ["i32"] * 2, {"BR": 4, "BC": 128}, target,
              aligned=["x", "y", "columns"] if target == 90 else ["x", "y"])
        write("layer_norm" + end, layer_norm, ["*fp32"] * 4 + ["i32", "fp32"], {"BC": 256}, target,
              aligned=["x", "scale", "shift", "y"] + (["columns"] if target == 90 else []))
        write("transpose" + end, transpose, ["*fp32"] * 2 + ["i32"] * 2, {"BR": 32, "BC": 16}, target,
              aligned=["x", "y", "rows", "columns"], warps=2)
    write("prefix", prefix, ["*fp32"] * 2 + ["i32"], {"BC": 256}, aligned=["x", "y"])
    write("sort", sort, ["*i32"] * 2 + ["i32"], {"BC": 64}, aligned=["x", "y"], warps=1)
    write("conv2d", conv2d, ["*fp32"] * 3 + ["i32"] * 7,
          {"KERNEL": 3, "STRIDE": 2, "PAD": 1, "BM": 32, "BN": 16, "BK": 16}, warps=2, stages=3,
          aligned=["x", "w", "y"])
    write("conv2d_aligned", conv2d, ["*fp32"] * 3 + ["i32"] * 7,
          {"KERNEL": 3, "STRIDE": 1, "PAD": 1, "BM": 32, "BN": 32, "BK": 32}, stages=2,
          aligned=["x", "w", "y", "channels", "filters"])


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    products()
    others()
