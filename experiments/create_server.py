"""Checklists by llama.cpp's server for OpenAI's protocol, and by the same weights in this process.

    python -m venv LLAMA && LLAMA/bin/pip install 'llama-cpp-python[server]==0.3.36'
    python experiments/create_server.py BENCH MODEL.gguf --llama-python LLAMA/bin/python [--limit 6] [--json FILE]

Starts `llama_cpp.server` on this machine, has it write checklists for the first queries of BENCH through
`rocketjax.create_checklists` with "api:", greedily, then has `LocalWriter` do the same, and prints for both: queries
with a checklist, items, pieces refused, failures, tokens and seconds (loading the model and starting the server not
included, compiling ours is); and for how many queries the two texts are equal. MODEL.gguf should hold f32: of quantised
weights llama.cpp rounds the activations too, and writes other texts.
"""

import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rocketjax.create import ApiWriter, LocalWriter, create_checklists

START = 120.0  # seconds until the server must answer


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def await_server(base: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{base}/models", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the server did not start: {log.read_text(errors='replace')[-1000:]}")


def asked(args: argparse.Namespace, writer: Any, out: Path) -> dict[str, Any]:
    begun = time.perf_counter()
    made = create_checklists(args.bench, out, writer, template=args.template, limit=args.limit, everything=True)
    rows = [json.loads(line) for line in (out / "create.jsonl").read_text().splitlines()]
    return {
        "created": made.created, "items": made.items, "refused": made.refused, "failed": made.failed,
        "answers": made.asked, "prompt_tokens": made.prompt_tokens, "completion_tokens": made.completion_tokens,
        "seconds": time.perf_counter() - begun, "texts": {row["session_id"]: row["answer"] for row in rows},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-python", required=True)
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--template", default="rocketeval")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    settings = {"temperature": 0, "top_p": 1, "max_tokens": args.max_tokens}
    found = {}
    with tempfile.TemporaryDirectory(prefix="create-") as room:
        port, log = free_port(), Path(room) / "server.log"
        base = f"http://127.0.0.1:{port}/v1"
        command = [args.llama_python, "-m", "llama_cpp.server", "--model", str(args.model), "--port", str(port),
                   "--n_ctx", "4096", "--n_threads", str(os.cpu_count())]  # fmt: skip
        with open(log, "wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
            try:
                await_server(base, server, log)
                os.environ["OPENAI_BASE_URL"] = base
                os.environ.pop("OPENAI_API_KEY", None)
                found["llama.cpp's server"] = asked(
                    # Left out, this server punishes tokens for having been there.
                    args,
                    ApiWriter("local", {**settings, "repeat_penalty": 1.0}, concurrency=2, timeout=600),
                    Path(room) / "api",
                )
            finally:
                server.terminate()
        writer = LocalWriter(str(args.model), settings, slots=8)
        found["RocketJAX"] = asked(args, writer, Path(room) / "own")
    for name, row in found.items():
        print(f"{name:<20} {row['created']} checklists, {row['items']} items, {len(row['failed'])} failed, "
              f"{row['prompt_tokens']:,} + {row['completion_tokens']:,} tokens, {row['seconds']:.0f} s")  # fmt: skip
        for reason, count in row["refused"].items():
            print(f"{'':<20} refused: {count} pieces ({reason})")
        for session_id, reason in row["failed"].items():
            print(f"{'':<20} {session_id}: {reason}")
    one, two = (row["texts"] for row in found.values())
    same = sum(one.get(s) is not None and (one[s] or "").strip() == (two[s] or "").strip() for s in two)
    print(f"{same} of {len(two)} texts are equal")
    if args.json:
        args.json.write_text(json.dumps({**found, "equal": same}, indent=1) + "\n")


if __name__ == "__main__":
    main()
