"""Ray Data without its chatter: jobs here show their own progress, in the words of the person who waits.

One decision: only below warnings and only while inside; its errors come through.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_ray_data() -> Iterator[None]:
    """While inside, Ray Data reports errors only, and not that its progress bars are off and a job has ended."""
    log = logging.getLogger("ray.data")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
