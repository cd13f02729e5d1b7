"""MLflow, as much of it as an experiment needs: runs with parents, lineage tags, parameters, pictures, data sets.

One decision: every call names its run. There is no active run and no global tracking URI, so a driver that holds a study, its
benchmarks and twenty trials cannot write into the wrong one, and a resumed run simply goes on under its id.

The default is a sqlite file beside the experiment, artifacts in `mlartifacts/` next to it. The driver makes it once here,
because several processes that create it race in MLflow's migrations; on more than one machine a server is asked for instead.
What it costs: the client's own retries are turned down in this process (2 retries, 20 s), since the spool keeps trying.
"""

import contextlib
import fcntl
import getpass
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # importing mlflow calls its makers otherwise

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from raypath.config import flatten
from raypath.errors import BadInput
from raypath.metric_spool import MetricSpool, Point, SpoolSender
from raypath.redaction import redact, redact_text

LINEAGE = ("study", "encoder", "benchmark", "protocol", "fraction", "seed", "config_hash", "data_hash")
MAX_PARAM_CHARS = 6000  # mlflow.utils.validation.MAX_PARAM_VAL_LENGTH
MAX_TAG_CHARS = 8000  # mlflow.utils.validation.MAX_TAG_VAL_LENGTH
MAX_DIGEST_CHARS = 36  # mlflow.store.tracking.dbmodels.models.SqlDataset.digest
MAX_PARAMS_PER_CALL = 100  # mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH
CLIENT_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
SERVER_REMEDY = (
    "start `mlflow server --backend-store-uri sqlite:////srv/mlflow/mlflow.db --artifacts-destination /srv/mlflow/artifacts "
    "--host 127.0.0.1 --port 5000` and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000"
)

log = logging.getLogger(__name__)


def open_tracking(uri: str | None, experiment: str, num_nodes: int = 1) -> "Tracker":
    """Open the tracking store and its experiment, creating both where they are missing.

    `uri` falls back to MLFLOW_TRACKING_URI, then to `sqlite:///<cwd>/mlflow.db`. Workers get `Tracker.uri`: it is absolute.
    Raises BadInput for a file store, for sqlite on several nodes, and for a server that does not answer, each with the remedy.
    """
    for name, value in CLIENT_LIMITS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "creating initial tables" is nobody's news
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme in ("", "file") and uri != "databricks":
        raise BadInput(
            f"tracking URI {redact_text(uri)}: MLflow's file store is no longer supported; leave MLFLOW_TRACKING_URI "
            f"unset for a local sqlite file, or {SERVER_REMEDY}"
        )
    if scheme == "sqlite" and num_nodes > 1:
        raise BadInput(
            f"tracking URI {uri}: sqlite is one file on one machine, and this run has {num_nodes} nodes; {SERVER_REMEDY}"
        )
    try:
        if scheme == "sqlite":
            return _open_sqlite(uri, experiment)
        return _open_experiment(uri, experiment, artifact_location=None)
    except MlflowException as error:
        reason = str(error).partition("\n")[0][:300]
        raise BadInput(
            f"tracking URI {redact_text(uri)}: MLflow does not open it ({redact_text(reason)}); {SERVER_REMEDY}"
        ) from error


