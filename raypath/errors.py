"""The errors a person may meet, and the exit code each one ends a program with.

One decision: an error is one clear line (file, value, what was expected, the remedy) and its class says what kind of thing
went wrong, so that a slide can be quarantined by reason and a job scheduler can tell bad input (2) from a resumable stop (75).
"""

EXIT_BAD_INPUT = 2
EXIT_QUARANTINE = 3
EXIT_DIVERGED = 4
EXIT_INCOMPLETE = 5
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again


class RaypathError(Exception):
    """Something a person can act on; `exit_code` is what a program ends with."""

    exit_code = 1


class BadInput(RaypathError):
    """A setting, a file or an argument is wrong: nothing was started."""

    exit_code = EXIT_BAD_INPUT


class TooManyQuarantined(RaypathError):
    """More slides or tiles were set aside than the run allows."""

    exit_code = EXIT_QUARANTINE


class Diverged(RaypathError):
    """The loss is not finite and stays so."""

    exit_code = EXIT_DIVERGED


class Incomplete(RaypathError):
    """A study has come to its end, and parts of it have failed: its report has the others."""

    exit_code = EXIT_INCOMPLETE


class Preempted(RaypathError):
    """The run was asked to stop, has written a checkpoint, and can be resumed."""

    exit_code = EXIT_PREEMPTED


class CheckpointInvalid(RaypathError):
    """A checkpoint's files do not fit its sha256 list."""


class SlideError(RaypathError):
    """A slide cannot be used; the class is the reason written into the quarantine."""

    exit_code = EXIT_BAD_INPUT


class SlideMissing(SlideError):
    """There is no file at the path (a dangling link counts)."""


class SlidePermission(SlideError):
    """The file may not be read by this user."""


class SlideUnreadable(SlideError):
    """The file system or the network does not give the file's bytes."""


class SlideEmpty(SlideError):
    """The file has no bytes."""


class SlideTruncated(SlideError):
    """The file ends before the data it announces."""


class SlideUnsupported(SlideError):
    """OpenSlide does not know the format."""


class SlideCrash(SlideError):
    """Opening the slide killed the child process that tried."""


class SlideTimeout(SlideError):
    """Opening the slide took longer than its limit."""


class SlideMppMissing(SlideError):
    """The file does not say its um per px, and nobody else did."""


class SlideMppImplausible(SlideError):
    """The file's um per px cannot be true."""


class SlideNotRGB8(SlideError):
    """The pixels are not 8-bit RGB."""


class SlideTooCoarse(SlideError):
    """Level 0 is coarser than the target beyond `max_upsample`."""


class SlideChanged(SlideError):
    """The file is no longer the one that was indexed."""


class TileCorrupt(SlideError):
    """A tile's compressed bytes cannot be decoded."""


class TileMissing(SlideError):
    """The slide has no pixels (alpha below 255) somewhere inside the tile."""


class ImageUnreadable(SlideError):
    """An image of a pool is gone, cannot be decoded, or has no 8-bit colours of its own."""


# What can befall one tile of a sound slide, or one image; a block carries the index into this tuple (0: nothing).
TILE_FAULTS = (
    None,
    TileCorrupt,
    TileMissing,
    SlideChanged,
    SlideMissing,
    SlidePermission,
    SlideUnsupported,
    SlideEmpty,
    SlideUnreadable,
    ImageUnreadable,
)
