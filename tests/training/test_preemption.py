"""A node that is announced to go away, on a real cluster of two nodes on this machine."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from raypath.run_folder import RunFolder
from raypath.training.checkpoint import newest_valid, read_step

pytestmark = pytest.mark.ray

DRIVER = """
import sys, threading, time
from pathlib import Path

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from raypath.errors import Preempted
from raypath.run_folder import RunFolder
from raypath.training.pretrain import pretrain
from raypath.training.settings import PretrainConfig


def drain(address: str, run: RunFolder) -> None:
    '''What a cloud's reclaim notice becomes in Ray, once training is under way.'''
    while not (run.metrics.exists() and len(run.metrics.read_text().splitlines()) > 5):
        time.sleep(0.1)
    (busy,) = (node["NodeID"] for node in ray.nodes() if node["Resources"]["CPU"] == 2)
    reason, deadline_ms = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), int((time.time() + 120) * 1000)
    accepted, why = GcsClient(address=address).drain_node(busy, reason, "reclaimed", deadline_ms)
    print("drained", accepted, why, flush=True)


if __name__ == "__main__":
    memory = {"object_store_memory": 200 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
    cluster.add_node(num_cpus=2, **memory)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    run = RunFolder.open(sys.argv[1])
    threading.Thread(target=drain, args=(cluster.address, run), daemon=True).start()
    try:
        pretrain(run.config(PretrainConfig), run)
        print("finished")
    except Preempted as error:
        print("Preempted:", error)
    ray.shutdown()
    cluster.shutdown()
"""


def test_a_notice_of_preemption_writes_a_checkpoint_and_stops(config, tmp_path):
    loop = replace(config.loop, num_steps=5_000, checkpoint_every=5_000)
    workers = replace(config.workers, cpus_per_worker=1.0)  # both on the larger node
    run = RunFolder.create(tmp_path, "run", replace(config, loop=loop, workers=workers))
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    done = subprocess.run([sys.executable, driver, run.path], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert "drained True" in done.stdout, done.stdout + done.stderr
    assert "Preempted: stopped at step" in done.stdout, done.stdout + done.stderr
    step = read_step(newest_valid(run.checkpoints))
    assert 6 <= step < 5_000
    last = [json.loads(line) for line in Path(run.metrics).read_text().splitlines()][-1]
    assert last["step"] == step  # no step after the checkpoint
