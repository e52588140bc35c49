"""Places: a local path, or a URL of a store that fsspec reaches, as `gs://bucket/run`.

Whatever is given as a path goes through `path_of`. A local place is an ordinary `Path`; a remote one has the same
methods (universal_pathlib), but its store has no rename, no fsync, no locks and no folders of its own. What a store
does have is a put that shows an object whole or not at all, and nothing here relies on more.
"""

import atexit
import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any, cast

from rocketjax.errors import RocketError

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)  # one letter is a drive of Windows
EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}
# Their clients keep listings for good unless told otherwise, and would not see what other processes put meanwhile.
LISTINGS_KEPT = {*EXTRAS, "abfs", "abfss", "az", "adl"}
# What tells one version of an object from the next, in the words of the several stores.
VERSION = ("size", "etag", "ETag", "md5", "md5Hash", "generation", "mtime", "updated", "LastModified", "last_modified",
           "created")  # fmt: skip
# It logs each failed try with a traceback; the error that it raises in the end says the same. NullHandler leaves the
# records to whoever has set up logging.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())
AT_ONCE = 16  # objects read at the same time; a read is mostly waiting


def path_of(place: object) -> Path:
    """The path of a place that is given as text, as a path or as a UPath.

    A URL that pathlib has read has lost a slash (`gs:/bucket`); it is given back, unless a local folder has that name.
    Raises RocketError for an unknown scheme, or one whose package is missing, with the extra to install.
    """
    if is_remote(place):
        return cast(Path, place)
    text = os.fsdecode(cast(str, place))
    path = place if isinstance(place, Path) else Path(text)
    url = URL.fullmatch(text)
    if url is None:
        return path
    import fsspec

    scheme, slashes, rest = url[1].lower(), url[2], url[3].rstrip("/")
    if slashes == "/" and (Path(f"{url[1]}:").exists() or scheme not in fsspec.available_protocols()):
        return path
    if scheme in ("file", "local"):
        if slashes == "//":
            raise RocketError(f"{text}: a URL of a local file has three slashes, {scheme}:///folder")
        return Path("/" + rest)
    if not rest:
        raise RocketError(f"{text}: names no bucket")
    address = f"{scheme}:{'//' if slashes == '/' else slashes}{rest}"
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        raise RocketError(f"{address}: unknown scheme {scheme!r}; gs://, s3:// and whatever fsspec has do") from None
    except ImportError as e:
        how = f"pip install 'rocketjax[{EXTRAS[scheme]}]'" if scheme in EXTRAS else str(e)
        raise RocketError(f"{address}: the package that reaches {scheme}:// is not installed; {how}") from None
    from upath import UPath

    options: dict[str, Any] = {"use_listings_cache": False} if scheme in LISTINGS_KEPT else {}
    return cast(Path, UPath(address, **options))


def beside(folder: Path, name: str) -> Path:
    """A place that a file in `folder` names: a URL, or a path from there."""
    return path_of(name) if URL.fullmatch(name) else folder / name


def is_remote(place: object) -> bool:
    """Whether a path is of another store than the local file system."""
    return hasattr(place, "storage_options") and not isinstance(place, PurePath)


def require_local(*places: Path | None) -> None:
    """RocketError where one of them is remote."""
    for place in places:
        if is_remote(place):
            raise RocketError(f"{place}: this takes a local path; run folders and benchmarks to grade may be URLs")


@contextlib.contextmanager
def reaching(place: Path) -> Iterator[None]:
    """Makes the errors of a store's client, which every client has of its own, the OSError that a disk would raise."""
    try:
        yield
    except (RocketError, OSError):
        raise
    except Exception as e:
        if not is_remote(place):
            raise
        reason = (str(e).splitlines() or [""])[0][:200]
        raise OSError(f"{place}: {type(e).__name__}: {reason}") from e


def put(path: Path, data: bytes) -> None:
    """Puts a remote object, whole or not at all. Raises OSError."""
    with reaching(path):
        store_of(path).pipe_file(key_of(path), data)


def read_bytes(path: Path) -> bytes:
    """A file's or an object's bytes; safe from several threads. Raises OSError."""
    if not is_remote(path):
        return path.read_bytes()
    with reaching(path):
        return cast(bytes, store_of(path).cat_file(key_of(path)))


