import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypath.data.index import Index, IndexHash
from raypath.data.indexing import index_slide, make_index
from raypath.data.joined_index import open_index
from raypath.data.manifest import SlideRow, read_manifest
from raypath.errors import BadInput
from raypath.slides import Slide, TileGrid, TileSpec, tissue_fractions, tissue_mask
from tests.slides import forge

SPEC = TileSpec(extent_px=64, mpp=0.5, stride_px=64, min_tissue=0.5)


@pytest.fixture(scope="module")
def rows(phantom_folder):
    return read_manifest(phantom_folder / "manifest.csv")


def row_of(path, **known):
    return SlideRow(slide=path.stem, path=str(path), patient=path.stem, **known)


def quarantine_of(folder):
    return {line["slide"]: line for line in map(json.loads, (folder / "quarantine.jsonl").read_text().splitlines())}


def blank(path, *, size=512):
    return forge.write_svs(path, np.full((size, size, 3), 240, np.uint8))


@pytest.mark.ray
def test_an_index_holds_the_tiles_that_the_tissue_mask_keeps(phantom_index, rows):
    assert phantom_index.column("slide").tolist() == [row.slide for row in rows]
    assert phantom_index.num_tiles.min() > 20
    for number, row in enumerate(rows):
        with Slide.open(row.path) as slide:
            grid = TileGrid.of(slide.size_l0, slide.mpp, SPEC)
            fractions = tissue_fractions(tissue_mask(slide.thumbnail(8), 8), grid).reshape(-1)
        cells = phantom_index.cells(number)
        assert sorted(cells.tolist()) == np.flatnonzero(fractions >= 0.5).tolist()
        assert (cells == grid.morton_order(cells)).all()
        assert np.allclose(phantom_index.tissue(number), fractions[cells], atol=1e-3)
    facts = phantom_index.row(0)
    assert (facts["mpp"], facts["mpp_source"], facts["upsample"]) == (0.5, "file:openslide.mpp-x", 1.0)
    assert (facts["patient"], facts["split"]) == ("patient-0001", "train")
    assert len(facts["sha256"]) == 64


@pytest.mark.ray
def test_the_hash_is_that_of_the_content_and_not_of_the_order_of_the_manifest(phantom_index, phantom_folder, tmp_path):
    header, *lines = (phantom_folder / "manifest.csv").read_text().splitlines()
    absolute = [line.replace(",phantom", f",{phantom_folder}/phantom") for line in lines]
    (tmp_path / "shuffled.csv").write_text("\n".join([header, *absolute[3:], *absolute[:3]]))
    shuffled, _ = make_index(read_manifest(tmp_path / "shuffled.csv"), SPEC, tmp_path / "index")
    assert shuffled.hash == phantom_index.hash

    content = IndexHash(SPEC)
    content.add(pq.read_table(tmp_path / "index" / "index.parquet"))
    assert content.hex() == shuffled.hash
    assert open_index(str(tmp_path / "index"), shuffled.hash).num_tiles.sum() == phantom_index.num_tiles.sum()
    with pytest.raises(BadInput, match="changed while it was in use"):
        open_index(str(tmp_path / "index"), "0" * 64)


@pytest.mark.ray
def test_a_second_run_takes_what_is_unchanged_and_makes_what_has_changed(rows, ray_instance, tmp_path):
    copies = []
    for row in rows[:3]:
        shutil.copy(row.path, tmp_path)
        copies.append(replace(row, path=str(tmp_path / f"{row.slide}.svs")))
    first, outcomes = make_index(copies, SPEC, tmp_path / "index")
    assert not any(o.is_unchanged for o in outcomes)

    seen = []
    again, outcomes = make_index(
        copies, SPEC, tmp_path / "index", progress=lambda done, total, o: seen.append((done, total, o.slide))
    )
    assert all(o.is_unchanged for o in outcomes)
    assert again.hash == first.hash
    assert [s[:2] for s in seen] == [(1, 3), (2, 3), (3, 3)]
    assert {s[2] for s in seen} == {row.slide for row in copies}

    shutil.copy(rows[4].path, copies[1].path)
    changed, outcomes = make_index(copies, SPEC, tmp_path / "index")
    assert [o.is_unchanged for o in outcomes] == [True, False, True]
    assert changed.hash != first.hash
    assert changed.row(1)["sha256"] != first.row(1)["sha256"]


