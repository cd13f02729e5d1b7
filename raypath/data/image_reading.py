"""Reading the labelled images of a pool, in the order of its plan: the counterpart of `reading` for images.

One decision: an image that cannot be read is replaced at its position by another of the same task that the plan names, and the row
says why; so positions never shift, no task gets fewer draws than the plan gave it, and every replacement is on record. A record
from an earlier attempt of the same run decides without trying again. The label of a row is that of the image that was read:
a substitute brings its own.

Costs one file and one decoding per position (about 1 ms up to 224 px, 5 ms for 775 x 522): images have no neighbours to share it.
"""

from collections.abc import Mapping

import numpy as np

from raypath.data.image_files import UNREADABLE, read_image
from raypath.data.pool import Pool
from raypath.data.task_plan import TaskPlan
from raypath.errors import TILE_FAULTS, BadInput, ImageUnreadable

_NUM_SUBSTITUTES = 32
_FAULT = TILE_FAULTS.index(ImageUnreadable)


class ImageReader:
    """Reads images of one pool in the order of one plan, as squares of one extent.

    `known_faults` maps a position to the number of its fault. An image that is not square gives the square that the plan draws for
    the position (the second paper's random square crop, RECIPES 2.3), resized with antialiasing.
    """

    def __init__(self, pool: Pool, plan: TaskPlan, known_faults: Mapping[int, int], extent_px: int):
        self.pool = pool
        self.plan = plan
        self.known_faults = known_faults
        self.extent_px = extent_px

    def read(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """`image` uint8 [N, H, H, 3]; `position`, `slide`, `tile`, `task`, `label` int64 [N]; `fault` int8 [N] (in TILE_FAULTS).

        `slide` and `tile` are the plan's task and image also where another image was put in its place (fault above 0); `task` and
        `label` belong to the pixels.
        """
        tasks, planned = self.plan.samples(positions)
        places = self.plan.places(positions)
        images, read = np.empty((len(positions), self.extent_px, self.extent_px, 3), np.uint8), planned.copy()
        faults = np.array([self.known_faults.get(position, 0) for position in positions.tolist()], np.int8)
        for row, position in enumerate(positions.tolist()):
            if not faults[row]:
                try:
                    images[row] = self._pixels(tasks[row], planned[row], places[row])
                    continue
                except UNREADABLE:
                    faults[row] = _FAULT
            images[row], read[row] = self._substitute(position, places[row])
        rows = {"image": images, "position": positions, "slide": tasks, "tile": planned}
        return rows | {"task": tasks.copy(), "label": self.pool.labels_of(tasks, read), "fault": faults}

    def _pixels(self, task: int, image: int, place: float) -> np.ndarray:
        return read_image(self.pool.tasks[task].paths[image], self.extent_px, place)

    def _substitute(self, position: int, place: float) -> tuple[np.ndarray, int]:
        tasks, images = self.plan.substitutes(position, _NUM_SUBSTITUTES)
        for task, image in zip(tasks, images):
            try:
                return self._pixels(task, image, place), image
            except UNREADABLE as error:
                last = error
        raise BadInput(
            f"{self.pool.folder}: task {self.pool.tasks[tasks[0]].name}: {_NUM_SUBSTITUTES} images in a row cannot be read, nothing"
            f" can stand at position {position}; the last one: {self.pool.tasks[tasks[-1]].paths[images[-1]]} ({last})"
        )
