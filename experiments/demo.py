"""The demo: does pretraining help on a small benchmark? Answered in a few minutes on two cores, with every part real.

    python experiments/demo.py [seed=0] [texture=false] [key=value of the pretraining ...]

Phantom slides -> index -> SimCLR on Ray Data and Ray Train -> a Ray Tune sweep for the pretrained and for a random encoder -> the
test, opened once for each -> a table, `runs/demo/summary.json` and `runs/demo/report.html`. With texture=false the phantoms carry
no cue, and nobody should win.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import launch
from command_line import pick_flag
from launch import say
from phantom_data import demo_slides, phantom_index
from pretrain import pretrain_run
from recipes import PRETRAINING
from recipes.demo import demo_transfer
from results import Scored, difference_of, show_table
from scoring import status_of, text_of
from transfers import compare

from raypath.benchmarks import Benchmark, score
from raypath.config import config_hash, override, to_dict
from raypath.data.index import Index
from raypath.data.preview import contact_sheet, preview_slide
from raypath.data.reading import WindowReader
from raypath.data.view_sheet import view_sheet
from raypath.run_folder import RunFolder, runs_root
from raypath.study.figures import confusion_figure, loss_figure, score_figure
from raypath.study.report import Report
from raypath.training.settings import PretrainConfig, make_plan

LABELS = ("pretrained", "random", "colour")


def main(arguments: list[str]) -> None:
    """Run the demo from slides to report."""
    started = time.monotonic()
    if "-h" in arguments or "--help" in arguments:
        say(__doc__)
        return
    texture, assignments = pick_flag(arguments, "texture", default=True)
    home = runs_root() / "demo"
    config = override(PRETRAINING["demo"](), assignments)

    manifest = demo_slides(config.seed, texture=texture)
    launch.start_ray()
    tracker = launch.start_tracking()
    config = replace(config, index=str(phantom_index(manifest)))
    took = {"slides_and_index_s": time.monotonic() - started}

    study = tracker.start_run(f"demo {time.strftime('%Y-%m-%d %H:%M')}", tags={"study": "demo", "seed": config.seed})
    status = "FAILED"
    try:
        pretraining = RunFolder.create(runs_root(), "demo", config)
        pretrain_run(config, pretraining, tracker, parent=study, study="demo")
        took["pretraining_s"] = time.monotonic() - started - sum(took.values())
        results, benchmark = score_encoders(config, pretraining, manifest.parent, tracker, study)
        took["sweeps_and_tests_s"] = time.monotonic() - started - sum(took.values())
        tracker.log_metrics(study, differences_of(results, benchmark))
        status = "FINISHED"
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        tracker.end_run(study, status)

    report = write_report(home / "report.html", config, pretraining, results, benchmark)
    took["total_s"] = time.monotonic() - started
    summary = summary_of(config, pretraining, results, benchmark, took, texture)
    (home / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    tracker.log_artifact(study, report)
    show_table(results, benchmark)
    say(verdict(results, benchmark))
    say(f"\npictures and report  {report}\nnumbers              {home / 'summary.json'}\nruns in MLflow       make ui")
    say(f"{took['total_s']:.0f} s in all")


def score_encoders(config: PretrainConfig, pretraining: RunFolder, phantoms: Path, tracker, study: str):
    """(results, benchmark): the pretrained encoder, the same with random weights, and colour."""
    transfer = demo_transfer()
    transfer = replace(transfer, seed=config.seed, benchmark=replace(transfer.benchmark, path=str(phantoms)))
    sources = [str(pretraining.path), f"random:{pretraining.path}", "colour"]
    transfer = replace(transfer, encoder=",".join(sources))
    benchmark = transfer.benchmark.load(transfer.seed)
    run = RunFolder.create(runs_root(), "demo-sweep", transfer)
    # A demo is a study of its own: its ledger of opened tests lies in its folder.
    results = compare(
        transfer, sources, benchmark, run, tracker, labels=list(LABELS), study="demo", parent=study, ledger=run.path
    )
    return results, benchmark


def verdict(results: list[Scored], benchmark: Benchmark) -> str:
    """The answer in words, with numbers."""
    pretrained, random, colour = results
    to_random, to_colour = (difference_of(pretrained, other, benchmark) for other in (random, colour))
    patients = f"{to_random.num_patients} patients, one pretraining"
    if to_random.is_clear and to_random.estimate > 0 and to_colour.is_clear and to_colour.estimate > 0:
        return (
            f"Pretraining helps here: better than random weights by {100 * to_random.estimate:.1f} points"
            f" [{100 * to_random.low:.1f}, {100 * to_random.high:.1f}] and than colour by {100 * to_colour.estimate:.1f}"
            f" [{100 * to_colour.low:.1f}, {100 * to_colour.high:.1f}] ({benchmark.primary}, {patients})."
        )
    return (
        f"Not separable: pretrained minus random {text_of(to_random, signed=True)}, pretrained minus colour"
        f" {text_of(to_colour, signed=True)} ({benchmark.primary}, {patients})."
    )


def differences_of(results: list[Scored], benchmark: Benchmark) -> dict[str, float]:
    """Pretrained minus each of the others, with the ends of the interval, named for MLflow."""
    numbers = {}
    for name, result in zip(LABELS[1:], results[1:]):
        difference = difference_of(results[0], result, benchmark)
        for end in ("estimate", "low", "high"):
            numbers[f"pretrained_minus_{name}_{end}"] = getattr(difference, end)
    return numbers


def summary_of(config, pretraining, results: list[Scored], benchmark: Benchmark, took, texture: bool) -> dict:
    """The numbers, for machines."""
    first, metric = results[0], benchmark.primary
    names = LABELS
    return {
        "seed": config.seed,
        "texture": texture,
        "metric": metric,
        "chance": 1 / len(benchmark.classes),
        "num_test": first.interval.num_samples,
        "num_test_patients": first.interval.num_patients,
        "scores": {
            name: {
                "val": score(r.val)[metric],
                "test": r.interval.estimate,
                "low": r.interval.low,
                "high": r.interval.high,
                "how": r.how,
            }
            for name, r in zip(names, results)
        },
        "differences": {
            f"pretrained_minus_{name}": {"estimate": d.estimate, "low": d.low, "high": d.high}
            for name, d in ((n, difference_of(first, r, benchmark)) for n, r in zip(names[1:], results[1:]))
        },
        "run": str(pretraining.path),
        "seconds": {name: round(value, 1) for name, value in took.items()},
    }


def write_report(path: Path, config, pretraining: RunFolder, results: list[Scored], benchmark: Benchmark) -> Path:
    """The report of the demo, with pictures from the very data it used."""
    index, metric = Index(Path(config.index)), benchmark.primary
    first = results[0]
    rows = [
        (
            result.encoder,
            f"{score(result.val)[metric]:.3f}",
            text_of(result.interval),
            "" if result is first else text_of(difference_of(first, result, benchmark), signed=True),
            result.how,
        )
        for result in results
    ]
    return Report(
        title="raypath demo",
        question="Does pretraining on unlabelled slides help a small encoder on a benchmark with about 20 labels per class?",
        verdict=verdict(results, benchmark),
        columns=(
            "encoder",
            f"val {metric}",
            "test [95 % by patient]",
            "pretrained minus it [95 %]",
            "how it was reached",
        ),
        rows=rows,
        notes=[
            benchmark.split_note,
            "Selection on val only; the test was opened once for each encoder. The slides are synthetic (phantoms): their classes"
            " differ in texture and not in colour, so colour alone should be at chance.",
        ],
        pictures=pictures_of(config, pretraining, results, benchmark, index),
        lineage={
            "pretraining": str(pretraining.path),
            "config hash": config_hash(config),
            "index hash": index.hash,
            "benchmark hash": benchmark.data_hash,
            "seed": str(config.seed),
            "config": json.dumps(to_dict(config)),
            "repeat": f"python experiments/demo.py seed={config.seed}",
        },
    ).write(path)


def pictures_of(
    config, pretraining: RunFolder, results: list[Scored], benchmark: Benchmark, index: Index
) -> list[tuple]:
    """(title, caption, picture) from the very data the demo used."""
    plan, chance = make_plan(config, index), 1 / len(benchmark.classes)
    intervals = [(r.encoder, r.interval.estimate, r.interval.low, r.interval.high) for r in results]
    views = view_sheet(WindowReader(index, plan, {}), config.views, seed=config.seed)
    return [
        (
            "Scores",
            f"{benchmark.primary} on tiles of unseen patients.",
            score_figure(intervals, benchmark.primary, chance),
        ),
        ("Pretraining loss", "NT-Xent over the global batch, by step.", loss_figure(pretraining.metrics)),
        ("A slide", "Tissue outline and the tiles that were kept.", preview_slide(index, 0)),
        ("Tiles", "Drawn evenly from all slides.", contact_sheet(index, num_tiles=48, seed=config.seed)),
        ("Views", "A tile (top row) and what the encoder is trained on.", views),
        ("Confusion", f"{results[0].encoder} on test.", confusion_figure(results[0].test, "pretrained, test")),
    ]


if __name__ == "__main__":
    launch.run(main)