def _open_sqlite(uri: str, experiment: str) -> "Tracker":
    database = Path(uri.partition(":///")[2].partition("?")[0])
    if database.name in ("", ":memory:"):
        raise BadInput(
            f"tracking URI {uri}: expected a file, e.g. sqlite:///mlflow.db, that other processes can open too"
        )
    database = database.absolute()
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(database.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            with sqlite3.connect(database) as connection:  # kept in the file: the UI reads while a run writes
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
        return _open_experiment(f"sqlite:///{database}", experiment, (database.parent / "mlartifacts").as_uri())


def _open_experiment(uri: str, name: str, artifact_location: str | None) -> "Tracker":
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return Tracker(uri, client.create_experiment(name, artifact_location), client)
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise BadInput(
            f"experiment {name!r} was deleted at {redact_text(uri)}: restore it in MLflow or choose another name"
        )
    return Tracker(uri, found.experiment_id, client)


@dataclass(frozen=True)
class Tracker:
    """A tracking store and one experiment in it; made by `open_tracking`."""

    uri: str
    experiment_id: str
    client: MlflowClient

    @property
    def place(self) -> str:
        """The URI as it may be shown: without a password."""
        return redact_text(self.uri)

    def is_running(self, run_id: str) -> bool:
        """Whether a run is still open; False if the store does not answer."""
        with _surviving("the state of a run"):
            return self.client.get_run(run_id).info.status == "RUNNING"
        return False

    def start_run(
        self,
        name: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        resume: str | None = None,
    ) -> str:
        """Create a run (or go on with the run id `resume`) and return its id.

        `tags`: names of LINEAGE get the prefix `raypath.`, others stay; None values are left out. `params`: the resolved config,
        nested; flattened with dots, redacted, cut to MLflow's limit. A resumed run's params are not logged again: MLflow refuses
        changed ones, and whether a config may differ on resume is decided before.
        """
        try:
            return self._start_run(name, parent, tags or {}, params or {}, resume)
        except MlflowException as error:
            reason = redact_text(str(error).partition("\n")[0][:300])
            raise BadInput(f"tracking URI {redact_text(self.uri)}: cannot start the run {name!r} ({reason})") from None

    def _start_run(self, name: str, parent: str | None, tags: Mapping, params: Mapping, resume: str | None) -> str:
        if resume is not None:
            self.client.update_run(resume, status="RUNNING", name=name)
            self.set_tags(resume, tags)
            return resume
        source = {"mlflow.source.name": Path(sys.argv[0]).name, "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
        first_tags = {"mlflow.parentRunId": parent, **source, **git_tags(Path(__file__).parent)}
        run = self.client.create_run(
            self.experiment_id, run_name=name, tags={k: v for k, v in first_tags.items() if v is not None}
        )
        self.set_tags(run.info.run_id, tags)
        entries = [Param(k, _param_text(k, v)) for k, v in flatten(params).items()]
        for start in range(0, len(entries), MAX_PARAMS_PER_CALL):
            self.client.log_batch(run.info.run_id, params=entries[start : start + MAX_PARAMS_PER_CALL])
        return run.info.run_id

    def children(self, parent: str, tag: str) -> dict[str, str]:
        """Run ids of the children of a run, by the value of a tag that they have."""
        found: dict[str, str] = {}
        with _surviving("the children of a run"):
            runs = self.client.search_runs(
                [self.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=1000
            )
            found = {run.data.tags[tag]: run.info.run_id for run in runs if tag in run.data.tags}
        return found

    def set_tags(self, run_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags, lineage names prefixed as in `start_run`."""
        with _surviving("tags"):
            named = {f"raypath.{k}" if k in LINEAGE else k: v for k, v in tags.items() if v is not None}
            entries = [RunTag(k, str(redact(k, v))[:MAX_TAG_CHARS]) for k, v in named.items()]
            if entries:
                self.client.log_batch(run_id, tags=entries)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log a few final numbers at once; step metrics of training go through a spool (`send_spool`)."""
        with _surviving("scores"):
            now_ms = time.time_ns() // 1_000_000
            self.send_points(run_id, [Point(name, float(value), now_ms, step) for name, value in metrics.items()])

    def send_points(self, run_id: str, points: list[Point]) -> None:
        """Log points with their own times (at most 1,000); sending them twice changes nothing."""
        self.client.log_batch(run_id, metrics=[Metric(p.name, p.value, p.time_ms, p.step) for p in points])

    def send_spool(self, run_id: str, path: Path, *, interval_s: float = 2.0) -> SpoolSender:
        """Start the background thread that carries `metrics.jsonl` to this run; end it with `.close(timeout_s)`."""
        return SpoolSender(path, lambda points: self.send_points(run_id, points), interval_s=interval_s)

    def log_artifact(self, run_id: str, path: Path, folder: str | None = None) -> None:
        """Upload a file or a whole folder."""
        with _surviving(str(path)):
            self.client.log_artifact(run_id, str(path), folder)

    def log_picture(self, run_id: str, picture: Any, name: str) -> None:
        """Store a picture as `pictures/<name>`: a path, a matplotlib figure (`savefig`) or a PIL image (`save`)."""
        with _surviving(name), tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / Path(name).name
            if isinstance(picture, str | Path):
                shutil.copyfile(picture, target)
            else:
                getattr(picture, "savefig" if hasattr(picture, "savefig") else "save")(target)
            self.client.log_artifact(run_id, str(target), str(Path("pictures") / Path(name).parent))

    def place_of_pictures(self, run_id: str) -> str:
        """The folder that `log_picture` fills, or the server's address of it; "" where a server does not answer."""
        place = ""
        with _surviving("the place of pictures"):
            place = f"{self.client.get_run(run_id).info.artifact_uri.removeprefix('file://')}/pictures"
        return place

    def log_dataset(self, run_id: str, rows: Any, *, name: str, digest: str, context: str) -> None:
        """Record what a run read (`context`: train, val, test) as an MLflow dataset input; no row is uploaded.

        `rows`: the path of a manifest, or a pyarrow table or pandas frame, whose column types and number of rows are kept.
        `digest`: its sha256; MLflow stores 36 characters of it, the tag `raypath.sha256` the whole.
        """
        with _surviving(name):
            is_path = isinstance(rows, str | Path)
            dataset = Dataset(
                name=name,
                digest=digest[:MAX_DIGEST_CHARS],
                source_type="local" if is_path else "table",
                source=json.dumps({"uri": str(rows)} if is_path else {}),
                schema=None if is_path else json.dumps({"mlflow_colspec": _column_types(rows)}),
                profile=None if is_path else json.dumps({"num_rows": len(rows)}),
            )
            tags = [InputTag("mlflow.data.context", context), InputTag("raypath.sha256", digest)]
            self.client.log_inputs(run_id, [DatasetInput(dataset, tags)])

    def end_run(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close a run; also what a driver calls for a trial that was stopped from outside."""
        with _surviving(f"the end of a run ({status})"):
            self.client.set_terminated(run_id, status)


class SystemSampler:
    """CPU, memory, disk, network and GPU load into a run's spool, under the names that MLflow's page of system metrics shows.

    MLflow's own monitor stops for good at the first failed request and is a second writer of the run; so its sensors are used and
    their readings go the way of every other metric. One number per `interval_s` and sensor; close with `close()`.
    """

    def __init__(self, spool: MetricSpool, *, interval_s: float = 10.0, node: str | None = None) -> None:
        self._spool, self._interval_s = spool, interval_s
        self._prefix = f"system/{node}/" if node else "system/"
        self._sensors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        with contextlib.suppress(Exception):  # raises whatever its library says where there is no NVIDIA GPU
            self._sensors.append(GPUMonitor())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sampling; waits for at most one reading."""
        self._stopping.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        step = 1 + self._spool.last_step(f"{self._prefix}cpu_utilization_percentage")
        while not self._stopping.wait(self._interval_s):
            self._spool.append(self._read(), step)
            step += 1

    def _read(self) -> dict[str, float]:
        readings: dict[str, float] = {}
        for sensor in self._sensors:
            sensor.collect_metrics()
            readings.update(sensor.aggregate_metrics())
            sensor.clear_metrics()
        return {self._prefix + name: value for name, value in readings.items()}


def _user() -> str | None:
    """Who runs it, where the machine knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return None


@contextmanager
def _surviving(what: str):
    """A tracking store that is away for a moment must not end a training: what is not recorded is said, and work goes on."""
    try:
        yield
    except (MlflowException, OSError) as error:
        log.warning("MLflow: %s not recorded: %s", what, redact_text(str(error).partition("\n")[0][:200]))


def git_tags(folder: Path) -> dict[str, str]:
    """The commit of the code and whether files differ from it; empty without git (recorded, never part of a key)."""
    git, options = ["git", "-C", str(folder)], {"capture_output": True, "text": True, "check": True, "timeout": 10}
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"mlflow.source.git.commit": commit, "raypath.git_is_dirty": str(bool(changes)).lower()}


def _param_text(name: str, value: Any) -> str:
    value = redact(name, value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MAX_PARAM_CHARS else text[: MAX_PARAM_CHARS - 3] + "..."


def _column_types(rows: Any) -> list[dict[str, str]]:
    if hasattr(rows, "schema"):
        return [{"name": field.name, "type": str(field.type)} for field in rows.schema]
    return [{"name": str(name), "type": str(dtype)} for name, dtype in rows.dtypes.items()]
