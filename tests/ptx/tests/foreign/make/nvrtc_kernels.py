"""Compiles `nvrtc_kernels.cu` to PTX for the interpreter's tests; needs `pip install cuda-bindings nvidia-cuda-nvrtc
nvidia-cuda-runtime`, and no GPU.

    python3 nvrtc_kernels.py            # writes ../ptx/*.ptx, a file a kernel
"""

import re
import sys
from pathlib import Path

from cuda.bindings import nvrtc

HERE = Path(__file__).parent
OUT = HERE.parent / "ptx"

# Kernel and the threads of its blocks.
KERNELS = {
    "reduce": "256", "transpose": "32 x 8", "pipelined": "256", "functions": "any", "integers": "any",
    "formats": "any", "compact": "256", "median": "32 x 8", "gather": "any",
}


def include():
    for folder in map(Path, sys.path):
        for found in folder.glob("nvidia/**/include/cuda_pipeline.h"):
            return str(found.parent)
    raise SystemExit("no headers of CUDA: pip install nvidia-cuda-runtime")


def check(result):
    error, *values = result
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise SystemExit(f"NVRTC: {error}")
    return values[0] if len(values) == 1 else values


def compile_kernel(source, target):
    program = check(nvrtc.nvrtcCreateProgram(source.encode(), b"nvrtc_kernels.cu", 0, [], []))
    options = [f"--gpu-architecture=compute_{target}".encode(), b"--std=c++17", f"-I{include()}".encode()]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise SystemExit(log.decode())
    text = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, text))
    return text.decode().rstrip("\0")


def main():
    OUT.mkdir(exist_ok=True)
    source = (HERE / "nvrtc_kernels.cu").read_text()
    head, *pieces = re.split(r"(?m)^(?=///)", source)
    version = ".".join(map(str, check(nvrtc.nvrtcVersion())))
    for name, threads in KERNELS.items():
        (piece,) = [p for p in pieces if re.search(rf"\b{name}\(", p)]
        text = compile_kernel(head + piece, 80)
        text = re.sub(r"(?m)^\s*//.*\n", "", text)
        text = re.sub(r"\n\n+", "\n", text).strip()
        (OUT / f"cuda_{name}.ptx").write_text(f"// NVRTC {version}: threads {threads}\n{text}\n")
        print(f"{name}: {len(text)} bytes")


if __name__ == "__main__":
    main()
