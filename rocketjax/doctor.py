"""What this machine brings for grading."""

import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from rocketjax.errors import RocketError
from rocketjax.files import cache_dir
from rocketjax.grade import use_compile_cache
from rocketjax.judge import find_default

PACKAGES = ("rocketjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow")


def examine() -> dict[str, Any]:
    """Facts about interpreter, packages, devices, memory, caches, the default judge, and matmul speed."""
    use_compile_cache()
    devices = jax.devices()
    facts: dict[str, Any] = {
        "python": f"{platform.python_version()} at {sys.executable}",
        **{name: version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "cpus": os.cpu_count(),
    }
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        facts["device memory"] = f"{stats['bytes_limit'] / 2**30:.1f} GiB"
    if hasattr(os, "sysconf"):
        facts["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    facts["cache"] = folder(cache_dir())
    compiled = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    facts["compile cache"] = folder(Path(compiled or cache_dir() / "xla"))
    try:
        found = find_default()
        facts["default judge"] = (
            f"{found.origin} at {found.path}" if found else "not here yet; the first run fetches it"
        )
    except RocketError as e:
        facts["default judge"] = str(e)
    if facts["backend"] == "cpu" and sys.platform == "linux":
        on = "glibc.malloc.hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "")
        # Programs take and return gigabytes at every call; in small pages that costs tuning half of its speed.
        facts["huge pages"] = "on" if on else "off; GLIBC_TUNABLES=glibc.malloc.hugetlb=1 makes tuning faster"
    speed = {name: matmul_flops(dtype) for name, dtype in (("f32", jnp.float32), ("bf16", jnp.bfloat16))}
    for name, rate in speed.items():
        facts[f"matmul {name}"] = f"{rate / 1e9:,.0f} GFLOP/s"
    facts["faster dtype"] = max(speed, key=lambda name: speed[name])
    return facts


def folder(path: Path) -> str:
    """A folder, and what it holds."""
    if not path.is_dir():
        return f"{path} (not made yet)"
    size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
    return f"{path} ({size / 2**20:.0f} MiB)"


# Rows, inner axis and columns of the products that are timed: on a CPU the first, which takes milliseconds there. An
# accelerator is done with it before the host has sent the next one; there they grow until one takes ENOUGH seconds.
PRODUCTS = ((1024, 1024, 4096), (4096, 4096, 4096), (8192, 8192, 8192))
ENOUGH = 2e-3
AT_ONCE = 4  # products that an accelerator is sent before it is waited for: so the host's own time is beside its work


def matmul_flops(dtype: Any) -> float:
    """FLOP/s of products of the judge's kind: operands of this dtype, f32 result; the median of 7."""
    exact = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32, precision=exact))
    cpu, rate = jax.default_backend() == "cpu", 0.0
    for rows, inner, columns in PRODUCTS:
        try:
            seconds = seconds_of(product, rows, inner, columns, dtype, 1 if cpu else AT_ONCE)
        except jax.errors.JaxRuntimeError:
            if not rate:
                raise
            break  # no room for so large a product beside what the device holds
        rate = 2 * rows * inner * columns / seconds
        if cpu or seconds >= ENOUGH:
            break
    return rate


def seconds_of(product: Any, rows: int, inner: int, columns: int, dtype: Any, at_once: int) -> float:
    """Seconds of one product of ones, compilation outside the clock."""
    a, b = (jnp.ones(shape, dtype) for shape in ((rows, inner), (inner, columns)))
    product(a, b).block_until_ready()
    times = []
    for _ in range(7):
        begun = time.perf_counter()
        for _ in range(at_once):
            out = product(a, b)
        out.block_until_ready()
        times.append((time.perf_counter() - begun) / at_once)
    return sorted(times)[len(times) // 2]
