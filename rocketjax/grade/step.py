"""The jitted step: a batch of packed rows in, answers at their leaves out.

The program of a bucket computes one group of rows at every place of the mesh's data axis; a larger batch is
several calls in a row. So what is computed for a row does not depend on how many rows or devices there are. Over a
model axis the devices of one place share the work of its rows, and sums over them round in another order.

Axes: R rows of a batch, T tokens of a row, L leaves.
"""

import functools
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from rocketjax.judge import Config, Kernel, Places, Row, Transformer, attention, manual, untyped
from rocketjax.prompt import PackedRow

ROWS_TOKENS = 8192  # tokens that an accelerator computes as one group; a CPU gains nothing beyond one row


class Answers(NamedTuple):
    """The judge's answers at the leaves: f32[R, L] each.

    `logit_yes` and `logit_no` join all vocabulary entries that read as Yes and No by log-sum-exp;
    `p_yes = sigmoid(logit_yes - logit_no)`, RocketEval's P(Yes) / (P(Yes) + P(No)); `answer_mass` is
    P(Yes) + P(No) under the full vocabulary.
    """

    p_yes: Array
    logit_yes: Array
    logit_no: Array
    answer_mass: Array


def answers(logits_LV: Array, yes: ArrayLike, no: ArrayLike) -> Answers:
    """Answers from next-token logits of the full vocabulary; `yes` and `no` are vocabulary indices."""
    logit_yes = jax.nn.logsumexp(logits_LV[:, yes], axis=-1)
    logit_no = jax.nn.logsumexp(logits_LV[:, no], axis=-1)
    total = jax.nn.logsumexp(logits_LV, axis=-1)
    mass = jnp.exp(logit_yes - total) + jnp.exp(logit_no - total)
    return Answers(jax.nn.sigmoid(logit_yes - logit_no), logit_yes, logit_no, mass)


