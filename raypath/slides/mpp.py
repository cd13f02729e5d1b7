"""Micrometres per pixel of level 0: read from the file, or said by a person; never guessed.

A wrong mpp is worse than none, because every tile is cut in micrometres and nothing downstream can notice. So a value of
the file must lie in 0.05 to 5 um per px, agree in x and y, and agree with the objective power (10 / power um per px: 40x
is 0.25, 20x is 0.5) within 35 %. An override is taken as said and has only to lie in the range.
"""

import math
from collections.abc import Mapping

from raypath.errors import SlideMppImplausible, SlideMppMissing

MIN_MPP, MAX_MPP = 0.05, 5.0
MAX_ANISOTROPY = 0.05  # relative difference of x and y: a square tile would not be square any more
MAX_POWER_DISAGREEMENT = 0.35  # scanners call 0.17 to 0.33 um per px "40x"
REMEDY = "say it in the manifest's column mpp, or by mpp= of Slide.open"
UM_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0}


def native_mpp(path: str, properties: Mapping[str, str], override: float | None) -> tuple[float, str]:
    """The mpp of level 0 and its source, "override" or "file:PROPERTY".

    `properties` are OpenSlide's. Raises SlideMppMissing and SlideMppImplausible, both with the remedy.
    """
    if override is not None:
        _require_range(path, float(override), "the override")
        return float(override), "override"
    for name, values in _candidates(properties):
        if values:
            source = f"file:{name}"
            _require_square(path, values, source)
            mpp = sum(values) / len(values)
            _require_range(path, mpp, source)
            _require_power(path, mpp, source, objective_power(properties))
            return mpp, source
    raise SlideMppMissing(f"{path}: the file does not say its um per px; {REMEDY}")


def objective_power(properties: Mapping[str, str]) -> float | None:
    """The magnification that the file names, None where it names none."""
    power = _number(properties.get("openslide.objective-power"))
    return power if power and power > 0 else None


def _candidates(properties: Mapping[str, str]):
    """(property, numbers found) in the order of trust; TIFF resolution in px per unit becomes um per px."""
    yield "openslide.mpp-x", _numbers(properties, "openslide.mpp-x", "openslide.mpp-y")
    yield "aperio.MPP", _numbers(properties, "aperio.MPP")
    unit_um = UM_PER_UNIT.get(properties.get("tiff.ResolutionUnit", ""))
    per_unit = _numbers(properties, "tiff.XResolution", "tiff.YResolution")
    yield "tiff.XResolution", [unit_um / value for value in per_unit if value > 0] if unit_um else []


def _numbers(properties: Mapping[str, str], *names: str) -> list[float]:
    found = [_number(properties.get(name)) for name in names]
    return [value for value in found if value is not None]


def _number(text: str | None) -> float | None:
    try:
        value = float((text or "").strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _require_range(path: str, mpp: float, source: str) -> None:
    if not MIN_MPP <= mpp <= MAX_MPP:
        raise SlideMppImplausible(
            f"{path}: {mpp:g} um per px ({source}) cannot be; possible is {MIN_MPP:g} to {MAX_MPP:g}; {REMEDY}"
        )


def _require_square(path: str, values: list[float], source: str) -> None:
    if max(values) - min(values) > MAX_ANISOTROPY * abs(max(values, key=abs)):
        raise SlideMppImplausible(
            f"{path}: {values[0]:g} um per px in x but {values[1]:g} in y ({source}); they may differ by "
            f"{MAX_ANISOTROPY:.0%}; {REMEDY}"
        )


def _require_power(path: str, mpp: float, source: str, power: float | None) -> None:
    if power is not None and abs(mpp * power / 10 - 1) > MAX_POWER_DISAGREEMENT:
        raise SlideMppImplausible(
            f"{path}: {mpp:g} um per px ({source}) disagrees with the objective {power:g}x, which means about "
            f"{10 / power:g} (within {MAX_POWER_DISAGREEMENT:.0%}); {REMEDY}"
        )
