"""Encoders and what they carry: weights, normalisation, heads. Pure torch and timm; runs without ray, mlflow or pydantic."""

from raypath.models.colour import ColourEncoder
from raypath.models.encoder import Encoder, EncoderSettings, build_encoder, check_architecture
from raypath.models.heads import LinearHead, Projector
from raypath.models.normalization import synchronise_batch_norm
from raypath.models.weights import load_encoder, save_encoder

__all__ = [
    "ColourEncoder",
    "Encoder",
    "EncoderSettings",
    "LinearHead",
    "Projector",
    "build_encoder",
    "check_architecture",
    "load_encoder",
    "save_encoder",
    "synchronise_batch_norm",
]