def group_rows(length: int, platform: str) -> int:
    """Rows of one length that a device computes together: part of the shape that a score depends on."""
    return 1 if platform == "cpu" else max(1, ROWS_TOKENS // length)


def row_flops(config: Config, row: PackedRow) -> int:
    """Multiply-adds times two that the answers of a row need, padding left out.

    All tokens go through the blocks; the last block's queries and MLP and the output head run at the leaves only.
    Attention counts the visible pairs of query and key.
    """
    c = config
    depth_T = row.position_T[: row.tokens].astype(np.int64) + 1
    leaf_L = np.unique(row.leaf_L)
    keys, rest = 2 * c.D * c.K * c.H, 2 * c.D * c.N * c.H + 3 * c.D * c.F
    total = row.tokens * (c.layers * keys + (c.layers - 1) * rest) + len(leaf_L) * (rest + c.D * c.V)
    for n in range(c.layers):
        seen_T = np.minimum(depth_T, c.window) if n in c.local_layers else depth_T
        total += 2 * c.N * c.H * int((seen_T[leaf_L] if n == c.layers - 1 else seen_T).sum())
    return 2 * total


@functools.cache  # what a process has traced and compiled serves its next judge of the same shape
def step_of(
    mesh: Mesh, answer_ids: tuple[tuple[int, ...], tuple[int, ...]], answers_placed: NamedSharding, kernel: Kernel
) -> Any:
    """The jitted step on a mesh: (model, Row of int32[R, ...]) to `Answers`, R a multiple of the data axis."""
    yes, no = (np.asarray(ids, np.int32) for ids in answer_ids)

    def device_step(model: Transformer, rows: Row) -> Answers:
        def one(row: Row) -> Answers:
            return answers(model(row, kernel), yes, no)

        if len(rows.token_T) > 1:
            return jax.vmap(one)(rows)
        return jax.tree.map(lambda x: x[None], one(Row(*(x[0] for x in rows))))

    data = PartitionSpec("data")
    by_rows = jax.shard_map(
        device_step, mesh=mesh, in_specs=(PartitionSpec(), data), out_specs=data, check_vma=False,
        axis_names=manual(mesh),
    )  # fmt: skip
    return jax.jit(by_rows, out_shardings=answers_placed)


class Grader:
    """A judge's weights on a mesh, and one compiled program per bucket (row length)."""

    def __init__(
        self,
        model: Transformer,
        answer_ids: tuple[tuple[int, ...], tuple[int, ...]],
        mesh: Mesh,
        batch_rows: int | None = None,
    ) -> None:
        self.mesh, self.config = untyped(mesh), model.config
        self.platform = mesh.devices.flat[0].platform
        model.stack_layers()  # in place: a second copy of the weights might not fit
        self.model = Places(self.config, self.mesh).place(model)
        self.batch_rows = batch_rows
        self.rows_placed = NamedSharding(self.mesh, PartitionSpec("data"))
        # Over several processes every one of them wants to read the answers.
        alone = all(d.process_index == jax.process_index() for d in self.mesh.devices.flat)
        self.answers_placed = self.rows_placed if alone else NamedSharding(self.mesh, PartitionSpec())
        self.programs: dict[int, Future[jax.stages.Compiled]] = {}
        self.compiler = ThreadPoolExecutor(1, "rocketjax-compile")
        self.compile_seconds = self.transfer_seconds = 0.0
        ids = (tuple(answer_ids[0]), tuple(answer_ids[1]))
        self.step = step_of(self.mesh, ids, self.answers_placed, attention.skipping_for(self.platform))

    def rows(self, length: int) -> int:
        """Rows of one call of the program: a group on every device."""
        return group_rows(length, self.platform) * self.mesh.shape["data"]

    def batch(self, length: int) -> int:
        """Rows that are worth collecting before they are sent: one call's, or `batch_rows` per device."""
        calls = 1 if self.batch_rows is None else -(-self.batch_rows // group_rows(length, self.platform))
        return calls * self.rows(length)

    @property
    def compiled(self) -> dict[int, jax.stages.Compiled]:
        """The programs that are ready, by row length."""
        return {length: program.result() for length, program in self.programs.items() if program.done()}

    def expect(self, row: PackedRow) -> None:
        """Begins to compile the program of this row's length on a thread, while the device computes other rows."""
        if row.length not in self.programs:
            batch = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(
                    (self.rows(row.length), *x.shape[1:]), x.dtype, sharding=self.rows_placed
                ),
                stack([row], 1),
            )
            self.programs[row.length] = self.compiler.submit(lambda: self.step.lower(self.model, batch).compile())

    def __call__(self, rows: list[PackedRow]) -> list[Answers]:
        """Answers for rows of one length, a call for every `self.rows(length)` of them; the last is padded.

        Returns f32[R, L] arrays that may still be computing.
        """
        size = self.rows(rows[0].length)
        return [self.call(rows[i : i + size]) for i in range(0, len(rows), size)]

    def call(self, rows: list[PackedRow]) -> Answers:
        """One call of the program of this length; `compile_seconds` is what it had to wait for it."""
        length = rows[0].length
        begun = time.perf_counter()
        batch = stack(rows, self.rows(length))
        # Waiting costs nothing: the device has the call before this one to compute.
        put = jax.block_until_ready(self.put(batch))
        self.transfer_seconds += time.perf_counter() - begun
        self.expect(rows[0])
        begun = time.perf_counter()
        program = self.programs[length].result()
        self.compile_seconds += time.perf_counter() - begun
        result: Answers = program(self.model, put)
        return result

    def put(self, batch: Row) -> Row:
        """The batch on the mesh; of several processes each has the whole of it and sends its own devices' rows."""
        if self.answers_placed is self.rows_placed:
            placed: Row = jax.device_put(batch, self.rows_placed)
            return placed
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(x.shape, self.rows_placed, lambda index: x[index]), batch
        )


def stack(rows: list[PackedRow], count: int) -> Row:
    """int32[R, T] and int32[R, L] arrays; missing rows repeat the first, and nobody reads them."""
    padded = rows + [rows[0]] * (count - len(rows))
    arrays: list[Any] = [np.stack([getattr(row, name) for row in padded]) for name in Row._fields]
    return Row(*arrays)
