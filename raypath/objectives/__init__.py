"""Objectives: modules and a loss that pretrain an encoder. One self-contained file each; this table gives them their names.

An objective has `encoder`, is called with a batch and returns `{"loss": ..., detached scalars}`, names its `param_groups`, and
may act `before_step` (after gradients are reduced, before clipping) and `after_step`; `progress` runs from 0 to 1. It is
wrapped whole in DDP. Its settings know how many views of a tile it wants.
"""

from typing import Union

from raypath.models import Encoder
from raypath.objectives.simclr import SimCLR, SimCLRSettings

# settings -> objective; the settings' `kind` is the name that configs and MLflow use
OBJECTIVES = {SimCLRSettings: SimCLR}
ObjectiveSettings = Union[tuple(OBJECTIVES)]  # noqa: UP007 - the members come from the table


def build_objective(settings, encoder: Encoder):
    """The objective that `settings` describe, around `encoder`."""
    return OBJECTIVES[type(settings)](settings, encoder)


__all__ = ["OBJECTIVES", "ObjectiveSettings", "SimCLR", "SimCLRSettings", "build_objective"]
