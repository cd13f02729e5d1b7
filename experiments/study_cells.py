"""The cells of a study: what is asked of a checkpoint on a benchmark, by every protocol and share of labels.

One decision: a cell holds its whole transfer config, so that what decides a score decides its key; a baseline that has nothing to
train (colour) stands under the name of the protocol that others are scored by.
"""

import math
from dataclasses import replace
from itertools import product

from entrants import BASELINES
from study_benchmarks import Loaded
from study_plan import architecture_of

from raypath.protocols import HeadSettings, KnnSettings, ProbeSettings, SvmSettings
from raypath.protocols.encoders import FILE, WITHOUT_WEIGHTS
from raypath.protocols.pixel_colour import PixelColourSettings
from raypath.protocols.trained import TRAINED
from raypath.protocols.transfer import OF_PIXELS, check_protocol, has_budget
from raypath.study.cells import Cell, Checkpoint
from raypath.study.null import has_null
from raypath.study.robustness import SHIFTS
from raypath.study.settings import EncoderEntry, StudyConfig

_WITHOUT_CHANCE = (ProbeSettings, KnnSettings, SvmSettings, HeadSettings, PixelColourSettings)


def scored_by(config: StudyConfig, one: Loaded, entry: EncoderEntry) -> list[tuple[str, float]]:
    """Protocols and shares of labels by which an encoder is scored on a benchmark; a head was trained on all labels."""
    return [
        (protocol, fraction)
        for protocol, fraction in product(one.transfers, config.fractions)
        if (not entry.protocols or protocol in entry.protocols)
        and not (isinstance(one.transfers[protocol].protocol, HeadSettings) and fraction < 1)
    ]


def cells_of(
    config: StudyConfig, one: Loaded, checkpoint: Checkpoint, entry: EncoderEntry, extent_px: int
) -> list[Cell]:
    """All that is asked of a checkpoint on a benchmark. Raises BadInput for a protocol that is none for the encoder."""
    cells = []
    for protocol, fraction in scored_by(config, one, entry):
        base = one.transfers[protocol]
        own = BASELINES.get(type(base.protocol), base.protocol) if entry.source in WITHOUT_WEIGHTS else base.protocol
        if isinstance(own, SvmSettings) and fraction < 1:
            own = replace(own, is_refitted=False)
        if isinstance(own, HeadSettings):
            own = replace(own, task=one.task)
        transfer = replace(
            base,
            encoder=checkpoint.source,
            protocol=own,
            extent_px=0 if isinstance(own, OF_PIXELS) else (base.extent_px or extent_px),
            fraction_train=fraction,
            batch_norm=entry.batch_norm if entry.batch_norm != "keep" else base.batch_norm,
        )
        if entry.source in WITHOUT_WEIGHTS:
            transfer = replace(transfer, batch_norm="keep")
        if checkpoint.by_fold:
            num_draws = len(checkpoint.by_fold) // one.folds_per_draw
            transfer = replace(transfer, num_repeats=min(num_draws, transfer.num_repeats))
        check_protocol(transfer, one.benchmark)
        is_fixed = isinstance(own, _WITHOUT_CHANCE) and not has_budget(transfer)
        num_draws = transfer.num_repeats or 1
        num = num_draws * math.ceil((1 if is_fixed else config.num_seeds) / num_draws)  # draws have equally many fits
        is_dense = one.benchmark.kind == "segmentation"
        num_nulls = min(config.num_nulls, 1) if isinstance(own, TRAINED) else config.num_nulls
        num_nulls = 0 if isinstance(own, HeadSettings) else num_nulls  # no label is looked at, so none can be shuffled
        is_end = checkpoint.step is None  # on the way the score is all that is asked for
        is_first = protocol == next(iter(one.transfers))  # of those that suit the benchmark
        altered = alterations_of(config, entry, fraction, is_first=is_first, is_dense=is_dense) if is_end else ()
        cells.append(
            Cell(
                checkpoint=checkpoint,
                benchmark=one.name,
                protocol=protocol,
                fraction=fraction,
                config=transfer,
                seeds=tuple(range(config.seed + 1, config.seed + 1 + num)),
                alterations=altered,
                num_nulls=num_nulls if is_end and has_null(one.benchmark) else 0,
                data_hash=one.folds_hash,
            )
        )
    return cells


def alterations_of(
    config: StudyConfig, entry: EncoderEntry, fraction: float, *, is_first: bool, is_dense: bool
) -> tuple[str, ...]:
    """How the test images of a cell are altered; the curves of robustness for the first protocol of its kind on all labels."""
    if entry.source == FILE:
        return ()  # it looks at no pixels
    asked = list(config.alterations)
    if config.has_robustness and is_first and fraction == max(config.fractions):
        asked += [one for shifts in SHIFTS.values() for one in shifts]
    moves = [one for one in asked if is_dense and one.startswith("mpp=") and float(one[4:]) < 1]  # masks would not fit
    return tuple(one for one in dict.fromkeys(asked) if one not in moves)


def extent_of(config: StudyConfig) -> int:
    """The extent at which images are fed to all encoders, where no transfer says another."""
    settings = architecture_of(config)
    return settings.input_px if settings else 0
