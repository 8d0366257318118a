"""Prints the numbers that eval.rs and interpret.rs expect, from NumPy in double precision.

Written from the definitions, not from the Rust code: run it with `python3 expected.py` (needs numpy)
when a test gets a new case.
"""
import math

import numpy as np


def fill(shape, step, modulus, divisor=8.0):
    """The same numbers as `fill` in mod.rs."""
    n = int(np.prod(shape))
    return (((np.arange(n) * step + 3) % modulus) - (modulus // 2)).reshape(shape) / divisor


def show(name, a):
    a = np.asarray(a)
    print(f"{name} {list(a.shape)}:", ", ".join(repr(round(float(v), 6)) for v in a.ravel()))


def conv(x, w, b=None, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1):
    """Every output is the sum of a window times a kernel."""
    n, _, _, _ = x.shape
    out, channels, kh, kw = w.shape
    (sh, sw), (dh, dw), (top, bottom, left, right) = stride, dilation, padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    columns = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    y = np.zeros((n, out, rows, columns))
    for o in range(out):
        first = o // (out // groups) * channels
        for i in range(rows):
            for j in range(columns):
                r, c = i * sh, j * sw
                window = x[:, first:first + channels, r:r + dh * (kh - 1) + 1:dh, c:c + dw * (kw - 1) + 1:dw]
                y[:, o, i, j] = (window * w[o]).sum(axis=(1, 2, 3))
    return y if b is None else y + b[None, :, None, None]


def conv_transpose(x, w, b=None, stride=(1, 1), padding=(0, 0, 0, 0), extra=(0, 0), dilation=(1, 1), groups=1):
    """Every input element adds a multiple of the kernel; then the border is cut."""
    n, channels, height, width = x.shape
    _, out, kh, kw = w.shape
    (sh, sw), (dh, dw), (top, bottom, left, right) = stride, dilation, padding
    rows = (height - 1) * sh + dh * (kh - 1) + 1 + extra[0]
    columns = (width - 1) * sw + dw * (kw - 1) + 1 + extra[1]
    y = np.zeros((n, out * groups, rows, columns))
    for c, o, i, j, h, v in np.ndindex(channels, out, kh, kw, height, width):
        first = c // (channels // groups) * out
        y[:, first + o, h * sh + i * dh, v * sw + j * dw] += x[:, c, h, v] * w[c, o, i, j]
    y = y[:, :, top:rows - bottom, left:columns - right]
    return y if b is None else y + b[None, :, None, None]


def lrn(x, size, alpha, beta, k):
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - size // 2):c + (size - 1) // 2 + 1]
        y[:, c] = x[:, c] / (k + alpha / size * (near ** 2).sum(1)) ** beta
    return y


def batch_norm(x, weight, bias, mean, var, eps=1e-5):
    weight, bias, mean, var = (p[None, :, None, None] for p in (weight, bias, mean, var))
    return (x - mean) / np.sqrt(var + eps) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def log_softmax(x):
    shifted = x - x.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def lenet(x):
    def relu(a):
        return np.maximum(a, 0)

    def pool(a):
        n, c, h, w = a.shape
        return a.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))

    x = pool(relu(conv(x, fill((3, 1, 3, 3), 5, 13, 16), fill((3,), 3, 7, 16), padding=(1, 1, 1, 1))))
    x = pool(relu(conv(x, fill((4, 3, 3, 3), 7, 11, 16), fill((4,), 5, 7, 16))))
    x = x.reshape(x.shape[0], -1)
    x = relu(x @ fill((6, 16), 5, 17, 16).T + fill((6,), 3, 5, 16))
    return x @ fill((5, 6), 7, 13, 16).T + fill((5,), 2, 5, 16)


points = [-4, -1, -0.5, 0, 0.5, 1, 4]
for name, f in {
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "elu": lambda x: x if x > 0 else 1.5 * (math.exp(x) - 1),
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "hard_swish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "hard_sigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
    "erf": math.erf,
}.items():
    show(name, [f(x) for x in points])

x, w, b = fill((1, 2, 4, 5), 5, 13, 4), fill((4, 1, 3, 2), 3, 7, 4), np.array([0.5, -0.25, 0, 1])
show("conv2d", conv(x, w, b, (2, 1), (1, 0, 2, 1), (1, 2), 2))
x = fill((1, 2, 2, 3), 5, 13, 4)
w, b = fill((2, 1, 3, 3), 3, 7, 4), np.array([0.5, -0.5])
show("conv_transpose2d", conv_transpose(x, w, b, (2, 2), (1, 1, 1, 1), (1, 1), (1, 1), 2))
w = fill((2, 2, 2, 2), 3, 7, 4)
show("conv_transpose2d, dilated", conv_transpose(x, w, None, (1, 2), (0, 1, 1, 0), (0, 1), (2, 1)))

x = fill((2, 2, 1, 2), 7, 11, 2)
weight, bias = np.array([2, 0.5]), np.array([1, -1.0])
show("batch_norm", batch_norm(x, weight, bias, np.array([0.5, -0.5]), np.array([4.0, 0.25])))
show("batch_norm, training", batch_norm(x, weight, bias, x.mean((0, 2, 3)), x.var((0, 2, 3))))
x = fill((1, 5, 1, 2), 7, 11, 2)
show("local_response_norm, size 3", lrn(x, 3, 0.5, 0.75, 2.0))
show("local_response_norm, size 4", lrn(x, 4, 0.5, 0.75, 1.0))
x = np.array([[1, 2, 3], [1e4, -1e4, 1e4 - 1]])
show("softmax", softmax(x))
show("log_softmax", log_softmax(x))

logits = lenet(fill((2, 1, 12, 12), 29, 31, 16))
show("lenet, logits", logits)
show("lenet, probabilities", softmax(logits))
