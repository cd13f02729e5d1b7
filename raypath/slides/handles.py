"""Open slides, kept for the next read: a bounded LRU per process.

Opening a slide costs 0.3 to 6 ms and a tile cache of some MB, so a handle is kept; but not for ever, and
never after an error, because OpenSlide's error state is terminal (one bad tile would fail every later tile of the handle).
The one decision: a handle is *lent*. While lent it is out of the cache, so nothing can close it under its user; it comes
back only if the block ended well, else it is closed and the next use opens the file anew.

The cache is empty after pickling and in a forked child: handles never cross a process. It is not for several threads.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raypath.errors import SlideChanged
from raypath.slides.header import stat_slide
from raypath.slides.slide import Slide


class SlideHandles:
    """At most `capacity` open slides, least recently used closed first."""

    def __init__(self, capacity: int):
        if capacity < 1:
            raise ValueError(f"SlideHandles: capacity = {capacity!r}; it must be 1 or more")
        self.capacity = capacity
        self._forget()

    @contextmanager
    def lend(
        self, path: str | Path, mpp: float | None = None, *, size_bytes: int | None = None, mtime_ns: int | None = None
    ) -> Iterator[Slide]:
        """Lend the open slide of (path, mpp) for a `with` block.

        With `size_bytes` and `mtime_ns` the file on disk must still be that one: SlideChanged if not, SlideMissing if it
        is gone. Whatever else opening and reading raises comes through, and the handle is then closed.
        """
        if self._pid != os.getpid():
            self._forget()
        slide = self._take((str(path), mpp))
        try:
            if size_bytes is not None or mtime_ns is not None:
                require_same(path, size_bytes, mtime_ns)
            slide = slide or Slide.open(path, mpp)
            yield slide
        except BaseException:
            if slide is not None:
                slide.close()
            raise
        self._give((str(path), mpp), slide)

    def close(self) -> None:
        """Close every slide that is not lent."""
        while self._open:
            self._open.popitem()[1].close()

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"SlideHandles(capacity={self.capacity}, open={len(self)})"

    def __getstate__(self) -> dict:
        return {"capacity": self.capacity}

    def __setstate__(self, state: dict) -> None:
        self.capacity = state["capacity"]
        self._forget()

    def _forget(self) -> None:
        self._open: OrderedDict[tuple[str, float | None], Slide] = OrderedDict()
        self._pid = os.getpid()

    def _take(self, key: tuple[str, float | None]) -> Slide | None:
        return self._open.pop(key, None)

    def _give(self, key: tuple[str, float | None], slide: Slide) -> None:
        twin = self._take(key)  # the same slide was lent twice at once
        if twin is not None:
            twin.close()
        self._open[key] = slide
        while len(self._open) > self.capacity:
            self._open.popitem(last=False)[1].close()


def require_same(path: str | Path, size_bytes: int | None, mtime_ns: int | None) -> None:
    """Raise SlideChanged unless the file has this size and modification time; SlideMissing if it is gone."""
    now = stat_slide(path)
    if size_bytes not in (None, now.st_size) or mtime_ns not in (None, now.st_mtime_ns):
        raise SlideChanged(
            f"{path}: has {now.st_size} B, changed at {now.st_mtime_ns} ns; indexed were {size_bytes} B at {mtime_ns} ns; "
            f"index the slide again"
        )