def test_another_specification_mpp_or_a_spoilt_part_is_made_anew(rows, tmp_path):
    part = tmp_path / f"{rows[0].slide}.parquet"
    assert not index_slide(rows[0], SPEC, tmp_path).is_unchanged
    assert index_slide(rows[0], SPEC, tmp_path).is_unchanged
    assert not index_slide(rows[0], replace(SPEC, min_tissue=0.9), tmp_path).is_unchanged
    assert not index_slide(replace(rows[0], mpp=0.45), SPEC, tmp_path).is_unchanged
    part.write_bytes(part.read_bytes()[:100])
    assert index_slide(replace(rows[0], mpp=0.45), SPEC, tmp_path).num_tiles > 0


def test_a_slide_that_turns_bad_loses_its_part(rows, tmp_path):
    path = tmp_path / "slide.svs"
    shutil.copy(rows[0].path, path)
    assert index_slide(row_of(path), SPEC, tmp_path).num_tiles > 0
    path.write_bytes(b"")
    assert index_slide(row_of(path), SPEC, tmp_path).reason == "SlideEmpty"
    assert not (tmp_path / "slide.parquet").exists()


def test_level_0_too_coarse_is_set_aside_and_just_fine_enough_is_upsampled(tmp_path):
    path = forge.write_svs(tmp_path / "coarse.svs", forge.picture(512, 512), mpp="0.688", power=None)
    outcome = index_slide(row_of(path), replace(SPEC, mpp=0.39), tmp_path)
    assert outcome.reason == "SlideTooCoarse"
    assert "need an upsampling of 1.76, allowed is 1.30" in outcome.message
    assert index_slide(row_of(path), replace(SPEC, mpp=0.54), tmp_path).reason is None
    part = pq.read_table(tmp_path / "coarse.parquet")
    assert part["upsample"][0].as_py() == pytest.approx(0.688 / 0.54)


@pytest.mark.ray
def test_a_slide_without_tissue_is_in_the_index_with_no_tile_and_is_named(rows, ray_instance, tmp_path):
    empty = row_of(blank(tmp_path / "blank.svs"))
    small = row_of(forge.write_svs(tmp_path / "small.svs", forge.picture(60, 60)))
    index, outcomes = make_index([empty, rows[0], small], SPEC, tmp_path / "index")
    assert index.num_tiles.tolist() == [0, index.num_tiles.sum(), 0]
    assert all(o.reason is None for o in outcomes)
    assert {k: line["reason"] for k, line in quarantine_of(tmp_path / "index").items()} == {
        "blank": "no_tissue",
        "small": "no_tissue",
    }
    assert index.cells(0).tolist() == []
    assert index.corners(0, np.arange(0))[0].tolist() == []


@pytest.mark.ray
def test_no_tile_at_all_is_an_error_that_says_why(ray_instance, tmp_path):
    unsaid = row_of(forge.write_svs(tmp_path / "unsaid.svs", forge.picture(128, 128), mpp=None))
    with pytest.raises(BadInput) as caught:
        make_index([row_of(blank(tmp_path / "blank.svs")), unsaid], SPEC, tmp_path / "index")
    message = str(caught.value)
    assert "0 tiles in 2 slides" in message
    assert "no_tissue: 1" in message
    assert "SlideMppMissing: 1" in message
    assert "manifest's column mpp" in message  # the remedy of the first
    assert set(quarantine_of(tmp_path / "index")) == {"blank", "unsaid"}
    with pytest.raises(BadInput, match="no finished index here"):
        Index(tmp_path / "index")


def test_an_index_of_many_row_groups_finds_every_slide(rows, tmp_path, monkeypatch):
    from raypath.data import indexing

    monkeypatch.setattr(indexing, "_SLIDES_PER_ROW_GROUP", 2)
    outcomes = [index_slide(row, SPEC, tmp_path) for row in rows[:5]]
    indexing.join_parts([tmp_path / f"{o.slide}.parquet" for o in outcomes], SPEC, tmp_path)
    index = Index(tmp_path)
    assert [len(index.cells(slide)) for slide in range(5)] == [o.num_tiles for o in outcomes]
