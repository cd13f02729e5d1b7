"""Protocols: from an encoder and a benchmark to predictions, from which every score follows."""

from raypath.protocols.encoders import open_encoder
from raypath.protocols.finetune import FinetuneSettings, finetune
from raypath.protocols.probe import ProbeSettings, probe
from raypath.protocols.samples import Samples
from raypath.protocols.segment import SegmentSettings, segment

__all__ = [
    "FinetuneSettings",
    "ProbeSettings",
    "Samples",
    "SegmentSettings",
    "finetune",
    "open_encoder",
    "probe",
    "segment",
]
