"""The papers' protocols are complete and repeat their numbers."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

from recipes.transfers import TRANSFERS

from raypath.config import from_dict, to_dict
from raypath.protocols.transfer import TransferConfig
from raypath.sweep import check_sweep, num_trials
from raypath.sweep.search import param_space


@pytest.mark.parametrize("name", TRANSFERS)
def test_each_is_a_whole_config_of_its_name_with_a_line_for_the_list(name):
    config = TRANSFERS[name]()
    assert config.name == name
    assert from_dict(TransferConfig, to_dict(config)) == config
    assert len(TRANSFERS[name].__doc__.splitlines()[0]) < 132
    if config.protocol.kind in ("finetune", "segment"):
        check_sweep(config)
        assert param_space(config).keys() == config.sweep.space.keys()


def test_the_second_papers_grid_has_its_four_rates_and_100_epochs():
    config = TRANSFERS["mormont_finetune"]()
    assert config.sweep.space == {"protocol.lr": [1e-3, 1e-4, 1e-5, 1e-6]}
    assert num_trials(config.sweep) == 4
    assert (config.protocol.epochs, config.protocol.keep, config.sweep.asha) == (100, "best", False)
    svm = TRANSFERS["mormont_svm"]().protocol
    assert (svm.lowest_c, svm.highest_c, svm.num_c, svm.num_folds) == (1e-10, 1.0, 11, 5)


def test_the_first_papers_updates_are_1000_at_1e_4_and_the_last_is_tested():
    for name in ("kawai_finetune", "kawai_segment"):
        protocol = TRANSFERS[name]().protocol
        assert (protocol.num_steps, protocol.lr, protocol.keep, protocol.clip_norm) == (1_000, 1e-4, "last", 1.0)
