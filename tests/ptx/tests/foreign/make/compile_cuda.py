"""Compiles `*_kernels.cu` to PTX for the interpreter's tests; no GPU is needed.

    pip install cuda-bindings nvidia-cuda-nvrtc==13.2.86 nvidia-cuda-runtime==13.2.86
    pip install nvidia-cuda-cccl==13.0.85 nvidia-cutlass==4.2.0.0    # the newest CCCL that this CUTLASS compiles with
    python3 compile_cuda.py [NAME…]                                  # writes ../ptx/NAME.ptx, or all

A file's first line says what made it.
"""

import re
import sys
from pathlib import Path

from cuda.bindings import nvrtc

HERE = Path(__file__).parent
OUT = HERE.parent / "ptx"

# What a name in the text is cut to: CuTe's and CUB's say all their types.
LONGEST_NAME = 60


def include(header):
    """Folder of a header of an installed package."""
    for folder in filter(Path.is_dir, map(Path, sys.path)):
        for package in ("nvidia", "cutlass_library"):
            for found in (folder / package).glob(f"**/include/**/{header}"):
                return str(found)[: -len(header) - 1]
    raise SystemExit(f"no {header}: see the packages above")


def check(result):
    error, *values = result
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise SystemExit(f"NVRTC: {error}")
    return values[0] if len(values) == 1 else values


def compile_kernel(source, folders):
    program = check(nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], []))
    options = [b"--gpu-architecture=compute_80", b"--std=c++17", b"-default-device"]
    options += [f"-I{folder}".encode() for folder in folders]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise SystemExit(log.decode())
    text = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, text))
    return text.decode().rstrip("\0")


def shortened(text):
    """Without comments, constants that headers leave behind, and names that say types."""
    text = re.sub(r"(?m)^\s*//.*\n|^(\.visible )?\.global .*\n", "", text)
    names = [n for n in dict.fromkeys(re.findall(r"[\w$]+", text)) if len(n) > LONGEST_NAME]
    for number, name in enumerate(sorted(names, key=len, reverse=True)):
        text = text.replace(name, f"long_name_{number}")
    return re.sub(r"[ \t]+\n", "\n", re.sub(r"\n\s*\n+", "\n", text)).strip()


def main():
    OUT.mkdir(exist_ok=True)
    version = ".".join(map(str, check(nvrtc.nvrtcVersion())))
    folders = [include("cuda/std/tuple"), include("cute/tensor.hpp"), include("cuda_pipeline.h")]
    for path in sorted(HERE.glob("*_kernels.cu")):
        library = path.stem.removesuffix("_kernels")
        head, *pieces = re.split(r"(?m)^(?=///)", path.read_text())
        for piece in pieces:
            # What only serves kernels, and each kernel by its name.
            found = re.search(r"^extern[^;{]*?__global__[^;{]*?(\w+)\(const|^PRODUCT\((\w+)", piece, flags=re.M)
            if not found:
                head += piece
                continue
            name = f"{library}_{found[1] or found[2]}"
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            text = shortened(compile_kernel(head + piece, folders))
            (OUT / f"{name}.ptx").write_text(f"// NVRTC {version}, {path.name}\n{text}\n")
            print(f"{name}: {len(text)} bytes")


if __name__ == "__main__":
    main()
