import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raypath
from raypath import errors
from raypath.errors import SlideCrash, SlideError, SlideTimeout, SlideTruncated
from raypath.slides import check, check_slide
from raypath.slides.header import check_tiff, read_magic
from tests.slides import forge


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return forge.write_svs(tmp_path_factory.mktemp("sound") / "sound.svs", forge.picture(320, 256), compression="jpeg")


@pytest.fixture
def copy(sound, tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(sound.read_bytes())
    return path


@pytest.mark.parametrize("bigtiff", [False, True])
def test_the_facts_of_a_sound_slide(tmp_path, bigtiff):
    path = forge.write_svs(tmp_path / "a.svs", forge.picture(320, 256), bigtiff=bigtiff, num_levels=3)
    start = time.monotonic()
    facts = check_slide(path)
    assert time.monotonic() - start < 3
    assert (facts.path, facts.size_bytes, facts.mtime_ns) == (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    assert (facts.size_l0, facts.mpp, facts.mpp_source) == ((320, 256), 0.5, "file:openslide.mpp-x")
    assert (facts.vendor, facts.level_downsamples, facts.objective_power) == ("aperio", (1.0, 2.0, 4.0), 20.0)
    assert facts.num_empty_tiles == 0


def gray(path):
    forge.write_svs(path, forge.picture(128, 128)[..., 0])


def sixteen_bit(path):
    forge.write_svs(path, forge.picture(128, 128).astype(np.uint16) * 256)


def png(path):
    forge.Image.fromarray(forge.picture(64, 64)).save(path, format="PNG")


def mpp(value, power="20"):
    return lambda path: forge.write_svs(path, forge.picture(128, 128), mpp=value, power=power)


BAD = {
    "missing": (lambda path: None, "SlideMissing", "no such file"),
    "dangling link": (lambda path: path.symlink_to("gone.svs"), "SlideMissing", "points to gone.svs"),
    "directory": (lambda path: path.mkdir(), "SlideUnsupported", "is a directory"),
    "empty": (lambda path: path.touch(), "SlideEmpty", "0 bytes"),
    "text": (lambda path: path.write_text("slide,label\n"), "SlideUnsupported", r"begins with b'slide,label\\n'"),
    "PNG": (png, "SlideUnsupported", r"begins with b'\\x89PNG"),
    "gray": (gray, "SlideNotRGB8", "1 samples of 8 bits"),
    "16 bit": (sixteen_bit, "SlideNotRGB8", "3 samples of 16/16/16 bits"),
    "no mpp": (mpp(None), "SlideMppMissing", "manifest's column mpp"),
    "mpp nan": (mpp("nan"), "SlideMppMissing", "manifest's column mpp"),
    "mpp 0": (mpp("0"), "SlideMppImplausible", "0.05 to 5"),
    "mpp 250": (mpp("250"), "SlideMppImplausible", "250 um per px"),
    "mpp against power": (mpp("0.5", "40"), "SlideMppImplausible", "objective 40x"),
    "four bytes": (lambda path: path.write_bytes(b"II*\0"), "SlideTruncated", "ends at 4 B"),
}


@pytest.mark.parametrize(("make", "kind", "message"), BAD.values(), ids=BAD)
def test_every_bad_file_has_its_class_and_one_line(tmp_path, make, kind, message):
    path = tmp_path / "bad.svs"
    make(path)
    with pytest.raises(getattr(errors, kind), match=message) as caught:
        check_slide(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_override_makes_a_slide_without_mpp_sound(tmp_path):
    path = forge.write_svs(tmp_path / "a.svs", forge.picture(128, 128), mpp=None)
    facts = check_slide(path, 0.25)
    assert (facts.mpp, facts.mpp_source) == (0.25, "override")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_slide_names_both_sizes(copy, share):
    full = copy.stat().st_size
    forge.truncate(copy, int(full * share))
    with pytest.raises(SlideTruncated, match=rf"ends at {int(full * share):,} B, but .* need [\d,]+ B"):
        check_slide(copy)


def test_one_level_cut_short_is_found_though_openslide_opens_it(tmp_path):
    path = forge.write_svs(tmp_path / "a.svs", forge.picture(512, 512), num_levels=1)
    offsets, counts = forge.spans(path)
    forge.truncate(path, max(offset + count for offset, count in zip(offsets, counts)) - 1)
    with pytest.raises(SlideTruncated):
        check_slide(path)


def test_empty_and_corrupt_tiles_are_no_reason_to_refuse(copy):
    forge.empty_tile(copy, 0)
    forge.empty_tile(copy, 1)
    forge.break_tile(copy, 19)
    assert check_slide(copy).num_empty_tiles == 2


def test_a_slide_of_which_nothing_can_be_decoded_is_refused(tmp_path):
    path = forge.write_svs(tmp_path / "a.svs", forge.picture(256, 256), num_levels=1)
    for number in range(16):
        forge.break_tile(path, number)
    with pytest.raises(errors.TileCorrupt):
        check_slide(path)


def test_a_slide_of_another_name_is_taken_by_its_content(copy, caplog):
    other = copy.rename(copy.with_suffix(".png"))
    assert check_slide(other).vendor == "aperio"
    assert "taken as a slide" in caplog.text


def child_of(monkeypatch, code):
    """Let the child process run `code` instead."""
    monkeypatch.setattr(check.sys, "executable", _script(code))


def _script(code):
    path = Path(tempfile.mkdtemp()) / "child"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_crash_of_the_child_is_contained_and_named(sound, monkeypatch):
    child_of(
        monkeypatch,
        f"sys.stderr.write('GLib-ERROR: failed to allocate\\n'); sys.stderr.flush(); os.kill(os.getpid(), {signal.SIGABRT:d})",
    )
    with pytest.raises(SlideCrash, match=r"sound\.svs: .* by SIGABRT \(GLib-ERROR: failed to allocate\)"):
        check_slide(sound)


def test_a_child_that_hangs_is_a_timeout(sound, monkeypatch):
    child_of(monkeypatch, "time.sleep(60)")
    with pytest.raises(SlideTimeout, match=r"more than 0\.5 s"):
        check_slide(sound, limit_s=0.5)


def test_a_child_that_says_nothing_is_a_crash(sound, monkeypatch):
    child_of(monkeypatch, "sys.exit('no such module')")
    with pytest.raises(SlideCrash, match=r"ended with 1 \(no such module\)"):
        check_slide(sound)


def test_too_little_memory_is_one_slide_error(tmp_path):
    path = forge.write_svs(tmp_path / "wide.svs", np.zeros((4096, 4096, 3), np.uint8), num_levels=1)
    assert path.stat().st_size < 2**20  # 12 KB a tile unpacked: 50 MB in all
    with pytest.raises(SlideCrash, match=r"wide\.svs: opening it .*(needs more than 62,914,560 B|killed)"):
        check_slide(path, limit_bytes=60 * 2**20)
    assert check_slide(path).size_l0 == (4096, 4096)


def refusal_as(user, path):
    """What `read_magic` says to another user, asked in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(user)
            read_magic(path)
        except SlideError as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        return answer.read()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user; root itself may read everything")
def test_a_forbidden_file_names_the_user_and_the_mode(sound):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "secret.svs"
        path.write_bytes(sound.read_bytes())
        path.chmod(0o600)
        expected = f"SlidePermission: {path}: user 65534 may not read it (mode -rw-------, owner 0); grant r on it"
        assert refusal_as(65534, path) == expected
        os.chmod(folder, 0o700)
        assert (
            refusal_as(65534, path)
            == f"SlidePermission: {path}: user 65534 may not look into its folder; grant x on it"
        )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8), st.booleans()
)
def test_the_walk_ends_any_mutated_file_in_a_slide_error_or_not_at_all(sound, mutations, in_header):
    data = bytearray(sound.read_bytes())
    directories = range(8)
    if in_header:  # where it hurts: the first directory
        start = int.from_bytes(data[4:8], "little")
        directories = [*range(4, 8), *range(start, start + 200)]
    for share, value in mutations:
        data[directories[int(share * len(directories))]] = value
    with tempfile.NamedTemporaryFile(suffix=".svs") as file:
        file.write(data)
        file.flush()
        try:
            check_tiff(file.name)
        except SlideError as error:
            assert file.name in str(error)


def test_a_loop_of_directories_ends(copy):
    data = bytearray(copy.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    num_entries = int.from_bytes(data[start : start + 2], "little")
    after = start + 2 + 12 * num_entries
    data[after : after + 4] = start.to_bytes(4, "little")  # the next directory is this one
    copy.write_bytes(data)
    assert check_tiff(copy).num_directories == 1


def test_the_child_alone_writes_one_line_of_json(sound):
    command = [sys.executable, "-m", "raypath.slides.attempt", str(sound), "", "20", str(4 * 2**30)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(raypath.__file__).parents[1])
    assert json.loads(done.stdout)["facts"]["size_l0"] == [320, 256]
    assert done.stderr == ""


@pytest.mark.real
def test_real_slides_are_sound(real_slides):
    sizes = {path.name: check_slide(path, 0.5).size_l0 for path in sorted(real_slides.glob("*.svs"))}
    assert sizes == {"CMU-1-Small-Region.svs": (2220, 2967), "TCGA-CR-7395-01A-01-TS1.svs": (4443, 3567)}
