"""cluster.yaml: what Ray accepts, and private unless somebody opens it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "cluster.yaml").read_text()
STARTS = {"head": "head_start_ray_commands", "worker": "worker_start_ray_commands"}


@pytest.fixture
def config() -> dict:
    return yaml.safe_load(TEXT)


def start_of(config: dict, kind: str) -> str:
    (command,) = [c for c in config[STARTS[kind]] if "ray start" in c]
    return command


def test_ray_accepts_it_and_would_not_accept_a_slip(config):
    validate_config(prepare_config(config))
    slip = yaml.safe_load(TEXT) | {"max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(slip))


def test_no_address_is_public(config):
    assert config["provider"]["use_internal_ips"] is True
    assert "0.0.0.0" not in TEXT
    assert re.findall(r"--dashboard-host=(\S+)", TEXT) == ["127.0.0.1"]
    assert "--dashboard-host=127.0.0.1" in start_of(config, "head")


@pytest.mark.parametrize("kind", STARTS)
def test_every_node_asks_for_the_token(config, kind):
    assert re.search(r"\bRAY_AUTH_MODE=token\b.* ray start ", start_of(config, kind))


def test_the_token_is_a_private_file_and_stands_nowhere_as_text(config):
    assert config["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert "umask 077" in config["initialization_commands"]
    assert config["setup_commands"][0] == "chmod 600 ~/.ray/auth_token"
    assert not re.search(r"RAY_AUTH_TOKEN\s*[=:]", TEXT)
    assert not re.search(r"\b[0-9a-f]{32,}\b", TEXT)


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="no git repository here")
def test_no_token_is_kept_in_git():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [Path(name).name for name in tracked.stdout.split("\0") if name]
    assert "cluster.yaml" in names
    assert "auth_token" not in names


def test_the_nodes_that_work_have_cpus_and_the_head_has_none(config):
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert "--num-cpus=0" in start_of(config, "head")
    workers = {name: kind for name, kind in kinds.items() if name != config["head_node_type"]}
    assert all(kind["resources"]["CPU"] > 0 for kind in workers.values())
    # A job is refused where there is no room for it, so some worker has to be up before the first one is submitted.
    assert any(kind["min_workers"] > 0 and kind["resources"].get("GPU") for kind in workers.values())
    assert sum(kind["max_workers"] for kind in workers.values()) <= config["max_workers"]


def test_both_kinds_of_node_find_the_same_runs(config):
    roots = {re.search(r"RAYPATH_RUNS=(\S+)", start_of(config, kind)).group(1) for kind in STARTS}
    assert len(roots) == 1
    assert all(root.startswith("/shared/") for root in roots)
