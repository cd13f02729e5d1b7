"""Compare encoders on a labelled set: fine-tuned with the same search for each, or frozen.

    python experiments/sweep.py BENCHMARK [PROTOCOL] --encoder runs/ID,random,colour [key=value ...]

    python experiments/sweep.py ../data/my_set --encoder runs/ID,random,colour
    python experiments/sweep.py ../data/my_set mormont_finetune --encoder runs/ID,random    a paper's grid; --list prints all
    python experiments/sweep.py ../data/my_set probe --encoder runs/ID,random,random_bn,colour,file
    python experiments/sweep.py bach --encoder runs/ID benchmark.path=../data/bach          a kind of benchmark by its name
    python experiments/sweep.py ../data/my_set --encoder runs/ID sweep.search=grid 'sweep.space={"protocol.lr":[0.001,0.0003]}'
    python experiments/sweep.py resume=runs/ID

BENCHMARK is a folder or a manifest (what it is, is recognised as by `raypath audit`), or a kind of benchmark; `--key value` is
key=value. Without a protocol a benchmark is fine-tuned, or, where its pixels have classes, segmented.

The same trials for every encoder, selection on val; the test is opened once for each winner (reopen=true to do it again: counted).
Frozen protocols (probe, knn, svm) have no trials. A small set is scored by nested folds (evaluation=given|nested, num_folds,
num_repeats): all of that in each outer fold, every sample tested once in each repeat.
"""

from dataclasses import replace

import launch
from command_line import pick, pick_flag
from entrants import expand_encoders
from launch import say
from recipes.transfers import TRANSFERS
from results import show_table
from scoring import status_of
from transfer_words import DEFAULT, SEGMENTATION_DEFAULT, asked_for
from transfers import compare

from raypath.benchmarks import Benchmark
from raypath.config import config_hash, to_dict
from raypath.errors import BadInput, Preempted
from raypath.protocols.encoders import encoder_id
from raypath.protocols.transfer import TransferConfig
from raypath.run_folder import RunFolder, runs_root


def main(arguments: list[str]) -> None:
    """Start a comparison, or go on with one."""
    if not arguments or "-h" in arguments or "--help" in arguments:
        say(__doc__)
        return
    if "--list" in arguments:
        launch.list_recipes(TRANSFERS)
        return
    resume, assignments = pick(arguments, "resume")
    reopen, assignments = pick_flag(assignments, "reopen")
    if resume:
        run = RunFolder.open(resume)
        config = run.config(TransferConfig)
        if assignments:
            raise BadInput(
                f"{' '.join(assignments)}: a resumed sweep goes on as it was; start a new one for other settings"
            )
    else:
        asked = asked_for(assignments)
        config = asked.config(DEFAULT, SEGMENTATION_DEFAULT)  # the benchmark will say which
        config = replace(config, encoder=",".join(expand_encoders(config.encoder)))
    for source in config.encoder.split(","):
        encoder_id(source, seed=config.seed)  # is there such an encoder? before anything is made
    benchmark = config.benchmark.load(config.seed)
    if resume:
        check_same_data(run, benchmark)
    else:
        config = asked.suited(config, benchmark)
    launch.start_ray()
    if not resume:
        run = RunFolder.create(runs_root(), f"sweep-{benchmark.name}", config)
        run.write("run.json", {"data_hash": benchmark.data_hash})
    tracker = launch.start_tracking()
    known = run.read("run.json")
    tags = {
        "benchmark": benchmark.name,
        "protocol": config.protocol.kind,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "data_hash": benchmark.data_hash,
    }
    parent = tracker.start_run(run.id, tags=tags, params=to_dict(config), resume=known.get("mlflow_run_id"))
    run.write("run.json", known | {"mlflow_run_id": parent, "mlflow_uri": tracker.place})
    status = "FAILED"
    try:
        results = compare(
            config,
            config.encoder.split(","),
            benchmark,
            run,
            tracker,
            parent=parent,
            ledger=runs_root(),
            reopen=reopen,
            resume=bool(resume),
        )
        status = "FINISHED"
    except (KeyboardInterrupt, Preempted):
        status = "KILLED"
        raise Preempted(
            f"interrupted; what is finished is kept: go on with python experiments/sweep.py --resume {run.path}"
        ) from None
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        tracker.end_run(parent, status)
    show_table(results, benchmark)
    say(f"run {run.path}\nlook at it: make ui  (MLflow: {tracker.place})")


def check_same_data(run: RunFolder, benchmark: Benchmark) -> None:
    """Raise BadInput for a run that is no comparison, and for one whose data or split are no longer what they were."""
    begun_on = run.read("run.json").get("data_hash")
    if begun_on is None:
        raise BadInput(f"resume={run.path}: no comparison that experiments/sweep.py has begun; start a new one")
    if begun_on != benchmark.data_hash:
        raise BadInput(
            f"resume={run.path}: {benchmark.name} is not what it was when this was begun (data hash {begun_on[:12]}, now"
            f" {benchmark.data_hash[:12]}), and encoders would be compared on two sets: bring back the images, labels and split of"
            " then, or start a new one"
        )


if __name__ == "__main__":
    launch.run(main)
