"""Slides in object storage, as local files: fetched once, kept within a bound.

One decision: OpenSlide wants a file, so a remote slide (s3://, gs://, anything fsspec reads) is copied whole into a bounded
folder shared by the processes of a node, least recently used removed first; the plan's groups of slides make sure that it is
needed only for a while. A local path is returned as it stands and never touched.

The folder and its size come from RAYPATH_STAGING (default: raypath-staging in the temporary folder) and
RAYPATH_STAGING_GIB (default: 100).
"""

import fcntl
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import fsspec

from raypath.errors import SlideChanged, SlideMissing

_VERSIONS = ("ETag", "etag", "mtime", "LastModified", "updated", "created")  # by what object stores tell versions apart


def local_path(path: str, stamp: str | None = None) -> str:
    """The path of a local file with the contents of `path`, of the version that `stamp` names (None: any).

    Raises SlideMissing if a URI cannot be fetched, SlideChanged if it is another version by now.
    """
    if "://" not in path:
        return path
    return str(StagedFiles.of_node().fetch(path, stamp))


def stamp_of(path: str) -> str | None:
    """What changes when a file changes (size and time or tag), without fetching it; None if it cannot be asked."""
    try:
        if "://" not in path:
            found = os.stat(path)
            return json.dumps([found.st_size, found.st_mtime_ns])
        system, name = fsspec.core.url_to_fs(path)
        system.invalidate_cache()
        about = system.info(name)
    except Exception:  # whatever an object store's client raises: fetching will say what is wrong
        return None
    return json.dumps([about.get("size"), *(str(about[key]) for key in _VERSIONS if key in about)])


class StagedFiles:
    """At most `max_bytes` of fetched files in `folder`; safe for several processes."""

    def __init__(self, folder: Path, max_bytes: int):
        self.folder = folder
        self.max_bytes = max_bytes

    @classmethod
    def of_node(cls) -> "StagedFiles":
        """The staging folder that the environment names."""
        folder = os.environ.get("RAYPATH_STAGING") or Path(tempfile.gettempdir()) / "raypath-staging"
        return cls(Path(folder), int(float(os.environ.get("RAYPATH_STAGING_GIB", "100")) * 2**30))

    def fetch(self, uri: str, stamp: str | None = None) -> Path:
        """The local copy of a version of `uri`; a copy that is there is only marked as used."""
        name = hashlib.sha256(f"{uri} {stamp or ''}".encode()).hexdigest()[:24] + Path(uri).suffix
        target = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked(name):
            if target.exists():
                os.utime(target)
                return target
            if stamp is not None and stamp_of(uri) != stamp:
                raise SlideChanged(f"{uri}: is no longer the object that was indexed; run raypath index again")
            self._copy(uri, target)
        self._make_room(keep=target)
        return target

    def _copy(self, uri: str, target: Path) -> None:
        for left in self.folder.glob(f".{target.name}.*"):  # by a process that was killed: the lock is ours
            left.unlink(missing_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with fsspec.open(uri, "rb") as remote, draft.open("wb") as local:
                while piece := remote.read(8 << 20):
                    local.write(piece)
            draft.rename(target)
        except Exception as error:  # every protocol has its own; an object store's missing credentials are no OSError
            raise SlideMissing(f"{uri}: cannot be fetched ({type(error).__name__}: {error})") from None
        finally:
            draft.unlink(missing_ok=True)

    def _make_room(self, keep: Path) -> None:
        with self._locked("all"):
            files = sorted(
                (p for p in self.folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime
            )
            used = sum(p.stat().st_size for p in files)
            for path in files:
                if used <= self.max_bytes:
                    break
                if path != keep:
                    used -= path.stat().st_size
                    path.unlink(missing_ok=True)  # whoever has it open keeps reading it

    @contextmanager
    def _locked(self, name: str):
        with (self.folder / f".lock-{name}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
