"""What a slide file says of itself before anything is decoded: is it there, whole, and 8-bit RGB?

OpenSlide answers a missing, empty, unreadable or truncated file with one and the same message, opens a truncated file
whose directories are intact, and shows plausible wrong pixels of a 16-bit file. The one decision: a small TIFF walk of our
own, in plain struct and numpy, that follows the directories and compares every tile's offset and byte count with the size
of the file. It reads some kilobytes (8 to 16 bytes per tile of the slide), decodes nothing, and ends every malformed file
in a SlideError. Files that are no TIFF (DICOM, MIRAX, ...) and NDPI, whose offsets overflow by design, are left to OpenSlide.
"""

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from raypath.errors import (
    SlideEmpty,
    SlideMissing,
    SlideNotRGB8,
    SlidePermission,
    SlideTruncated,
    SlideUnsupported,
)

MAX_DIRECTORIES = 4096
MAX_TILE_PX = 2**26  # 8192 x 8192 px; a larger native tile is a decompression bomb or a mistake
TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # TIFF field type -> numpy code of unsigned integers
WIDTH, HEIGHT, BITS, SAMPLES, SUB_IFDS = 256, 257, 258, 277, 330
STRIP_OFFSETS, STRIP_COUNTS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 273, 279, 322, 323, 324, 325
WANTED = frozenset((WIDTH, HEIGHT, BITS, SAMPLES, SUB_IFDS, STRIP_OFFSETS, STRIP_COUNTS, *range(322, 326)))


@dataclass(frozen=True)
class TiffFacts:
    """What the directories of a TIFF say; `num_empty_tiles` have a byte count of 0 and no pixels."""

    num_directories: int
    num_tiles: int
    num_empty_tiles: int


def stat_slide(path: str | Path) -> os.stat_result:
    """The stat of a regular file; SlideMissing, SlidePermission, SlideUnsupported (a directory) otherwise."""
    try:
        found = os.stat(path)
    except PermissionError:
        raise SlidePermission(f"{path}: user {os.getuid()} may not look into its folder; grant x on it") from None
    except (OSError, ValueError) as error:
        dangling = os.path.islink(path) if "\0" not in str(path) else False
        reason = f"the link points to {os.readlink(path)}, which is not there" if dangling else "no such file"
        raise SlideMissing(f"{path}: {reason} ({error.__class__.__name__}); correct the manifest's path") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a directory" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise SlideUnsupported(f"{path}: is {what}; expected one slide file")
    return found


def read_magic(path: str | Path) -> bytes:
    """The first 16 bytes of a readable, non-empty file; raises as `stat_slide`, and SlideEmpty."""
    found = stat_slide(path)
    try:
        with open(path, "rb") as file:
            magic = file.read(16)
    except PermissionError:
        mode = stat.filemode(found.st_mode)
        raise SlidePermission(
            f"{path}: user {os.getuid()} may not read it (mode {mode}, owner {found.st_uid}); grant r on it"
        ) from None
    if not magic:
        raise SlideEmpty(f"{path}: has 0 bytes; copy the file again")
    return magic


