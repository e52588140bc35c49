"""Grading: packed equals separate, bit-equal whatever the batch, and runs that survive being killed."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import CHATML, ByteTokenizer, random_bench, tiny_judge
from hypothesis import given, settings
from hypothesis import strategies as st

from rocketjax.bench import Response
from rocketjax.errors import RocketError
from rocketjax.grade import GRADES, Grader, Judge, Run, answers, make_prompter, row_flops
from rocketjax.grade.step import step_of
from rocketjax.grade.stream import ahead
from rocketjax.judge import Row, attention
from rocketjax.prompt import NATIVE, ROCKETEVAL, Prompter, pack_query, row_lengths

VALUES = ("p_yes", "logit_yes", "logit_no", "answer_mass")


def mesh(devices: int):
    return jax.make_mesh((devices, 1), ("data", "model"), devices=jax.devices()[:devices])


def contents(folder: Path) -> dict[str, str]:
    """Hashes of everything that a finished run must reproduce."""
    files = [folder / "run.json", *sorted((folder / "grades").iterdir())]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def chain(sequence) -> Row:
    """One whole prompt alone in a row, padded; the leaf is its last token."""
    n, T = len(sequence), -(-len(sequence) // 128) * 128
    token, end = np.zeros(T, np.int32), np.arange(1, T + 1, dtype=np.int32)
    token[:n], end[:n] = sequence, n
    position = np.arange(T, dtype=np.int32)
    start = np.maximum(position - 40 + 1, 0)
    start[n:] = position[n:]
    return Row(*map(jnp.asarray, (token, position, end, start, np.full(16, n - 1, np.int32))))


def test_fake_devices():
    assert jax.device_count() == 8


@pytest.mark.parametrize("local", [True, False])
def test_packed_equals_separate(local):
    """Every item of a packed query has the answers that its whole prompt gets alone, by the plain attention."""
    judge, bench = tiny_judge(local=local), random_bench(queries=2, models=4)
    prompter = Prompter(judge.tokenizer, NATIVE, 2048)
    grader = Grader(judge.model, judge.tokenizer.answer_ids(), mesh(1))
    yes, no = (np.asarray(ids) for ids in judge.tokenizer.answer_ids())
    alone = jax.jit(lambda model, row: answers(model(row, "plain"), yes, no))
    worst = 0.0
    for session in bench.checklists:
        responses = [prompter.prompts(bench, session, model).sequences for model in bench.models]
        flat = [s for response in responses for s in response]
        for row in pack_query(responses, 2048, judge.model.config.window):
            (packed,) = grader([row])
            for leaf, owners in enumerate(row.owners):
                single = alone(judge.model, chain(flat[owners[0]]))
                for a, b in zip(packed, single, strict=True):
                    worst = max(worst, abs(float(a[0, leaf]) - float(b[0])))
    assert worst < 1e-5, worst


@partial(jax.jit, static_argnums=5)
def attended(q, k, v, index, tree, local):
    """By the reference, and by both attentions that skip blocks."""
    plan = attention.schedule(index, tree, local)
    skipping = [a(q, k, v, index, tree, local, plan) for a in (attention.blocked, attention.gathered)]
    return attention.plain(q, k, v, index, tree, local), *skipping


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 3, 30]), st.sampled_from([16, 128, 256]))
@settings(max_examples=12, deadline=None)
def test_live_blocks_equal_plain_on_random_trees(seed, window, leaves):
    """Both block-skipping attentions against the reference, for queries at every token and at leaves only."""
    rng = np.random.default_rng(seed)
    T, N, K, H = 768, 4, 2, 8
    end = np.arange(1, T + 1)
    depth = np.zeros(T, int)
    # A random forest in depth-first order: each token hangs on some token of the path before it.
    path: list[int] = []
    start = np.zeros(T, int)
    for i in range(T):
        while path and rng.random() < 0.2:
            path.pop()
        depth[i] = len(path)
        path.append(i)
        start[i] = path[max(0, len(path) - window)] if window else 0
        for j in path:
            end[j] = i + 1
    tree = attention.Tree(jnp.asarray(end), jnp.asarray(start))
    q, k, v = (jnp.asarray(rng.normal(size=(T, n, H)), jnp.float32) for n in (N, K, K))
    every, some = jnp.arange(T), jnp.sort(jnp.asarray(rng.integers(0, T, leaves)))
    for index in (every, some):
        expected, *others = attended(q[index], k, v, index, tree, bool(window))
        for got in others:
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_grades_do_not_depend_on_batch_order_devices_or_resume(tmp_path):
    judge, bench = tiny_judge(), random_bench()
    reference = judge.grade(bench, tmp_path / "a", shard_items=8)
    assert reference.complete and set(reference.status()) == {"ok"}
    expected = contents(reference.path)
    assert len(expected) > 4

    for rows in (2, 5):
        assert contents(judge.grade(bench, tmp_path / f"rows{rows}", shard_items=8, batch_rows=rows).path) == expected

    backwards = msgspec.structs.replace(
        bench,
        queries=dict(reversed(bench.queries.items())),
        checklists=dict(reversed(bench.checklists.items())),
        responses={m: dict(reversed(r.items())) for m, r in reversed(bench.responses.items())},
    )
    assert contents(judge.grade(backwards, tmp_path / "order", shard_items=8).path) == expected

    resumed = judge.grade(bench, tmp_path / "resume", shard_items=8)
    for index in (0, 2):
        resumed.part(index).unlink()
    assert contents(judge.grade(bench, resumed.path, shard_items=8, mode="resume").path) == expected

    # Other shards cut the same grades differently.
    other = judge.grade(bench, tmp_path / "shards", shard_items=1000)
    assert other.grades.equals(reference.grades)

    # A part of the queries alone has the same grades, bit for bit.
    few = judge.grade(bench, tmp_path / "few", limit=3).grades
    assert few.equals(reference.grades.slice(0, few.num_rows))


@pytest.mark.parametrize("others", [(8,), pytest.param((2, 4), marks=pytest.mark.slow)])
def test_one_device_and_more_agree_bit_for_bit(others):
    judge, bench = tiny_judge(), random_bench(queries=3, models=4)
    prompter = Prompter(judge.tokenizer, NATIVE, 2048)
    rows = {}
    for session in bench.checklists:
        responses = [prompter.prompts(bench, session, model).sequences for model in bench.models]
        for row in pack_query(responses, 2048, 40):
            rows.setdefault(row.length, []).append(row)
    graders = [Grader(judge.model, judge.tokenizer.answer_ids(), mesh(n)) for n in (1, *others)]
    assert len(rows) > 1
    for group in sorted(rows.values(), key=len)[-2:]:  # the lengths with the most rows
        results = []
        for grader in graders:
            parts = grader(group)
            results.append(
                [np.concatenate([np.asarray(p[k]) for p in parts])[: len(group)] for k in range(len(VALUES))]
            )
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_the_thread_ahead_hands_over_everything_and_every_error():
    made = []

    def numbers(until, error=None):
        for n in range(until):
            made.append(n)
            yield n
        if error is not None:
            raise error

    assert list(ahead(numbers(50), 3)) == list(range(50))
    got = []
    with pytest.raises(RocketError, match="from the thread"):
        got.extend(n for n in ahead(numbers(5, RocketError("from the thread")), 2))
    made.clear()
    with contextlib.closing(ahead(numbers(10**9), 4)) as some:
        assert [next(some) for _ in range(3)] == [0, 1, 2]
    count = len(made)
    time.sleep(0.3)
    assert len(made) == count <= 3 + 4 + 2, "at most so far ahead, and nobody goes on when the reader has left"
    assert not [t for t in threading.enumerate() if t.name == "rocketjax-ahead"]


def test_an_error_in_the_text_thread_is_the_graders(tmp_path, monkeypatch):
    """What was committed before stays, and the run resumes."""
    judge, bench = tiny_judge(), random_bench()
    expected = contents(judge.grade(bench, tmp_path / "whole", shard_items=8).path)
    real, calls = Prompter.prompts, []

    def prompts(self, *args):
        calls.append(args)
        if len(calls) > 12:
            raise RocketError("the text is bad")
        return real(self, *args)

    monkeypatch.setattr(Prompter, "prompts", prompts)
    with pytest.raises(RocketError, match="the text is bad"):
        judge.grade(bench, tmp_path / "run", shard_items=8)
    monkeypatch.undo()
    assert contents(judge.grade(bench, tmp_path / "run", shard_items=8, mode="resume").path) == expected


def test_flops_of_a_row_by_counting_every_pair():
    """A chain of tokens with two leaves: each product of the forward pass, by hand."""
    config = tiny_judge().model.config
    c, T, leaves = config, 9, [6, 8]
    sequences = [np.arange(7, dtype=np.int32), np.arange(9, dtype=np.int32)]
    (row,) = pack_query([sequences], 256, c.window)
    per_token = 2 * c.D * c.K * c.H + 2 * c.D * c.N * c.H + 3 * c.D * c.F
    total = 0
    for n in range(c.layers):
        last = n == c.layers - 1
        for i in range(T):
            total += per_token if not last or i in leaves else 2 * c.D * c.K * c.H
            pairs = sum(1 for j in range(i + 1) if n not in c.local_layers or i - j < c.window)
            total += 2 * c.N * c.H * pairs if not last or i in leaves else 0
    total += len(leaves) * c.D * c.V
    assert row.tokens == T and row_flops(c, row) == 2 * total


def test_at_most_one_compilation_per_bucket(tmp_path):
    judge, bench = tiny_judge(), random_bench(queries=10, models=4, words=80)
    compiled = []

    def listen(name: str, seconds: float, **_) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    works = []
    judge.grade(bench, tmp_path / "warm")  # everything else that compiles: transfers, constants
    step_of.cache_clear()
    jax.monitoring.register_event_duration_secs_listener(listen)
    judge.grade(bench, tmp_path / "run", progress=lambda work: works.append((work.rows, list(work.compiled))))
    rows, lengths = works[-1]
    assert rows > len(lengths) >= 2, "several rows per length, several lengths"
    assert len(compiled) == len(lengths), (compiled, lengths)


def test_missing_overlong_and_non_finite_items_are_null_with_a_reason(tmp_path):
    judge, bench = tiny_judge(), random_bench(queries=2, models=3)
    responses = {m: dict(r) for m, r in bench.responses.items()}
    del responses["model-0"]["s00"]
    responses["model-1"]["s00"] = Response("s00", "model-1", "x" * 1000, None)
    bench = msgspec.structs.replace(bench, responses=responses)
    run = judge.grade(bench, tmp_path / "run", overflow="skip", max_tokens=600)
    rows = {(r["session_id"], r["model"]): r for r in run.grades.to_pylist()}
    for model, status in (("model-0", "missing_response"), ("model-1", "overlong"), ("model-2", "ok")):
        row = rows["s00", model]
        assert row["status"] == status and all((row[v] is None) == (status != "ok") for v in VALUES)

    judge.model.final_norm_D[...] = jnp.full_like(judge.model.final_norm_D[...], jnp.nan)
    judge.sha256 = "broken"
    broken = judge.grade(bench, tmp_path / "nan", overflow="skip", max_tokens=600)
    assert broken.status() == {
        "missing_response": 3,
        "non_finite": broken.grades.num_rows - 6,
        "overlong": 3,
    } or ("ok" not in broken.status() and broken.status()["non_finite"] > 0)
    assert broken.grades["p_yes"].null_count == broken.grades.num_rows


def test_answers_join_variants_and_keep_the_mass():
    logits = jnp.log(jnp.asarray([[0.1, 0.2, 0.3, 0.15, 0.25]]))
    a = answers(logits + 3.0, np.asarray([0, 1]), np.asarray([2]))
    np.testing.assert_allclose(a.p_yes, 0.3 / 0.6, rtol=1e-6)
    np.testing.assert_allclose(a.answer_mass, 0.6, rtol=1e-6)
    np.testing.assert_allclose(a.logit_yes, np.log(0.3) + 3, rtol=1e-6)


def test_run_modes(tmp_path):
    judge, bench = tiny_judge(), random_bench(queries=2)
    run = judge.grade(bench, tmp_path / "run")
    assert run.grades.schema == GRADES and "2 of" not in repr(run)
    with pytest.raises(RocketError, match=r"holds a run already \(1 of 1 parts graded\)\. Use --resume"):
        judge.grade(bench, tmp_path / "run")
    with pytest.raises(RocketError, match=r"prompt.template: \"native\" there, \"rocketeval\" here"):
        judge.grade(bench, tmp_path / "run", mode="resume", template="rocketeval")
    before = contents(run.path)
    assert contents(judge.grade(bench, tmp_path / "run", mode="resume").path) == before
    judge.grade(bench, tmp_path / "run", mode="overwrite", template="rocketeval")
    assert contents(run.path) != before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not touch")
    for mode in ("new", "resume", "overwrite"):
        with pytest.raises(RocketError, match="is not empty and not a run"):
            judge.grade(bench, tmp_path / "mine", mode=mode)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "do not touch"
    (tmp_path / "file").write_text("")
    with pytest.raises(RocketError, match="is a file"):
        judge.grade(bench, tmp_path / "file")


def test_what_changes_grades_beside_the_weights_is_not_resumed(tmp_path):
    """The config and what the chat format makes of a prompt, which no hash of weights or vocabulary holds."""
    bench = random_bench(queries=1)

    def meta(chat: str = CHATML, template: str = "native", **changed) -> dict:
        judge = tiny_judge()
        judge.model.config = dataclasses.replace(judge.model.config, **changed)
        judge.tokenizer = ByteTokenizer(chat)
        return json.loads(json.dumps(judge.plan(bench, template, "error", None, None, 8)[2]))

    Run.start(tmp_path / "run", meta(), "new")
    Run.start(tmp_path / "run", meta(), "resume")
    for changed in ({"rope_theta": 20_000.0}, {"window": 41}, {"query_scale": 0.3}, {"attn_softcap": 50.0}):
        with pytest.raises(RocketError, match=r"other settings.*\n  judge\.config_sha256: .*\nUse the same"):
            Run.start(tmp_path / "run", meta(**changed), "resume")

    # A chat template with a default system turn makes another prompt only where the wording has no system turn.
    spoken = CHATML + "<|im_start|>system\\nYou are X<|im_end|>"
    assert meta(spoken) == meta()
    for chat in (spoken, spoken.replace("X", "Y"), spoken.replace("X", "{{ x }}")):
        prompters = [Prompter(ByteTokenizer(c), ROCKETEVAL, 4096) for c in (CHATML, chat)]
        prompts = [p.prompts(bench, "s00", "model-0").sequences for p in prompters]
        same = all(np.array_equal(a, b) for a, b in zip(*prompts, strict=True))
        a, b = meta(template="rocketeval"), meta(chat, "rocketeval")
        assert (a["judge"]["prompt_sha256"] == b["judge"]["prompt_sha256"]) == same
        assert a["prompt"] == b["prompt"], "heads are matched by it, and by the named hashes of the judge"


def test_a_run_from_before_the_new_hashes_is_continued(tmp_path):
    judge, bench = tiny_judge(), random_bench(queries=3)
    run = judge.grade(bench, tmp_path / "run", shard_items=8)
    grades = {p.name: p.read_bytes() for p in (run.path / "grades").iterdir()}
    meta = json.loads((run.path / "run.json").read_text())
    for key in ("config_sha256", "prompt_sha256"):
        assert len(meta["judge"].pop(key)) == 64
    (run.path / "run.json").write_text(json.dumps(meta))
    run.part(1).unlink()
    again = judge.grade(bench, tmp_path / "run", shard_items=8, mode="resume")
    assert {p.name: p.read_bytes() for p in (run.path / "grades").iterdir()} == grades
    assert again.meta == meta, "what was begun stays as it was begun"
    judge.dtype = "bf16"
    with pytest.raises(RocketError, match=r"judge\.dtype"):
        judge.grade(bench, tmp_path / "run", shard_items=8, mode="resume")


def test_prompts_up_to_the_longest_row_and_no_longer(tmp_path):
    judge, bench = tiny_judge(), random_bench(queries=1, models=1)
    judge.model.config = dataclasses.replace(judge.model.config, context=131_072)
    responses = {"model-0": {"s00": Response("s00", "model-0", "x" * 40_000, None)}}
    bench = msgspec.structs.replace(bench, responses=responses)
    message = "max_tokens is 32769; this judge takes 1 to 32768; its context is 131072, the longest row 32768"
    with pytest.raises(RocketError, match=message):
        judge.grade(bench, tmp_path / "run", max_tokens=32_769)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RocketError, match=r"tokens, the limit is 32768\. Choose --overflow"):
        judge.grade(bench, tmp_path / "run", max_tokens=32_768)
    skipped = judge.grade(bench, tmp_path / "run", max_tokens=32_768, overflow="skip")
    assert set(skipped.status()) == {"overlong"}
    prompter = make_prompter(judge.tokenizer, judge.model.config, "native", "truncate-middle", 32_768)
    cut = prompter.prompts(bench, "s00", "model-0").sequences
    rows = pack_query([cut[:1]], row_lengths(32_768)[-1], 40)
    assert max(map(len, cut)) == 32_768 and [row.length for row in rows] == [32_768]
    with pytest.raises(RocketError, match=r"this judge takes 1 to 4096$"):
        make_prompter(judge.tokenizer, tiny_judge().model.config, max_tokens=4097)


@pytest.mark.parametrize(
    ("text", "special", "i", "wrong"),
    [
        ("zq", False, 319, False),
        ("zq", False, 320, True),  # text yields it
        ("<image>", True, 900, False),  # neither text nor the chat format does
        ("<|im_end|>", True, 900, True),  # the chat format does
    ],
)
def test_a_tokenizer_of_another_model_is_refused(text, special, i, wrong, tmp_path):
    shutil.copytree(Path(__file__).parent / "golden" / "tiny_llama", tmp_path / "judge")
    file = tmp_path / "judge" / "tokenizer.json"
    spec = json.loads(file.read_text())
    vocab, added = spec["model"]["vocab"], spec["added_tokens"]
    if special:
        vocab.pop(text, None)
        spec["added_tokens"] = [t for t in added if t["content"] != text]
        spec["added_tokens"].append({**added[0], "id": i, "content": text})
    else:
        vocab.pop(next((t for t, n in vocab.items() if n == i), ""), None)
        vocab[text] = i
        spec["model"]["merges"] = [m for m in spec["model"]["merges"] if "".join(m).replace(" ", "") in vocab]
    file.write_text(json.dumps(spec))
    if wrong:
        message = (
            rf"token {i} \('.*{text.strip('<|>')}.*'\) of the tokenizer lies outside of the model's vocabulary of 320"
        )
        with pytest.raises(RocketError, match=message):
            Judge.load(str(tmp_path / "judge"))
    else:
        Judge.load(str(tmp_path / "judge"))


def test_a_torn_part_is_named(tmp_path):
    run = tiny_judge().grade(random_bench(queries=2), tmp_path / "run")
    part = run.part(0)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(RocketError, match=r"part-00000\.parquet: cannot be read .* delete it and continue"):
        _ = Run.open(run.path).grades
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(RocketError, match=r"run\.json: cannot be read"):
        Run.open(run.path)


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_ends_bit_equal(tmp_path):
    """SIGKILL at random moments, from start-up to the last write; the final bytes are those of an unbroken run."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}", "JAX_NUM_CPU_DEVICES": "1"}
    environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "xla")
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

    def child(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(here / "kill_child.py"), str(folder)], env=environment)

    assert child(tmp_path / "whole").wait(120) == 0
    begun = time.perf_counter()
    assert child(tmp_path / "timed").wait(120) == 0
    whole_seconds = time.perf_counter() - begun
    expected = contents(tmp_path / "whole")
    assert contents(tmp_path / "timed") == expected

    broken, dice, kills, grown = tmp_path / "broken", random.Random(7), 0, []

    def parts() -> int:
        return len(list((broken / "grades").glob("part-*")))

    while kills < 20:
        process, before, aim = child(broken), parts(), dice.randrange(len(expected))
        if aim > before:
            # Just behind a write, whatever else the machine does meanwhile.
            while parts() < aim and process.poll() is None:
                time.sleep(0.002)
            time.sleep(dice.uniform(0.0, 0.05))
        else:
            # Start-up is most of a child's life: aim at the second half, where it writes.
            time.sleep(whole_seconds * dice.uniform(0.4, 1.0))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            kills += 1
        grown.append(parts())
        if grown[-1] == len(expected) - 1:  # finished: break some parts off and go on killing
            for part in dice.sample(sorted((broken / "grades").glob("part-*")), len(expected) // 2):
                part.unlink()
    assert len(set(grown)) > 3, f"the kills met different states: {grown}"
    assert child(broken).wait(120) == 0
    assert contents(broken) == expected
    assert not list(broken.glob("**/*.tmp"))
    table = pq.read_table(broken / "grades")
    assert table.num_rows == sum(pq.read_metadata(f).num_rows for f in (tmp_path / "whole" / "grades").iterdir())
