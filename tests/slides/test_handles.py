import os
import pickle

import pytest

from raypath.errors import SlideChanged, SlideMissing, TileCorrupt
from raypath.slides import Slide, SlideHandles
from tests.slides import forge


@pytest.fixture
def paths(tmp_path):
    return [forge.write_svs(tmp_path / f"{i}.svs", forge.picture(128, 128, i), num_levels=1) for i in range(4)]


@pytest.fixture
def opened(monkeypatch):
    """The slides that were opened, in order."""
    slides, original = [], Slide.open.__func__
    monkeypatch.setattr(Slide, "open", classmethod(lambda cls, *a: slides.append(original(cls, *a)) or slides[-1]))
    return slides


def use(handles, path, mpp=None):
    with handles.lend(path, mpp) as slide:
        return slide.read(0, 0, 64, 64)


def test_a_slide_is_opened_once_and_the_least_recent_one_is_closed(paths, opened):
    handles = SlideHandles(2)
    for i in (0, 0, 1, 0, 2, 0, 1):
        use(handles, paths[i])
    assert [slide.path for slide in opened] == [str(paths[i]) for i in (0, 1, 2, 1)]
    assert len(handles) == 2
    assert [slide.is_open for slide in opened] == [True, False, False, True]
    handles.close()
    assert not any(slide.is_open for slide in opened)


def test_the_same_file_at_another_mpp_is_another_slide(paths, opened):
    handles = SlideHandles(4)
    use(handles, paths[0])
    with handles.lend(paths[0], 0.3) as slide:
        assert slide.mpp == 0.3
    assert len(opened) == 2


def test_a_handle_that_raised_is_closed_and_the_next_use_opens_anew(paths, opened):
    handles = SlideHandles(2)
    forge.break_tile(paths[0], 3)
    with pytest.raises(TileCorrupt), handles.lend(paths[0]) as slide:
        slide.read(64, 64, 64, 64)
    assert (len(handles), opened[0].is_open) == (0, False)
    assert use(handles, paths[0]).shape == (64, 64, 3)
    assert len(opened) == 2


def test_a_lent_slide_stays_open_whatever_else_is_lent(paths):
    handles = SlideHandles(1)
    with handles.lend(paths[0]) as slide:
        for path in paths[1:]:
            use(handles, path)
        with handles.lend(paths[0]) as twin:
            assert twin is not slide
        assert slide.is_open
    assert (slide.is_open, twin.is_open, len(handles)) == (True, False, 1)


def test_a_file_that_is_not_the_indexed_one_is_refused(paths):
    handles = SlideHandles(2)
    found = paths[0].stat()
    stamp = {"size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
    with handles.lend(paths[0], **stamp):
        pass
    os.utime(paths[0], ns=(0, 5))
    with pytest.raises(SlideChanged, match=r"0\.svs: .* at 5 ns"), handles.lend(paths[0], **stamp):
        pass
    paths[0].unlink()
    with pytest.raises(SlideMissing), handles.lend(paths[0], **stamp):
        pass
    assert len(handles) == 0


def test_handles_cross_no_process(paths):
    handles = SlideHandles(3)
    use(handles, paths[0])
    copy = pickle.loads(pickle.dumps(handles))
    assert (copy.capacity, len(copy), len(handles)) == (3, 0, 1)
    use(copy, paths[0])
    handles._pid -= 1  # as a forked child sees it
    use(handles, paths[1])
    assert len(handles) == 1


def test_a_capacity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="capacity = 0"):
        SlideHandles(0)
