"""Make an index, at a desk or as a Ray job: `python experiments/index.py MANIFEST out=DIR [key=value ...]`.

The same job as `raypath index`; the keys are the fields of `IndexSettings`: out, extent_px, mpp, stride_px, min_tissue,
max_upsample, max_bad_share. As a Ray job MANIFEST, the slides and DIR must be where every node can reach them:

    ray job submit --working-dir . -- python experiments/index.py /shared/manifest.csv out=/shared/index mpp=0.39 extent_px=512
"""

import sys
from pathlib import Path

from launch import console, run, start_ray

from raypath.config import override
from raypath.errors import BadInput
from raypath.index_job import IndexSettings, index_manifest


def index(arguments: list[str]) -> None:
    """Index the manifest that the arguments name."""
    names = [a for a in arguments if "=" not in a]
    if len(names) != 1 or not any(a.startswith("out=") for a in arguments):
        raise BadInput("expected: python experiments/index.py MANIFEST out=DIR [key=value ...]")
    settings = override(IndexSettings(out=""), [a for a in arguments if "=" in a])
    index_manifest(Path(names[0]), settings, console, start_ray)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
    else:
        run(index)
