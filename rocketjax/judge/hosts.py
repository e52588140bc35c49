"""The processes of one job: who they are, and what they agree on before they work apart.

A judge that fits on one host's devices needs no exchange between hosts while it grades: every process has a mesh of its
own devices and its own shards of the plan. Only a model axis that is longer than a host joins several of them to a
team, which computes every row together. What processes must know of each other goes through `agree`.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from rocketjax.errors import RocketError
from rocketjax.judge.config import Config
from rocketjax.judge.sharding import MeshShape, choose_mesh, layout, make_mesh, parse_mesh

HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
PATIENCE = 300  # seconds to wait at the start for the others


def begin(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins this process to its job; before anything else uses JAX. Once joined, a second call does nothing.

    Without arguments, TPU pods, Slurm and Open MPI say who there is; else `coordinator` is `host:port` of process 0,
    the same for all. Raises RocketError where the job does not come together.
    """
    if jax.distributed.is_initialized():
        return
    # Tuning of products on GPUs would be shared between processes that, here, compile different programs.
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_shard_autotuning" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_shard_autotuning=false".strip()
    # It would swallow the first SIGTERM; a run may be ended at any moment.
    jax.config.update("jax_enable_preemption_service", False)
    given = (coordinator, processes, process)
    if any(x is not None for x in given) and None in given:
        raise RocketError("give --coordinator, --processes and --process together, or none of them")
    if processes is not None and process is not None and not 0 <= process < processes:
        raise RocketError(f"process is {process}; of {processes} processes it is one from 0 to {processes - 1}")
    try:
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=PATIENCE, heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=2 * HEARTBEAT,
        )  # fmt: skip
    except (RuntimeError, ValueError) as e:
        reason = (str(e) or type(e).__name__).splitlines()[0][:300]
        raise RocketError(
            f"the processes of this job cannot come together ({reason}); outside of a TPU pod, Slurm and Open MPI, "
            "give --coordinator HOST:PORT --processes N --process I"
        ) from None
    # The processes' first exchange waits half a minute at most for the slowest of them (Gloo), who may have a judge to
    # fetch: here all have just come. Gloo says so on standard output, which belongs to results.
    with standard_output_as_error():
        agree(lambda: None)


@contextlib.contextmanager
def standard_output_as_error() -> Iterator[None]:
    """What the process and its libraries print meanwhile goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def leave(code: int) -> None:
    """Ends this process at once where it is one of several: its end must not wait for the others', who learn of it."""
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def first() -> bool:
    """Whether this process is the one that speaks and writes what there is one of."""
    return jax.process_index() == 0


@dataclass(frozen=True)
class Team:
    """Processes that hold one copy (or several) of the judge's weights and compute the same rows together."""

    index: int
    count: int  # teams of the job
    devices: tuple[jax.Device, ...]
    leads: bool  # whether this process commits what the team computed

    @property
    def alone(self) -> bool:
        """Whether the team is this process."""
        return all(d.process_index == jax.process_index() for d in self.devices)


def team_of(model_axis: int) -> Team:
    """The team of this process where so many devices hold one copy of the weights.

    Raises RocketError where hosts cannot be joined so that all their devices are used.
    """
    here, processes = len(jax.local_devices()), jax.process_count()
    size = 1 if here % model_axis == 0 else model_axis // here
    if processes == 1 or size <= 1:
        if model_axis > here and processes == 1:
            raise RocketError(f"a model axis of {model_axis} needs as many devices, there are {here}")
        mine = tuple(jax.local_devices())
        return Team(jax.process_index(), processes, mine, True)
    if model_axis % here or processes % size:
        raise RocketError(
            f"a model axis of {model_axis} over {processes} processes of {here} devices each: it must divide a "
            "process's devices or be a multiple of them that divides the job"
        )
    index = jax.process_index() // size
    members = range(index * size, (index + 1) * size)
    devices = tuple(
        sorted((d for d in jax.devices() if d.process_index in members), key=lambda d: (d.process_index, d.id))
    )
    return Team(index, processes // size, devices, jax.process_index() == members[0])


def places_for(config: Config, weight_bytes: int, mesh: str) -> tuple[Mesh, Team]:
    """The mesh of this process's team, and the team, for a judge whose weights are so large.

    `mesh` is `auto` or the shape of the whole job's mesh (see `sharding.parse_mesh`). Raises RocketError for a shape
    that cannot be.
    """
    if mesh == "auto":
        shape = choose_mesh(config, weight_bytes, jax.local_devices())
    else:
        shape = parse_mesh(mesh, jax.device_count())
        if jax.process_count() > 1 and shape.devices != jax.device_count():
            raise RocketError(
                f"mesh {mesh!r}: {jax.process_count()} processes use all their {jax.device_count()} devices"
            )
        if shape.model > 1:
            layout(config, shape.model)
    team = team_of(shape.model)
    own = len(team.devices) if jax.process_count() > 1 else shape.devices
    return make_mesh(MeshShape(own // shape.model, shape.model), team.devices), team


T = TypeVar("T")


def agree(act: Callable[[], T], said: Callable[[T], str] = lambda result: "") -> tuple[T, list[str]]:
    """What `act` gives in this process, and what `said` makes of it in every process, in their order.

    All of them must call this at the same point. Where `act` raises an exception in one, this raises a RocketError in
    the others, so that nobody waits for a process that has gone.
    """
    if jax.process_count() == 1:
        result = act()
        return result, [said(result)]
    from jax.experimental.multihost_utils import process_allgather

    failure = None
    try:
        result = act()
        text = said(result).encode()
    except Exception as e:
        failure, text = e, (str(e) or type(e).__name__).encode()
    about = np.asarray([len(text), failure is not None], np.int32)
    sizes = np.asarray(process_allgather(about)).reshape(-1, 2)
    room = np.zeros(max(1, int(sizes[:, 0].max())), np.uint8)
    room[: len(text)] = np.frombuffer(text, np.uint8)
    rooms = np.asarray(process_allgather(room)).reshape(len(sizes), -1)
    texts = [row[:size].tobytes().decode() for row, size in zip(rooms, sizes[:, 0], strict=True)]
    if failure:
        raise failure
    for process, bad in enumerate(sizes[:, 1]):
        if bad:
            raise RocketError(f"process {process} of {len(texts)}: {texts[process]}")
    return result, texts
