import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from PIL import Image

from raypath.errors import BadInput
from raypath.metric_spool import MetricSpool, Point, SpoolSender
from raypath.redaction import redact
from raypath.tracking import SystemSampler, open_tracking

ROOT = Path(__file__).parents[1]
WRITER = """
import sys, time
from pathlib import Path
from raypath.metric_spool import MetricSpool
from raypath.tracking import open_tracking

uri, run_id, path = sys.argv[1], sys.argv[2], Path(sys.argv[3])
tracker = open_tracking(uri, "kill")
spool = MetricSpool(path)
sender = tracker.send_spool(run_id, path, interval_s=0.01)
for step in range(100_000):
    spool.append({"loss": step / 8, "train/accuracy": 0.5}, step)
    time.sleep(0.001)
"""

OPENER = """
import sys
from raypath.tracking import open_tracking
print(open_tracking(sys.argv[1], "shared").experiment_id)
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """One sqlite store for the module: making one takes MLflow some seconds."""
    return open_tracking(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", "kill")


@pytest.fixture(scope="module")
def server(local):
    """A real `mlflow server` on the same kind of store; yields (uri, process)."""
    folder = Path(local.uri.removeprefix("sqlite:///")).parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", local.uri, "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "served"), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        _wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health"), timeout_s=90)
        yield f"http://127.0.0.1:{port}", process
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def _wait_until(is_done, timeout_s=30.0):
    end_s = time.monotonic() + timeout_s
    while not is_done():
        assert time.monotonic() < end_s, "waited too long"
        time.sleep(0.05)


def _history(tracker, run_id, name):
    return [(m.step, m.value) for m in tracker.client.get_metric_history(run_id, name)]


# Opening a store


def test_the_driver_makes_the_database_and_artifacts_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = open_tracking(None, "first")
    assert tracker.uri == f"sqlite:///{tmp_path}/mlflow.db"
    run_id = tracker.start_run("r")
    (tmp_path / "note.txt").write_text("kept")
    tracker.log_artifact(run_id, tmp_path / "note.txt")
    assert (tmp_path / "mlartifacts" / run_id / "artifacts" / "note.txt").read_text() == "kept"
    assert open_tracking("sqlite:///mlflow.db", "first").experiment_id == tracker.experiment_id


def test_processes_that_open_a_new_store_together_find_the_same_one(tmp_path):
    command = [sys.executable, "-c", OPENER, f"sqlite:///{tmp_path}/mlflow.db"]
    children = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = [child.communicate(timeout=120)[0].split()[-1] for child in children]
    assert len(set(found)) == 1


def test_sqlite_on_two_nodes_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(BadInput, match=r"2 nodes; start `mlflow server .* set MLFLOW_TRACKING_URI="):
        open_tracking(f"sqlite:///{tmp_path}/mlflow.db", "e", num_nodes=2)


@pytest.mark.parametrize("uri", ["./mlruns", "file:/tmp/mlruns", "sqlite://", "sqlite:///:memory:"])
def test_a_file_store_and_a_memory_store_are_refused(uri):
    with pytest.raises(BadInput, match="tracking URI"):
        open_tracking(uri, "e")


def test_a_server_that_is_not_there_is_one_clear_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BadInput, match=r"does not open it") as caught:
        open_tracking("http://me:hunter2hunter2@127.0.0.1:9", "e")
    assert "hunter2" not in str(caught.value)


# Runs


def test_parents_tags_and_params(local):
    study = local.start_run("study", tags={"study": "s1"})
    config = {"optim": {"lr": 0.5, "betas": [0.9, 0.99]}, "hub_token": "abc", "note": "x" * 9000, "num_tokens": 4}
    run_id = local.start_run(
        "cell", parent=study, tags={"encoder": "colour", "seed": 3, "protocol": None}, params=config
    )
    run = local.client.get_run(run_id)
    assert run.data.tags["mlflow.parentRunId"] == study
    assert run.data.tags["raypath.encoder"] == "colour"
    assert run.data.tags["raypath.seed"] == "3"
    assert "raypath.protocol" not in run.data.tags
    assert run.data.params["optim.lr"] == "0.5"
    assert run.data.params["optim.betas"] == "[0.9, 0.99]"
    assert run.data.params["hub_token"] == "[redacted]"
    assert run.data.params["num_tokens"] == "4"
    assert len(run.data.params["note"]) == 6000
    found = local.client.search_runs([local.experiment_id], f"tags.`mlflow.parentRunId` = '{study}'")
    assert [r.info.run_id for r in found] == [run_id]


def test_a_resumed_run_goes_on_under_its_id_and_keeps_its_params(local):
    run_id = local.start_run("r", params={"lr": 1})
    local.end_run(run_id, "FAILED")
    assert local.client.get_run(run_id).info.status == "FAILED"
    assert local.start_run("r", params={"lr": 2}, tags={"seed": 1}, resume=run_id) == run_id
    run = local.client.get_run(run_id)
    assert (run.info.status, run.data.params, run.data.tags["raypath.seed"]) == ("RUNNING", {"lr": "1"}, "1")


def test_pictures_datasets_and_more_params_than_one_call_takes(local, tmp_path):
    run_id = local.start_run("r", params={f"p{i}": i for i in range(150)})
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    local.log_picture(run_id, tmp_path / "a.png", "path.png")
    local.log_picture(run_id, Image.new("RGB", (4, 4)), "views/pil.png")
    local.log_picture(run_id, Figure(), "figure.png")
    names = {f.path for f in local.client.list_artifacts(run_id, "pictures")}
    assert names == {"pictures/path.png", "pictures/views", "pictures/figure.png"}
    place = Path(local.place_of_pictures(run_id))
    assert sorted(path.name for path in place.iterdir()) == ["figure.png", "path.png", "views"]
    table = pa.table({"path": ["a"], "label": [1]})
    local.log_dataset(run_id, table, name="pcam", digest="ab" * 32, context="train")
    run = local.client.get_run(run_id)
    assert len(run.data.params) == 150
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("pcam", "ab" * 18)
    assert {t.key: t.value for t in given.tags} == {"mlflow.data.context": "train", "raypath.sha256": "ab" * 32}


def test_redaction(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    assert redact("weights.passwd", "x") == "[redacted]"
    assert redact("uri", "s3://user:pw@host/x") == "s3://[redacted]@host/x"
    assert redact("note", ["AKIAABCDEFGHIJKLMNOP", "the 0123456789abcdef one"]) == ["[redacted]", "the [redacted] one"]
    assert redact("num_tokens", 5) == 5
    assert redact("path", "/data/slides") == "/data/slides"


# The spool


def test_a_torn_line_is_dropped_and_redone_steps_are_not_written_twice(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricSpool(path) as spool:
        assert [spool.append({"loss": 1.0, "lr": float("nan")}, step) for step in range(3)] == [2, 2, 2]
    path.write_bytes(path.read_bytes()[:-7])
    with MetricSpool(path) as spool:
        assert spool.last_step("loss") == 1
        assert [spool.append({"loss": 1.0, "lr": 2.0}, step) for step in range(4)] == [0, 0, 2, 2]
        assert spool.append({"val/accuracy": 0.5}, 3) == 1
        with pytest.raises(BadInput, match=r"metric name 'a//b'.*rename"):
            spool.append({"a//b": 1.0}, 4)
    assert len(path.read_text().splitlines()) == 5


def test_a_lost_answer_and_an_oversized_line_leave_every_point_once(tmp_path, local):
    run_id = local.start_run("r")
    path = tmp_path / "metrics.jsonl"
    calls = []

    def send(points):
        calls.append(len(points))
        local.send_points(run_id, points)
        if len(calls) == 2:
            raise ConnectionError("the answer got lost")

    with MetricSpool(path) as spool:
        spool.append({f"m{i}": i for i in range(1500)}, 0)
        spool.append({"loss": float("nan")}, 1)
    sender = SpoolSender(path, send, interval_s=0.01)
    assert sender.close(timeout_s=30) == 0
    assert calls == [1000, 500, 1000, 500, 1]
    assert _history(local, run_id, "m7") == [(0, 7.0)]


def test_close_says_how_many_points_are_unsent_and_the_next_sender_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    spool, sent = MetricSpool(path), []

    def refuse(points):
        raise ConnectionError("down")

    for step in range(20):
        spool.append({"loss": step}, step)
    assert SpoolSender(path, refuse, interval_s=0.01).close(timeout_s=0.3) == 20
    path.write_bytes(path.read_bytes() + b'{"step": 20, "ti')  # a line that is still being written
    sender = SpoolSender(path, sent.extend, interval_s=0.01)
    assert sender.close(timeout_s=5) == 0
    assert [p.step for p in sent] == list(range(20))
    path.write_bytes(b"")  # a power cut lost the tail of the file, but it had been sent
    assert MetricSpool(path).append({"loss": 19}, 19) == 0


def test_several_threads_share_a_spool(tmp_path):
    with MetricSpool(tmp_path / "metrics.jsonl") as spool:
        threads = [
            threading.Thread(target=lambda n=n: [spool.append({n: s}, s) for s in range(200)], daemon=True)
            for n in "abc"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 600


def test_exactly_once_across_kill_9(tmp_path, local):
    run_id = local.start_run("r")
    path = tmp_path / "metrics.jsonl"
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, local.uri, run_id, str(path)], cwd=Path(__file__).parents[1]
    )
    try:
        _wait_until(lambda: path.with_suffix(".sent").exists() and path.read_bytes().count(b"\n") > 300, timeout_s=60)
    finally:
        child.kill()
        child.wait()
    assert _history(local, run_id, "loss"), "the child was killed before it had sent anything"
    with MetricSpool(path) as spool:
        resumed_at = spool.last_step("loss") - 50  # the newest checkpoint lies 50 steps back
        sender = local.send_spool(run_id, path, interval_s=0.01)
        last_step = resumed_at + 200
        for step in range(resumed_at, last_step):
            spool.append({"loss": step / 8, "train/accuracy": 0.5}, step)
        assert sender.close(timeout_s=60) == 0
    assert sorted(_history(local, run_id, "loss")) == [(step, step / 8) for step in range(last_step)]
    assert len(_history(local, run_id, "train/accuracy")) == last_step


def test_exactly_once_across_a_server_outage(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri, process = server
    tracker = open_tracking(uri, "outage", num_nodes=2)
    run_id = tracker.start_run("r")
    path, slowest_s = tmp_path / "metrics.jsonl", 0.0
    with MetricSpool(path) as spool:
        sender = tracker.send_spool(run_id, path, interval_s=0.05)
        for step in range(300):
            if step == 100:
                os.killpg(process.pid, signal.SIGSTOP)
            if step == 250:
                os.killpg(process.pid, signal.SIGCONT)
            start_s = time.monotonic()
            spool.append({"loss": step / 8}, step)
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            time.sleep(0.02)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        assert sender.close(timeout_s=60) == 0
    assert "sending metrics failed" in caplog.text
    assert slowest_s < 0.5, "training waited for the server"
    assert sorted(_history(tracker, run_id, "loss")) == [(step, step / 8) for step in range(300)]


def test_artifacts_go_through_the_server(server, tmp_path):
    tracker = open_tracking(server[0], "artifacts")
    run_id = tracker.start_run("r")
    tracker.log_picture(run_id, Image.new("RGB", (4, 4)), "a.png")
    assert [f.path for f in tracker.client.list_artifacts(run_id, "pictures")] == ["pictures/a.png"]


def test_system_metrics_go_into_the_spool_and_go_on_after_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        with MetricSpool(path) as spool:
            sampler = SystemSampler(spool, interval_s=0.02, node="head")
            before = spool.last_step("system/head/cpu_utilization_percentage")
            _wait_until(lambda: spool.last_step("system/head/cpu_utilization_percentage") >= before + 2)  # noqa: B023
            sampler.close()
    points: list[Point] = []
    SpoolSender(path, points.extend).close(timeout_s=5)
    steps = [p.step for p in points if p.name == "system/head/cpu_utilization_percentage"]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 4
