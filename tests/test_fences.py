"""Walls that no import contract can state: parts of ray, forbidden names and loaders, what loads what."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "raypath"
MODULES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "base", "core", "manager"}
HOMES = {"ray.data": ("data/",), "ray.train": ("training/", "protocols/"), "ray.tune": ("sweep/", "study/")}


def names_in(tree: ast.AST) -> set[str]:
    """Dotted names that a module imports or reaches as attributes of what it imported: ray.data, ray.tune.Callback, ..."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found


@pytest.mark.parametrize("part", HOMES)
def test_each_part_of_ray_is_used_in_its_own_folders_only(part):
    users = [m for m, tree in MODULES.items() if any(n == part or n.startswith(f"{part}.") for n in names_in(tree))]
    assert users, f"nobody uses {part}: this test looks at the wrong thing"
    assert [module for module in users if not module.startswith(HOMES[part])] == []


def test_no_module_is_called_after_nothing():
    parts = {part.removesuffix(".py") for module in MODULES for part in module.split("/")}
    assert parts & FORBIDDEN_NAMES == set()


def test_every_module_begins_with_what_it_is():
    assert [module for module, tree in MODULES.items() if not ast.get_docstring(tree)] == []


LIGHT = {
    "raypath.slides": ("torch", "ray", "mlflow", "albumentations"),
    "raypath.objectives": ("ray", "mlflow", "pydantic"),
    "raypath.models": ("ray", "mlflow", "pydantic"),
    "raypath.training.loop": ("ray", "mlflow", "pydantic"),
    "raypath.training.optim": ("ray", "mlflow", "pydantic"),
}


@pytest.mark.parametrize("light", ["raypath.slides", "the bare GPU floors"])
def test_what_must_stay_light_loads_nothing_heavy(light):
    """In a process of its own; the bare GPU floors together, because each loads torch."""
    modules = ["raypath.slides"] if light == "raypath.slides" else [m for m in LIGHT if m != "raypath.slides"]
    absent = LIGHT[modules[0]]
    assert all(LIGHT[module] == absent for module in modules)
    code = f"import sys, {', '.join(modules)}; print(*[m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def tracked_files() -> list[Path]:
    """What git tracks; without git (a machine with Python and nothing else), what a source archive holds."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        made = {".venv", "runs", "mlartifacts", "__pycache__"}
        paths = [p for p in ROOT.rglob("*") if p.is_file() and not made & set(p.relative_to(ROOT).parts)]
        return [p for p in paths if not any(part.endswith(("_cache", ".egg-info")) for part in p.parts)]
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_package_registry():
    """Where packages come from is the business of the machine (pip's own settings), never of the project."""
    hosts = r"(pypi|pythonhosted|anaconda|pytorch)\.org"
    registry = re.compile(
        rf"--(extra-)?index-url|--find-links|(files|download|conda|repo)\.{hosts}|//{hosts}/(simple|whl)"
    )
    files = tracked_files()
    assert len(files) > 50
    this = Path(__file__)
    found = [str(p) for p in files if p != this and registry.search(p.read_text(encoding="utf-8", errors="replace"))]
    assert found == []


FORBIDDEN_LOADERS = {
    "a pickle": re.compile(r"\bpickle\.loads?\(|\bUnpickler\("),
    "a checkpoint that may hold a pickle": re.compile(
        r"weights_only\s*=\s*False|\btorch\.load\((?!.*weights_only=True)"
    ),
    "YAML that may hold code": re.compile(r"\byaml\.(load|unsafe_load|full_load)\("),
    "a shell": re.compile(r"shell\s*=\s*True|\bos\.system\("),
    "numpy objects": re.compile(r"allow_pickle\s*=\s*True"),
    "text as code": re.compile(r"(?<![.\w])(eval|exec)\("),
}


@pytest.mark.parametrize("what", FORBIDDEN_LOADERS)
def test_nothing_loads(what):
    code = [*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    assert len(code) > 50
    assert [str(path) for path in code if FORBIDDEN_LOADERS[what].search(path.read_text())] == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("a pickle", "x = pickle.load(file)"),
        ("a checkpoint that may hold a pickle", "torch.load(path)"),
        ("YAML that may hold code", "yaml.load(text)"),
        ("a shell", "run('ls', shell=True)"),
        ("numpy objects", "np.load(path, allow_pickle=True)"),
        ("text as code", "eval(text)"),
    ],
)
def test_the_search_for_loaders_finds_them(what, line):
    assert FORBIDDEN_LOADERS[what].search(line)
    assert not FORBIDDEN_LOADERS[what].search("encoder.eval(); json.loads(text); torch.load(p, weights_only=True)")
