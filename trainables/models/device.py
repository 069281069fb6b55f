"""Devices and compute dtypes: the device of this process, its description, its dtype."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


def default_device() -> str:
    """Returns "cuda" if there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe_device() -> dict[str, str | int | bool]:
    """The device and the package versions on which a result depends."""
    facts: dict[str, str | int | bool] = {"cpu_threads": torch.get_num_threads()}
    facts |= _describe_cuda() if torch.cuda.is_available() else _describe_cpu()
    return facts | {f"{package}_version": found for package, found in package_versions().items()}


def package_versions() -> dict[str, str]:
    """The versions of the packages on which a result depends."""
    from importlib.metadata import version

    return {package: version(package) for package in _PACKAGES}


def resolve_compute_dtype(compute_dtype: str, device: str) -> str:
    """The dtype that "auto" stands for on `device`; any other dtype is returned unchanged.

    bfloat16 on GPUs of compute capability 8 and above, float16 on older GPUs, float32 on a CPU.
    """
    if compute_dtype != "auto":
        return compute_dtype
    if torch.device(device).type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"


def _describe_cpu() -> dict[str, str | int | bool]:
    return {
        "device": _cpu_name(),
        "device_type": "cpu",
        "device_memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "bfloat16": False,  # most CPUs compute it, but no faster than float32
    }


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "cpu"


def _describe_cuda() -> dict[str, str | int | bool]:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "device": properties.name,
        "device_type": "cuda",
        "device_memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "bfloat16": properties.major >= 8,
        "cuda_version": str(torch.version.cuda),
        "driver_version": _driver_version(),
    }


def _driver_version() -> str:
    version = Path("/sys/module/nvidia/version")
    return version.read_text().strip() if version.exists() else "unknown"