def is_tiff(magic: bytes) -> bool:
    """Whether the first bytes are those of a TIFF or BigTIFF."""
    return magic[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_tiff(path: str | Path) -> TiffFacts:
    """Walk all directories of a TIFF; raises SlideTruncated, SlideNotRGB8, SlideUnsupported."""
    with open(path, "rb") as file:
        walk = _Walk(file, str(path))
        directories = walk.directories()
    empty, total = 0, 0
    for directory in directories:
        offsets, counts = directory.data_spans(str(path))
        walk.require_whole(offsets, counts)
        if directory.is_tiled:
            total, empty = total + len(counts), empty + int((counts == 0).sum())
    candidates = [d for d in directories if d.is_tiled] or directories
    if candidates:
        max(candidates, key=lambda d: d.first(WIDTH) * d.first(HEIGHT)).require_rgb8(str(path))
    return TiffFacts(len(directories), total, empty)


class _Directory(dict):
    """The wanted tags of one TIFF directory: tag -> unsigned integers."""

    @property
    def is_tiled(self) -> bool:
        return TILE_OFFSETS in self

    def first(self, tag: int, default: int = 0) -> int:
        return int(self[tag][0]) if len(self.get(tag, ())) else default

    def data_spans(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and byte counts (uint64) of all tiles or strips."""
        nothing = np.empty(0, np.uint64)
        tags = (TILE_OFFSETS, TILE_COUNTS) if self.is_tiled else (STRIP_OFFSETS, STRIP_COUNTS)
        offsets, counts = (self.get(tag, nothing) for tag in tags)
        announced = self._num_tiles(path) if self.is_tiled else 0
        if not self.is_tiled and len(offsets) != len(counts):
            return nothing, nothing  # old writers leave the byte counts of strips out
        if len(offsets) != len(counts) or len(offsets) < announced:
            raise SlideUnsupported(
                f"{path}: a directory lists {len(offsets)} offsets and {len(counts)} byte counts for {announced} tiles; "
                f"the file is malformed, export it again"
            )
        return offsets, counts

    def _num_tiles(self, path: str) -> int:
        tile = self.first(TILE_WIDTH), self.first(TILE_HEIGHT)
        if not 0 < tile[0] * tile[1] <= MAX_TILE_PX:
            raise SlideUnsupported(
                f"{path}: native tiles of {tile[0]} x {tile[1]} px; possible are 1 to {MAX_TILE_PX} px"
            )
        return -(-self.first(WIDTH) // tile[0]) * -(-self.first(HEIGHT) // tile[1])

    def require_rgb8(self, path: str) -> None:
        bits, samples = [int(bit) for bit in self.get(BITS, [1])], self.first(SAMPLES, 1)
        if samples != 3 or set(bits) != {8}:
            raise SlideNotRGB8(
                f"{path}: has {samples} samples of {'/'.join(map(str, bits))} bits per pixel; "
                f"expected 3 samples of 8 bits, convert it to RGB"
            )


class _Walk:
    """A reader of TIFF directories that never reads past the end of the file."""

    def __init__(self, file: BinaryIO, path: str):
        self.file, self.path = file, path
        self.size_bytes = os.fstat(file.fileno()).st_size
        self.budget_bytes = self.size_bytes + 2**20  # no sound file makes us read a byte twice
        head = self._read(0, 8)
        self.order = "<" if head[:2] == b"II" else ">"
        self.is_big = struct.unpack(self.order + "H", head[2:4])[0] == 43
        # entry count, one entry (tag, type, count, value), offset: their struct codes
        self.codes = ("Q", "HHQ8s", "Q") if self.is_big else ("H", "HHI4s", "I")
        self.first_offset = self._unpack(8, "Q")[0] if self.is_big else self._unpack(4, "I")[0]

    def directories(self) -> list[_Directory]:
        """Every directory of the chain and its sub-directories, each once."""
        seen, pending, found = set(), [self.first_offset], []
        while pending:
            offset = pending.pop()
            if offset == 0 or offset in seen:
                continue
            if len(seen) >= MAX_DIRECTORIES:
                raise SlideUnsupported(
                    f"{self.path}: more than {MAX_DIRECTORIES} TIFF directories; the file is malformed"
                )
            seen.add(offset)
            directory, next_offset = self._directory(offset)
            found.append(directory)
            pending += [next_offset, *(int(sub) for sub in directory.get(SUB_IFDS, ()))]
        return found

    def require_whole(self, offsets: np.ndarray, counts: np.ndarray) -> None:
        """SlideTruncated unless every span lies inside the file."""
        if len(offsets) and (counts > 0).any():
            ends = offsets[counts > 0].astype(float) + counts[counts > 0]
            if ends.max() > self.size_bytes:
                self._raise_truncated(int(ends.max()))

    def _directory(self, offset: int) -> tuple[_Directory, int]:
        count_code, entry_code, offset_code = self.codes
        (num_entries,) = self._unpack(offset, count_code)
        start, entry_bytes = offset + struct.calcsize(count_code), struct.calcsize(self.order + entry_code)
        entries = self._read(start, num_entries * entry_bytes)
        directory = _Directory()
        for tag, kind, count, value in struct.iter_unpack(self.order + entry_code, entries):
            if tag in WANTED and kind in TYPES:
                directory[tag] = self._values(kind, count, value)
        return directory, self._unpack(start + len(entries), offset_code)[0]

    def _values(self, kind: int, count: int, value: bytes) -> np.ndarray:
        dtype = np.dtype(self.order + TYPES[kind])
        num_bytes = count * dtype.itemsize
        if num_bytes > len(value):
            value = self._read(struct.unpack(self.order + self.codes[2], value)[0], num_bytes)
        return np.frombuffer(value[:num_bytes], dtype).astype(np.uint64)

    def _unpack(self, offset: int, code: str) -> tuple:
        code = self.order + code
        return struct.unpack(code, self._read(offset, struct.calcsize(code)))

    def _read(self, offset: int, num_bytes: int) -> bytes:
        if offset + num_bytes > self.size_bytes:
            self._raise_truncated(offset + num_bytes)
        self.budget_bytes -= num_bytes
        if self.budget_bytes < 0:
            raise SlideUnsupported(f"{self.path}: its TIFF directories share their bytes; the file is malformed")
        self.file.seek(offset)
        return self.file.read(num_bytes)

    def _raise_truncated(self, needed_bytes: int) -> None:
        raise SlideTruncated(
            f"{self.path}: ends at {self.size_bytes:,} B, but its directories and tiles need {needed_bytes:,} B; "
            f"copy the file again"
        )
