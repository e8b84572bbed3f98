"""Many threads that do the same at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Each = TypeVar("Each")


def at_once(do: Callable[[Each], Any], each: Sequence[Each]) -> list[Any]:
    """What each of as many threads gets, in their order; an exception where it raises one."""
    barrier = threading.Barrier(len(each))

    def run(one: Each) -> Any:
        barrier.wait()
        try:
            return do(one)
        except Exception as error:  # noqa: BLE001 - it is the result
            return error

    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(run, each))
