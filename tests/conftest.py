"""Eight fake CPU devices for every test, a compile cache for the session, and the real judges' weights."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

# Tests make many small programs again and again; a cache of their own keeps the user's clean.
# The first process of a round makes it; the others, and those that tests start, inherit its environment.
# One that is given is kept for the next round.
MADE = "ROCKETJAX_TEST_XLA" not in os.environ
CACHE = os.environ.get("ROCKETJAX_TEST_XLA") or tempfile.mkdtemp(prefix="rocketjax-xla-")
os.environ["ROCKETJAX_TEST_XLA"] = os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402 - reads the environment
import pytest  # noqa: E402
import real_weights  # noqa: E402
from hypothesis import settings  # noqa: E402

from rocketjax.errors import RocketError  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
settings.register_profile("any machine", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("any machine")
SHARED = Path(__file__).parents[2] / "shared"


def pytest_configure(config) -> None:
    """What the default round waits for is LLVM: tiny programs are compiled once and run for milliseconds. Real weights
    need its best. JAX reads the flags at its first compilation; of two levels the later one, which is given, holds."""
    if "not weights" in config.option.markexpr:
        os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}".strip()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real benchmarks beside the checkout; they are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return SHARED


def fetched(fetch) -> Path:
    try:
        return fetch()
    except (OSError, RocketError, subprocess.CalledProcessError) as e:
        pytest.skip(f"the real weights cannot be fetched: {e}")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    return fetched(real_weights.smollm2)


@pytest.fixture(scope="session")
def gemma3_gguf() -> Path:
    return fetched(real_weights.gemma3)


def pytest_sessionfinish(session) -> None:
    """The round's compile cache goes when its last process does."""
    if MADE and not hasattr(session.config, "workerinput"):
        shutil.rmtree(CACHE, ignore_errors=True)
