import pytest

from raypath.errors import SlideMppImplausible, SlideMppMissing
from raypath.slides.mpp import native_mpp


@pytest.mark.parametrize(
    ("properties", "mpp", "source"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"}, 0.255, "file:openslide.mpp-x"),
        ({"openslide.mpp-x": "0.25"}, 0.25, "file:openslide.mpp-x"),
        ({"aperio.MPP": "0,4990", "openslide.objective-power": "20"}, 0.499, "file:aperio.MPP"),
        ({"tiff.XResolution": "20000", "tiff.ResolutionUnit": "centimeter"}, 0.5, "file:tiff.XResolution"),
        ({"tiff.XResolution": "50800", "tiff.ResolutionUnit": "inch"}, 0.5, "file:tiff.XResolution"),
    ],
)
def test_what_the_file_says(properties, mpp, source):
    assert native_mpp("a.svs", properties, None) == (pytest.approx(mpp), source)


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"aperio.MPP": "nan"},
        {"aperio.MPP": ""},
        {"openslide.mpp-x": "?"},
        {"tiff.XResolution": "10", "tiff.ResolutionUnit": "none"},
    ],
)
def test_missing_is_never_guessed(properties):
    with pytest.raises(SlideMppMissing, match=r"a\.svs: .*manifest's column mpp"):
        native_mpp("a.svs", {**properties, "openslide.objective-power": "40"}, None)
    assert native_mpp("a.svs", properties, 0.3) == (0.3, "override")


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"openslide.mpp-x": "0"}, "0 um per px"),
        ({"openslide.mpp-x": "-0.25"}, "-0.25 um per px"),
        ({"openslide.mpp-x": "1000", "openslide.mpp-y": "1000"}, "1000 um per px"),  # "1 px per mm"
        ({"openslide.mpp-x": "0.5", "openslide.mpp-y": "0.25"}, "0.5 um per px in x but 0.25 in y"),
        ({"openslide.mpp-x": "0.5", "openslide.objective-power": "40"}, "objective 40x, which means about 0.25"),
        ({"openslide.mpp-x": "0.25", "openslide.objective-power": "20"}, "objective 20x, which means about 0.5"),
    ],
)
def test_what_cannot_be_is_refused(properties, message):
    with pytest.raises(SlideMppImplausible, match=message):
        native_mpp("a.svs", properties, None)


def test_an_override_is_taken_as_said_within_the_possible():
    assert native_mpp("a.svs", {"openslide.mpp-x": "9", "openslide.objective-power": "40"}, 1.0) == (1.0, "override")
    for impossible in (0.0, -1.0, 6.0, float("nan")):
        with pytest.raises(SlideMppImplausible, match=r"the override.*0\.05 to 5"):
            native_mpp("a.svs", {}, impossible)