def names(folder: Path) -> set[str]:
    """The names of what a folder holds, by one listing; none where there is no such folder. Raises OSError."""
    try:
        if not is_remote(folder):
            return set(os.listdir(folder))
        with reaching(folder):
            entries = store_of(folder).ls(key_of(folder), detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    # Some stores have an object for the folder itself, and a listing of an object is the object.
    own = key_of(folder).strip("/")
    return {entry.rstrip("/").rpartition("/")[2] for entry in entries if entry.strip("/") != own}


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it; nothing where there is none. Raises OSError."""
    if is_remote(path):
        with contextlib.suppress(FileNotFoundError), reaching(path):
            store_of(path).rm(key_of(path), recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def upload(source: Path, target: Path, last: str) -> None:
    """Puts the files of a local folder under a remote one; the file `last` comes last, so that it says all is there.

    What is there already is removed first, beginning with `last`. Raises OSError.
    """
    remove(target / last)
    remove(target)
    files = sorted(file for file in source.rglob("*") if file.is_file())
    for file in sorted(files, key=lambda file: file == source / last):
        put(target.joinpath(*file.relative_to(source).parts), file.read_bytes())


@contextlib.contextmanager
def local_copy(folder: Path) -> Iterator[Path]:
    """The folder itself where it is local, else a copy for the time of the `with`. Raises OSError."""
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="rocketjax-") as temporary:
        download(folder, Path(temporary), objects(folder))
        yield Path(temporary)


def fetch(folder: Path, kind: str, wanted: Callable[[str], bool]) -> Path:
    """A remote folder's objects as a local folder of the same name, in the cache: `kind`/HASH/NAME.

    HASH is of the URL and of the sizes, etags and times of the objects, so what is fetched once is fetched again only
    when it has changed. `wanted` chooses objects by their path from the folder. Where the cache cannot be written, a
    temporary folder of this process. Raises RocketError where there is nothing or the store cannot be reached.
    """
    name = str(folder).rstrip("/").rpartition("/")[2]
    try:
        found = {k: v for k, v in objects(folder).items() if wanted(k)}
        if not found:
            raise RocketError(f"{folder}: no such folder on the store, or none of its objects is of use here")
        version = {key: {k: str(about[k]) for k in VERSION if k in about} for key, about in found.items()}
        key = hashlib.sha256(json.dumps([str(folder), version], sort_keys=True).encode()).hexdigest()[:32]
        home = cache_dir() / kind / key
        if (home / name).is_dir():
            return home / name
        try:
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=home))
        except OSError:
            home = Path(tempfile.mkdtemp(prefix="rocketjax-"))
            atexit.register(shutil.rmtree, home, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=home))
        try:
            download(folder, temporary, found)
            try:
                os.replace(temporary, home / name)
            except OSError:
                if not (home / name).is_dir():  # another process has fetched the same meanwhile
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as e:
        raise RocketError(f"{folder}: cannot be fetched ({e})") from None
    return home / name


def objects(folder: Path) -> dict[str, dict[str, Any]]:
    """What the store says of each object under a remote folder, by its path from there. Raises OSError."""
    root = key_of(folder).rstrip("/") + "/"
    with reaching(folder):
        found = store_of(folder).find(key_of(folder), detail=True)
    return {
        key.removeprefix(root): about
        for key, about in found.items()
        if key.startswith(root) and not key.endswith("/") and about.get("type") != "directory"
    }


def download(folder: Path, target: Path, found: dict[str, dict[str, Any]]) -> None:
    """Copies these objects of a remote folder into a local one. Raises OSError, also where one has changed since."""
    for name in found:
        if ".." in PurePath(name).parts:
            raise OSError(f"{name!r} is no name for a file")
        (target / name).parent.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        source = folder.joinpath(*PurePath(name).parts)
        with reaching(source):
            store_of(folder).get_file(key_of(source), str(target / name))
        size = found[name].get("size")
        if size is not None and (target / name).stat().st_size != size:
            raise OSError(f"{source}: is not as long as the store says; did it change meanwhile?")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, found))


def cache_dir() -> Path:
    """The project's cache folder: $ROCKETJAX_CACHE_DIR, else rocketjax/ in the user's cache folder."""
    own = os.environ.get("ROCKETJAX_CACHE_DIR")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rocketjax"


def store_of(path: Path) -> Any:
    """The fsspec file system of a remote path."""
    return cast(Any, path).fs


def key_of(path: Path) -> str:
    """What the store itself calls a remote path: bucket and key."""
    return str(cast(Any, path).path)
