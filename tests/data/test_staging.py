"""Remote slides as local files: fetched once, within a bound, by any number of processes."""

import multiprocessing
import os
import time
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from raypath.data.staging import StagedFiles, local_path, stamp_of
from raypath.errors import SlideChanged, SlideMissing


class CountedFiles(LocalFileSystem):
    """Local files behind a protocol of their own that writes down every opening, slowly enough to meet others."""

    protocol = "counted"

    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(path.removeprefix("counted://"))

    def _open(self, path, mode="rb", **kwargs):
        with open(f"{path}.opened", "a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(0.2)
        return super()._open(path, mode, **kwargs)


fsspec.register_implementation("counted", CountedFiles)


@pytest.fixture
def remote():
    """A folder of three objects of 1000 bytes in memory."""
    files = fsspec.filesystem("memory")
    for name in "abc":
        files.pipe(f"/bucket/{name}.svs", name.encode() * 1000)
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def staged_names(folder):
    return sorted(path.read_bytes()[:1].decode() for path in folder.iterdir() if not path.name.startswith("."))


def tick():
    time.sleep(0.03)  # a file's time is no finer than some ms


def test_a_local_path_is_returned_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPATH_STAGING", str(tmp_path / "staging"))
    assert local_path("/data/no/such.svs") == "/data/no/such.svs"
    assert not (tmp_path / "staging").exists()


def test_a_uri_is_fetched_once_and_keeps_its_suffix(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPATH_STAGING", str(tmp_path / "staging"))
    path = local_path(f"{remote}/a.svs")
    assert path.startswith(str(tmp_path / "staging"))
    assert path.endswith(".svs")
    assert Path(path).read_bytes() == b"a" * 1000
    fsspec.filesystem("memory").pipe("/bucket/a.svs", b"changed")
    assert local_path(f"{remote}/a.svs") == path
    assert Path(path).read_bytes() == b"a" * 1000  # not fetched again: any version will do
    assert local_path(f"{remote}/b.svs") != path


def test_another_version_of_an_object_is_another_file(remote, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPATH_STAGING", str(tmp_path / "staging"))
    uri, objects = f"{remote}/a.svs", fsspec.filesystem("memory")
    old = stamp_of(uri)
    before = local_path(uri, old)
    tick()
    objects.pipe("/bucket/a.svs", b"z" * 1000)  # as long as before
    new = stamp_of(uri)
    assert new != old
    assert Path(local_path(uri, new)).read_bytes() == b"z" * 1000
    assert local_path(uri, old) == before  # a run goes on with the version it knows while its copy is there
    Path(before).unlink()
    with pytest.raises(SlideChanged, match="no longer the object that was indexed"):
        local_path(uri, old)


def test_the_bound_is_kept_by_removing_what_was_used_longest_ago(remote, tmp_path):
    files = StagedFiles(tmp_path / "staging", max_bytes=2500)
    for name in "aba":  # a is used again, so b is the oldest
        files.fetch(f"{remote}/{name}.svs")
        tick()
    files.fetch(f"{remote}/c.svs")
    assert staged_names(files.folder) == ["a", "c"]
    tick()
    files.fetch(f"{remote}/b.svs")
    assert staged_names(files.folder) == ["b", "c"]


def test_a_slide_above_the_bound_is_still_served_and_open_ones_stay_readable(remote, tmp_path):
    files = StagedFiles(tmp_path / "staging", max_bytes=10)
    with files.fetch(f"{remote}/a.svs").open("rb") as reading:
        tick()
        path = files.fetch(f"{remote}/b.svs")
        assert path.read_bytes() == b"b" * 1000
        assert staged_names(files.folder) == ["b"]
        assert reading.read() == b"a" * 1000


@pytest.mark.parametrize("uri", ["memory://bucket/none.svs", "nonsense://bucket/a.svs", "file:///no/such/a.svs"])
def test_what_cannot_be_fetched_is_a_missing_slide_and_leaves_nothing(remote, tmp_path, uri):
    files = StagedFiles(tmp_path / "staging", max_bytes=2500)
    with pytest.raises(SlideMissing, match=uri):
        files.fetch(uri)
    assert [path.name for path in files.folder.iterdir() if not path.name.startswith(".lock")] == []


def test_a_store_with_errors_of_its_own_is_a_missing_slide(tmp_path):
    class NoCredentials(Exception):
        """Like those of the clients of object stores: not an OSError."""

    class Store(LocalFileSystem):
        protocol = "store"

        def _open(self, path, mode="rb", **kwargs):
            raise NoCredentials("unable to locate credentials")

    fsspec.register_implementation("store", Store, clobber=True)
    with pytest.raises(SlideMissing, match="store://a/b.svs: cannot be fetched .*NoCredentials: unable to locate"):
        StagedFiles(tmp_path / "staging", max_bytes=10).fetch("store://a/b.svs")


def test_what_a_killed_process_left_half_written_is_removed(remote, tmp_path):
    files = StagedFiles(tmp_path / "staging", max_bytes=2500)
    name = files.fetch(f"{remote}/a.svs").name
    (files.folder / name).unlink()
    (files.folder / f".{name}.99999").write_bytes(b"half")
    files.fetch(f"{remote}/a.svs")
    assert not (files.folder / f".{name}.99999").exists()


def fetch_in_a_process(folder, uri, answers):
    path = StagedFiles(folder, max_bytes=10_000).fetch(uri)
    answers.put(path.read_bytes())


def test_processes_that_want_the_same_slide_fetch_it_once(tmp_path):
    source = tmp_path / "slide.svs"
    source.write_bytes(b"x" * 5000)
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    arguments = (tmp_path / "staging", f"counted://{source}", answers)
    processes = [context.Process(target=fetch_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    contents = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert contents == [b"x" * 5000] * 2
    assert len((tmp_path / "slide.svs.opened").read_text().splitlines()) == 1
