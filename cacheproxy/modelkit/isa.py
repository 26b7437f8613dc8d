"""The class of the CPU, as far as it affects the bits or the overflow safety of INT8 arithmetic.

ONNX Runtime selects its kernels by the CPU's instruction set. Two CPUs of one class give the same
vectors for the same graph; across classes they may differ, so the class is part of a model's
fingerprint. It also decides the width of weights: without VNNI, x86 multiplies u8 by s8 with
`vpmaddubsw`, which saturates at 16 bits, unless weights keep to 7 bits (ONNX Runtime's
`reduce_range`; github.com/microsoft/onnxruntime issues 5849 and 6004).
"""

import platform
from pathlib import Path

from cacheproxy.settings.device import Device

_CPUINFO = Path("/proc/cpuinfo")


def isa_class(device: Device = "cpu") -> str:
    """Return this CPU's class, for instance "x86-64-avx512-vnni" or "arm64"; "cuda" for a GPU."""
    if device == "cuda":
        return device
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "arm64"
    if machine in ("x86_64", "amd64"):
        return x86_class(_flags(_CPUINFO))
    return machine or "unknown"


def x86_class(flags: frozenset[str]) -> str:
    """Return the class of an x86-64 CPU with these flags (the names of /proc/cpuinfo).

    If no flags can be read (macOS on Intel, Windows), the class is "x86-64": weights then use 7
    bits, which every x86 CPU multiplies exactly.
    """
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "x86-64-avx512-vnni" if "avx512_vnni" in flags else "x86-64-avx512"
    if "avx2" in flags:
        return "x86-64-avx2-vnni" if "avx_vnni" in flags else "x86-64-avx2"
    return "x86-64"


def weight_bits(isa: str) -> int:
    """Return how many bits of INT8 weights a CPU of this class multiplies without saturation."""
    if isa.startswith("x86-64") and not isa.endswith("vnni"):
        return 7
    return 8


def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
