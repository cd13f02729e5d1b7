"""What is recorded of a pretraining once it has ended: alarms, the monitor's best, what its encoder takes for alike."""

from pathlib import Path

import numpy as np
import torch
from launch import say

from raypath.data.neighbour_sheet import neighbour_sheet
from raypath.models import load_encoder
from raypath.protocols.features import features_of
from raypath.run_folder import RunFolder
from raypath.tracking import Tracker
from raypath.training.alarms import ALARMS
from raypath.training.saving import read_best
from raypath.training.settings import PretrainConfig
from raypath.training.source import Source, TileSource
from raypath.training.verdict import verdict
from raypath.training.worker import SKIPPED

_NUM_TILES = 512


def record_outcome(
    config: PretrainConfig, run: RunFolder, source: Source, encoder: Path, tracker: Tracker, run_id: str
) -> None:
    """Pictures and files for MLflow, and some lines for the person who waited."""
    alarms, skipped = run.read_lines(ALARMS), run.read_lines(SKIPPED)
    for name, lines in ((ALARMS, alarms), (SKIPPED, skipped)):
        if lines:
            tracker.log_artifact(run_id, run.path / name)
    if skipped:
        say(
            f"{len({line['step'] for line in skipped})} step(s) were not applied: {run.path / SKIPPED} names their tiles"
        )
    for line in verdict(run):
        say(line)
    best = read_best(run)
    if best:
        say(
            f"best by the monitor: step {best['step']}, {best['score']:.3f}, kept in {run.path / 'best'}; last is the default"
        )
    tracker.log_picture(run_id, sheet_of(config, source, encoder), "neighbours.png")
    place = tracker.place_of_pictures(run_id)
    if place:
        say(f"pictures: {place}")


def sheet_of(config: PretrainConfig, source: Source, encoder: Path):
    """Nearest neighbours among some hundred tiles (or images), drawn evenly from the plan; one that is drawn twice counts once."""
    num = min(_NUM_TILES, source.plan.epoch_length)
    positions = np.unique(np.linspace(0, source.plan.epoch_length - 1, num).astype(np.int64))
    rows = source.reader().read(positions)
    first = np.sort(np.unique(np.stack([rows["slide"], rows["tile"]]), axis=1, return_index=True)[1])
    images = rows["image"][first]
    names = source.names(rows["slide"][first], rows["tile"][first])
    slides = [name["slide"] if isinstance(source, TileSource) else name["task"] for name in names]
    words = {} if isinstance(source, TileSource) else {"one": "image", "group": "set"}
    features = features_of(load_encoder(encoder), resized(images, config.views.extent_px), torch.device("cpu"))
    return neighbour_sheet(images, features, slides, title=f"Nearest neighbours by {config.name}", **words)


def resized(images: np.ndarray, extent_px: int) -> np.ndarray:
    """Tiles uint8 [N, H, H, 3] at the encoder's extent, antialiased."""
    if images.shape[1] == extent_px:
        return images
    planes = torch.from_numpy(images).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(planes, (extent_px, extent_px), mode="bilinear", antialias=True)
    return small.permute(0, 2, 3, 1).contiguous().numpy()
