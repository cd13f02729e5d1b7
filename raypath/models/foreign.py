"""Weights of others, fed as their authors feed them.

One decision: what an encoder is fed with is never a silent default. What a person does not say is taken from a config.json beside
the file, else from the layout's authors, else from what timm publishes for the architecture; and whose numbers they are is returned
in words.
"""

from pathlib import Path
from typing import Any

from raypath.models.coverage import Coverage
from raypath.models.encoder import Encoder, EncoderSettings
from raypath.models.importing import import_weights, published_normalisation, stated_input, with_normalisation


def import_as_fed(
    path: Path, settings: dict[str, Any], *, layout: str = "auto", copy: str | None = None, prefix: str = ""
) -> tuple[Encoder, Coverage, str]:
    """The encoder of a foreign file, the report on its tensors, and where its normalisation is from.

    `settings` are those of `EncoderSettings` that a person decides, the architecture at least. Raises BadInput unless the weights
    cover the encoder, and for an architecture without published numbers if mean, std and input_px are not given.
    """
    has_normalisation, stated = "mean" in settings, stated_input(path)
    settings = stated | settings
    if "mean" not in settings or "input_px" not in settings:
        (mean, std), input_px = published_normalisation(settings["architecture"])
        settings = {"mean": mean, "std": std, "input_px": input_px} | settings
    encoder, coverage = import_weights(path, EncoderSettings(**settings), layout=layout, copy=copy, prefix=prefix)
    whose = "as given" if has_normalisation else f"timm's for {settings['architecture']}, the file does not say"
    if not has_normalisation and stated:
        whose = f"of the config.json beside {path.name}"
    elif not has_normalisation and coverage.normalisation:
        encoder, whose = with_normalisation(encoder, *coverage.normalisation), f"of the layout {coverage.layout}"
    return encoder, coverage, whose
