"""The lessons run from top to bottom, in a process and a folder of their own, and are stored without outputs."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

# notebook -> what to look at when it has run: name -> expression
ENDS = {
    "01_slides_and_tiles": {
        "sizes": "[len(fine), len(coarse)]",
        "reasons": "{s['slide']: s['reason'] for s in set_aside}",
        "num_tiles": "int(index.num_tiles.sum())",
        "num_kept": "[len(kept), int(index.num_tiles[0])]",
    },
    "02_views_and_objectives": {
        "same_tiles": "bool(same_tiles)",
        "exactly_once": "exactly_once",
        "losses": "losses",
        "history": "[h['loss'] for h in history]",
        "shares": "[before, after]",
    },
    "03_compare_runs": {
        "encoders": "table['encoder'].tolist()",
        "status": "table['status'].tolist()",
        "num_points": "[len(points) for points in curves.values()]",
        "difference": "[difference.low, difference.estimate, difference.high]",
        "num_patients": "difference.num_patients",
        "words": "words.words",
        "is_better": "words.is_better",
        "matrix": "sorted(matrix['score'].tolist())",
        "scores": "sorted(interval.estimate for interval in intervals.values())",
    },
}


def ends_of(name: str, folder: Path) -> dict:
    """Run a notebook; the values of its expressions at the end."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    wanted = ENDS[name] | {"python": "sys.executable", "is_ray_left": "ray.is_initialized()"}
    items = ", ".join(f"{key!r}: {expression}" for key, expression in wanted.items())
    cell = nbformat.v4.new_code_cell(f"import json, sys\nprint(json.dumps({{{items}}}))")
    notebook.cells.append(cell)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    ends = json.loads("".join(o["text"] for o in cell.outputs if o.get("name") == "stdout"))
    assert Path(ends["python"]).parent == Path(sys.executable).parent
    assert not ends["is_ray_left"]
    return ends


@pytest.mark.parametrize("name", ENDS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPATH_RUNS", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    ends = ends_of(name, tmp_path)
    if name == "01_slides_and_tiles":
        assert ends["sizes"] == [256, 64]
        assert ends["reasons"] == {"cut": "SlideTruncated", "notes": "SlideUnsupported", "unsaid": "SlideMppMissing"}
        assert ends["num_tiles"] > 100
        assert ends["num_kept"][0] == ends["num_kept"][1]
    elif name == "02_views_and_objectives":
        assert ends["same_tiles"]
        assert ends["exactly_once"]
        assert ends["losses"]["both views alike"] < ends["losses"]["guessing"] < ends["losses"]["random projections"]
        assert sum(ends["history"][-5:]) < sum(ends["history"][:5])
        assert all(0 < share < 1 for share in ends["shares"])
    else:
        assert ends["encoders"] == ["crops of half a tile", "whole tiles"]
        assert ends["status"] == ["FINISHED", "FINISHED"]
        assert ends["num_points"][0] == ends["num_points"][1] > 10
        low, estimate, high = ends["difference"]
        assert low <= estimate <= high
        assert ends["num_patients"] >= 2
        assert "this checkpoint" in ends["words"]
        assert not ends["is_better"]  # without colour nothing is
        assert ends["matrix"] == pytest.approx(ends["scores"])


def test_notebooks_are_stored_without_outputs():
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    assert [path.stem for path in paths] == list(ENDS)
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert (cell.outputs, cell.execution_count) == ([], None), f"{path.name}: {cell.source[:60]!r}"
            assert "attachments" not in cell, f"{path.name}: a picture is stored in a cell of text"
