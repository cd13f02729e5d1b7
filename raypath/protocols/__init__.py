"""Protocols: from an encoder and a benchmark to predictions, from which every score follows."""

from raypath.protocols.encoders import open_encoder
from raypath.protocols.features import Features
from raypath.protocols.finetune import FinetuneSettings, finetune
from raypath.protocols.fitting import Fitted, fit
from raypath.protocols.knn import KnnSettings
from raypath.protocols.own_head import HeadSettings
from raypath.protocols.probe import ProbeSettings, fit_probe
from raypath.protocols.samples import Samples
from raypath.protocols.segment import SegmentSettings, segment
from raypath.protocols.svm import SvmSettings, fit_svm

__all__ = [
    "Features",
    "FinetuneSettings",
    "Fitted",
    "HeadSettings",
    "KnnSettings",
    "ProbeSettings",
    "Samples",
    "SegmentSettings",
    "SvmSettings",
    "finetune",
    "fit",
    "fit_probe",
    "fit_svm",
    "open_encoder",
    "segment",
]
