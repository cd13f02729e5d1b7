"""Encoders and what they carry: weights, normalisation, heads. Pure torch and timm; runs without ray, mlflow or pydantic."""

from raypath.models.colour import ColourEncoder
from raypath.models.coverage import Coverage
from raypath.models.encoder import Encoder, EncoderSettings, build_encoder, check_architecture
from raypath.models.exporting import export_encoder
from raypath.models.file import FileEncoder, file_numbers
from raypath.models.foreign import import_as_fed
from raypath.models.heads import LinearHead, Projector
from raypath.models.importing import (
    import_weights,
    published_normalisation,
    stated_input,
    with_normalisation,
)
from raypath.models.momentum import cosine_momentum, follow, momentum_copy
from raypath.models.normalization import synchronise_batch_norm
from raypath.models.positions import fix_positions, grid_embedding
from raypath.models.weights import load_encoder, save_encoder

__all__ = [
    "ColourEncoder",
    "Coverage",
    "Encoder",
    "EncoderSettings",
    "FileEncoder",
    "LinearHead",
    "Projector",
    "build_encoder",
    "check_architecture",
    "cosine_momentum",
    "export_encoder",
    "file_numbers",
    "fix_positions",
    "follow",
    "grid_embedding",
    "import_as_fed",
    "import_weights",
    "load_encoder",
    "momentum_copy",
    "published_normalisation",
    "save_encoder",
    "stated_input",
    "synchronise_batch_norm",
    "with_normalisation",
]
