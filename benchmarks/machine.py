"""The machine in words, with nothing that identifies it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


def describe(device: torch.device, threads: int) -> str:
    """CPU model, cores used, GPU if one is used, and versions."""
    parts = [f"{_cpu_model()}, {threads} of {torch.multiprocessing.cpu_count()} cores used"]
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        parts.append(f"{gpu.name} with {gpu.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}")
    parts += [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    return "; ".join([*parts, *(f"{name} {_version(name)}" for name in ("peft", "timm", "transformers"))])


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    features = " with AVX-512" if any(line.startswith("flags") and "avx512f" in line for line in lines) else ""
    return (names[0] if names else platform.machine()) + features


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
