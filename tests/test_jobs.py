"""A pretraining as a Ray job, on a real head with token authentication, started and stopped here.

The head is one process group of our own with its own folder and ports, so that other Ray instances on the machine are neither
seen nor touched.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from raypath.run_folder import RunFolder
from raypath.training.checkpoint import ENCODER, newest_valid

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NOT_SHIPPED = shutil.ignore_patterns(
    ".git", ".venv", "runs", "notebooks", "tests", "*_cache", "__pycache__", "*.egg-info"
)


def free_ports(num: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Head:
    """`ray start --head` and how to talk to it."""

    def __init__(self, folder: Path):
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "RAYPATH_"))}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        quick = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1", "RAY_USAGE_STATS_ENABLED": "0"}
        self.without_token = inherited | quick | {"PATH": path, "HOME": str(folder), "RAY_AUTH_MODE": "disabled"}
        self.environment = self.without_token | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        gcs, dashboard, client, *agent = free_ports(7)
        self.address = f"http://127.0.0.1:{dashboard}"
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "node-manager-port")
        command = [
            *(
                BIN / "ray",
                "start",
                "--head",
                "--block",
                "--num-cpus=2",
                "--disable-usage-stats",
                "--include-dashboard=true",
            ),
            *(f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"),
            *(f"--ray-client-server-port={client}", f"--temp-dir={folder}", f"--object-store-memory={256 * 2**20}"),
            *(f"--{name}={port}" for name, port in zip(names, agent)),
        ]
        self.log = (folder / "head.log").open("w")
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def wait(self, limit_s: float = 90) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, Path(self.log.name).read_text()
            try:
                with urlopen(f"{self.address}/api/gcs_healthz", timeout=2):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"no head in {limit_s} s: {Path(self.log.name).read_text()}")

    def stop(self) -> None:
        """End the group that we started, and nothing else: `ray stop` would end every Ray on the machine."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(2)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self.log.close()

    def ray(self, *arguments: str, environment: dict) -> subprocess.CompletedProcess:
        command = [BIN / "ray", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.fixture(scope="module")
def head():
    folder = Path(tempfile.mkdtemp(prefix="rj-", dir="/tmp"))  # a socket's path has at most 107 characters
    head = Head(folder)
    try:
        head.wait()
        yield head
    finally:
        head.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.ray
def test_a_job_without_the_token_is_refused(head):
    refused = head.ray("job", "submit", "--address", head.address, "--", "true", environment=head.without_token)
    assert refused.returncode != 0
    assert "token authentication is enabled" in refused.stdout + refused.stderr
    for token, code in ((None, 401), ("0" * 64, 403)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = json.dumps({"entrypoint": "true"}).encode()
        with pytest.raises(HTTPError) as raised:
            urlopen(Request(f"{head.address}/api/jobs/", data=body, headers=headers), timeout=30)
        assert raised.value.code == code
    listed = head.ray("job", "list", "--address", head.address, environment=head.environment)
    assert listed.returncode == 0
    assert "raysubmit_" not in listed.stdout


@pytest.mark.ray
def test_the_demo_recipe_is_submitted_followed_and_ends_in_an_encoder(head, tmp_path):
    """As the README says it, with fewer steps: the job writes its own slides, indexes them and trains on two workers."""
    working_dir, runs = tmp_path / "repo", tmp_path / "runs"
    shutil.copytree(ROOT, working_dir, ignore=NOT_SHIPPED)
    runtime = json.dumps({"env_vars": {"RAYPATH_RUNS": str(runs)}})
    submitted = head.ray(
        *(
            "job",
            "submit",
            "--address",
            head.address,
            "--submission-id",
            "raypath-test",
            "--working-dir",
            str(working_dir),
        ),
        *("--runtime-env-json", runtime, "--", "python", "experiments/pretrain.py"),
        *("loop.num_steps=4", "loop.checkpoint_every=2"),
        environment=head.environment,
    )
    output = submitted.stdout + submitted.stderr
    assert submitted.returncode == 0, output
    assert "Job 'raypath-test' succeeded" in output
    (folder,) = runs.glob("demo-*")
    assert f"encoder: {newest_valid(RunFolder.open(folder).checkpoints) / ENCODER}" in output
    assert "step 4/4  loss " in output
    assert newest_valid(folder / "checkpoints").name.endswith("4")
    status = head.ray("job", "status", "--address", head.address, "raypath-test", environment=head.environment)
    assert "SUCCEEDED" in (status.stdout + status.stderr).upper()
