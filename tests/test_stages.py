"""Stages: each starts from the encoder of the one before, and a stopped chain goes on from any of them."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from stages import PREVIOUS, follow_up, later_stages, note_next, place_of, write_stages

from raypath.run_folder import RunFolder
from raypath.training.settings import PretrainConfig


def test_what_comes_after_is_written_down(tmp_path):
    first, second, third = (
        PretrainConfig(name=name, init=init) for name, init in (("a", "random"), ("b", PREVIOUS), ("c", "x"))
    )
    run = RunFolder.create(tmp_path, "a", first)
    write_stages(run, [second, third])
    assert place_of(run) == (1, 3)
    assert later_stages(run) == (None, [second, third])

    following = RunFolder.create(tmp_path, "b", second)
    assert place_of(following) == (1, 1)
    write_stages(following, [third], stage=2)
    assert place_of(following) == (2, 3)
    note_next(run, following)
    assert later_stages(run) == (following, [second, third])
    assert follow_up(second, run) == replace(second, init=str(run.path))
    assert follow_up(third, run) == third  # it says where it starts
    assert later_stages(following) == (None, [third])
