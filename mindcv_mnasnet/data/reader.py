"""Images read and decoded ahead by threads, in an order that is given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from mindcv_mnasnet.data.decoder import Decoder
from mindcv_mnasnet.data.images import BadImage
from mindcv_mnasnet.data.index import ImageIndex
from mindcv_mnasnet.errors import JobError

_LEAST_READERS = 8  # threads that read and decode; more than cores, for file systems that answer slowly
_READ_AHEAD = 4  # images per thread

# One pass over the data on this rank: image_index indices, -1 being padding, and a decoder for each.
Pass = Callable[[], tuple[np.ndarray, Iterator[Decoder]]]


class Reader:
    """Iterable for GeneratorDataset: (pixels, label) in the order of ``passes``, read and decoded ahead by threads."""

    def __init__(
        self, image_index: ImageIndex, passes: list[Pass], length: int, skip: bool, workers: int, refill: bool
    ):
        self._image_index = image_index
        self.broken: dict[int, str] = {}
        self.failure: JobError | None = None
        self.closed = False
        self._passes = passes
        self._length = length * len(passes)
        self._skip = skip
        self._threads = max(workers, _LEAST_READERS)
        self._refill = refill

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.failure = None
        try:
            yield from self._read_ahead()
        except (BadImage, JobError) as error:
            self.failure = _broken(error, self._image_index) if isinstance(error, BadImage) else error
            raise self.failure from None

    def _places(self) -> Iterator[tuple[np.ndarray, int, Decoder]]:
        for one in self._passes:
            order, decoders = one()
            for at, decode in zip(range(len(order)), decoders, strict=False):
                yield order, at, decode

    def _read_ahead(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        places = self._places()
        with ThreadPoolExecutor(self._threads, "read-image") as pool:
            pending: deque[Future[tuple[np.ndarray, np.ndarray]]] = deque()
            pending.extend(pool.submit(self._fetch, *one) for one in islice(places, _READ_AHEAD * self._threads))
            while pending and not self.closed:
                yield pending.popleft().result()
                pending.extend(pool.submit(self._fetch, *one) for one in islice(places, 1))

    def _fetch(self, order: np.ndarray, at: int, decode: Decoder) -> tuple[np.ndarray, np.ndarray]:
        """The image at a place of an order, or in training the next good one."""
        for turn in range(len(order)):
            index = int(order[(at + turn) % len(order)])
            if index < 0:
                break
            try:
                images = self._image_index
                return decode(images.read(index), images.name(index), images.labels[index])
            except BadImage as error:
                if not self._skip:
                    raise
                self.broken[index] = str(error)
                if not self._refill:
                    break
        else:
            raise BadImage(self._image_index.root, "not one of its images can be read")
        return np.zeros((8, 8, 3), np.uint8), np.full_like(self._image_index.labels[0], -1)


def _broken(error: BadImage, image_index: ImageIndex) -> JobError:
    if image_index.kind == "mindrecord":
        return JobError(f"{error}; the pack {image_index.root} is damaged, make it again with tools/pack_dataset.py")
    return JobError(
        f"{error}; python tools/check_dataset.py {image_index.root} lists all broken images, "
        "--on_bad_image skip goes on without them"
    )
