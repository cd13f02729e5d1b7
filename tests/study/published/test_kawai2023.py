"""The first paper's grid: known numbers stand in their places, and nothing else is a number."""

import io
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "experiments"))

from recipes import PRETRAINING
from recipes.kawai2023 import PUBLISHED

from raypath.errors import BadInput
from raypath.study.published.kawai2023 import GRID, grid_figure, grid_table
from raypath.study.tables import Noted, Spread


def test_every_known_number_has_its_place_and_the_rest_is_not_known():
    rows = {row.key: cells for row, cells in zip(GRID, grid_table(PUBLISHED).rows)}
    assert rows["kawai_simclr_resnet50"] == ("ResNet-50", "PTCGA200, SimCLR", Spread(86.41), None, None, None)
    assert rows["imagenet2012 ResNet-50"][2] == Spread(82.72)
    assert rows["COCO ResNet-50"][5] == Spread(63.22)
    assert rows["COCO ResNet-50"][2] == Noted(None, ("used for segmentation alone",))
    values = [cell for cells in rows.values() for cell in cells if isinstance(cell, Spread)]
    assert len(values) == sum(value is not None for value in PUBLISHED.values())


def test_every_recipe_of_the_paper_has_a_row():
    keys = [row.key for row in GRID]
    assert len(set(keys)) == len(keys)
    recipes = {name for name in PRETRAINING if name.startswith("kawai_")}
    assert recipes
    assert recipes <= set(keys)


def test_the_picture_has_the_numbers_and_hatching():
    figure = grid_figure(PUBLISHED)
    figure.savefig(io.BytesIO(), format="svg")
    (axes,) = figure.axes
    numbers = sorted(text.get_text() for text in axes.texts if text.get_text() not in ("", "–"))
    assert numbers == sorted(f"{value:.2f}" for value in PUBLISHED.values() if value is not None)
    dashes = sum(text.get_text() == "–" for text in axes.texts)
    num_hatched = sum(bool(patch.get_hatch()) for patch in axes.patches)
    assert num_hatched + dashes + len(numbers) == 4 * len(GRID)


@pytest.mark.parametrize("place", [("kawai_byol_resnet5", "pcam accuracy"), ("kawai_byol_resnet50", "pcam auc")])
def test_a_number_without_a_place_is_refused(place):
    for draw in (grid_table, grid_figure):
        with pytest.raises(BadInput, match="no such place in the grid"):
            draw({place: 1.0})
