"""The protocols that train weights, in one shape: what a single fit and a trial of a sweep have in common.

One decision: there are two of them, and they are told apart here alone. Samples with a label are fine-tuned, images with masks are
segmented; both are handed train and val, look at val now and then, and leave a model that predicts.
"""

import pyarrow as pa
import torch

from raypath.benchmarks import Benchmark, PixelPredictions, Predictions
from raypath.data.crops import Crops
from raypath.models.segmentation import Segmenter
from raypath.protocols.encoders import open_encoder
from raypath.protocols.finetune import Classifier, Finetuned, FinetuneSettings, finetune, probability_of
from raypath.protocols.looks import Report, report_nothing
from raypath.protocols.masked_samples import MaskedSamples
from raypath.protocols.samples import Samples
from raypath.protocols.scale import Feeding
from raypath.protocols.segment import Segmented, SegmentSettings, predicted_masks, segment, segmenter_of
from raypath.protocols.transfer import TransferConfig, train_rows, transfer_encoder

TRAINED = (FinetuneSettings, SegmentSettings)
Parts = Samples | MaskedSamples
Said = Predictions | PixelPredictions
_LEAST_CROPS = 64  # for batch norm's statistics: a batch of the second paper


def read_samples(
    config: TransferConfig, benchmark: Benchmark, rows: pa.Table, fed: Feeding, *, is_scored: bool = True
) -> Parts:
    """Rows of the benchmark in memory, as the encoder is fed with them; `is_scored`: and with all that scores need."""
    if isinstance(config.protocol, FinetuneSettings):
        return Samples.of(rows, benchmark.classes, fed.frame)
    has_objects = is_scored and benchmark.has_objects
    fed_as = {"mpp": benchmark.mpp, "fed_mpp": fed.mpp, "alteration": fed.frame.alteration}
    return MaskedSamples.of(rows, benchmark.classes, benchmark.mask_rule, **fed_as, has_objects=has_objects)


def training_samples(config: TransferConfig, benchmark: Benchmark, fed: Feeding) -> tuple[Parts, Parts]:
    """Train (within the label budget) and val."""
    train = read_samples(config, benchmark, train_rows(config, benchmark), fed, is_scored=False)
    return train, read_samples(config, benchmark, benchmark.rows("val"), fed)


def train_weights(
    config: TransferConfig,
    train: Parts,
    val: Parts,
    *,
    metric: str,
    device: torch.device,
    report: Report = report_nothing,
) -> Finetuned | Segmented:
    """The protocol of `config` trained on `train`, looking at `val`; raises what `finetune` and `segment` raise."""
    settings, seed = config.protocol, config.seed
    told = {"metric": metric, "seed": seed, "device": device, "report": report}
    if isinstance(settings, SegmentSettings):
        crops = Crops(train.masked, settings.crop_px, seed=seed)
        encoder = transfer_encoder(config, max(_LEAST_CROPS, len(train)), lambda positions: crops.at(positions)[0])
        return segment(encoder, train, val, settings, **told)
    encoder = transfer_encoder(config, len(train), lambda numbers: train.images[numbers])
    return finetune(encoder, train, val, settings, **told)


def untrained(config: TransferConfig, num_classes: int) -> Classifier | Segmenter:
    """The model of a protocol, for weights that were kept."""
    encoder = open_encoder(config.encoder, seed=config.seed)
    if isinstance(config.protocol, SegmentSettings):
        return segmenter_of(encoder, num_classes, config.protocol)
    return Classifier(encoder, num_classes, config.protocol.dropout)


def said_of(
    model: Classifier | Segmenter,
    config: TransferConfig,
    samples: Parts,
    device: torch.device,
) -> Said:
    """What a trained model says of samples."""
    if isinstance(config.protocol, SegmentSettings):
        return predicted_masks(model, samples, config.protocol, device)
    return samples.predictions(probability_of(model, samples.images, device))
