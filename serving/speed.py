"""How long an engine takes for a batch, learned from those that it ran. Pure: knows no clock, threads or networks.

The model is a line, seconds(images) = overhead + per_image * images, by exponentially weighted least squares of
relative errors. Two weak pseudo-observations keep the line's shape where all batches have one size, and what is far
from the expectation counts as twice it or half of it, so that a stall moves the line by a few percent and a machine
that really became slower is followed within some tens of batches.
"""

import math

MEMORY = 0.95  # weight that an observation keeps at each later one: the last twenty count
ANCHORS = (1, 8)  # images of the pseudo-observations
ANCHOR_WEIGHT = 0.05
OUTLIER = 2.0  # an observation counts as at most so many times the expectation, and at least its inverse
DOUBT = 0.9
MOST_DOUBT = 1 / 64  # of what was measured; below that, work is refused for being impossible
FLATTEST = 1e-4  # least cost of an image, as a share of a batch's: a GPU's line may be nearly flat

CHUNK_SINGLES = 2.0  # a chunk takes at most the time of so many single images
CHUNK_SECONDS = 0.005  # or this, whichever is more
BATCH_SECONDS = 0.04  # or this, of a batch that nobody long waits beside: another model's images wait for it

ASSUMED_OVERHEAD_SECONDS = 0.0002
ASSUMED_SECONDS_PER_IMAGE = 0.002


class Speed:
    """The time of a network's batches on one engine.

    Args:
        overhead: seconds of a batch whatever its size, as measured before; None (with `per_image`) for an assumption
            that the first batch replaces.
        per_image: seconds of each image.

    Attributes:
        overhead: as it is known now, >= 0.
        per_image: as it is known now, > 0.
        chunk: most images that take at most max(2 single images' time, 5 ms); at least 1.
        most: likewise of 40 ms.
    """

    def __init__(self, overhead: float | None = None, per_image: float | None = None) -> None:
        self._assumed = overhead is None or per_image is None
        self.overhead = max(0.0, ASSUMED_OVERHEAD_SECONDS if overhead is None else overhead)
        self.per_image = ASSUMED_SECONDS_PER_IMAGE if per_image is None else max(per_image, 1e-9)
        self._ratio_sum = self._ratio_weight = 1.0
        self._sums: list[float] = []
        self._shape = (self.overhead, self.per_image)
        self._measured: tuple[float, float] | None = None  # the line before it was doubted
        self._forget()

    @classmethod
    def measured(cls, one_seconds: float, many: int, many_seconds: float) -> "Speed":
        """From the times of a batch of 1 and a batch of `many` (> 1), both > 0; the line is bent to make sense."""
        per_image = (many_seconds - one_seconds) / (many - 1)
        if per_image <= 0:  # flat, or noise
            return cls(one_seconds, many_seconds / many * FLATTEST)
        if per_image > one_seconds:  # noise
            return cls(0.0, many_seconds / many)
        return cls(one_seconds - per_image, per_image)

    def seconds(self, images: int) -> float:
        """Expected time of a batch."""
        return self.overhead + self.per_image * images

    def fastest(self, images: int, engines: int, max_batch_images: int) -> float:
        """Expected time of so many images on all engines, in chunks of at most `max_batch_images`."""
        if images == 1:
            return self.overhead + self.per_image
        share = -(-images // engines)
        full = min(self.chunk, max_batch_images)
        whole, rest = divmod(share, full)
        return whole * self.seconds(full) + (self.seconds(rest) if rest else 0.0)

    def observe(self, images: int, seconds: float) -> None:
        """A batch of `images` (>= 1) took `seconds` (> 0)."""
        if self._assumed:  # what was assumed says something about the shape, and nothing about the scale
            self._scale(seconds / self.seconds(images))
            self._assumed, self._measured = False, None
            self._forget()
            return
        expected = self.seconds(images)
        if self._measured is not None and seconds > OUTLIER * expected:  # there was nothing to doubt
            self.overhead, self.per_image = self._measured
            self._forget()
            expected = self.seconds(images)
        self._measured = None
        seconds = min(max(seconds, expected / OUTLIER), expected * OUTLIER)
        usual = self._shape[0] + self._shape[1] * images
        self._ratio_sum = MEMORY * self._ratio_sum + seconds / usual
        self._ratio_weight = MEMORY * self._ratio_weight + 1.0
        weight = 1.0 / (usual * usual)  # errors are proportional to the time
        terms = (1.0, images, images * images, seconds, images * seconds)
        self._sums = [MEMORY * kept + weight * term for kept, term in zip(self._sums, terms, strict=True)]
        self._fit()

    def doubt(self, share: float) -> None:
        """Expect a little less: work was refused for being too slow while nothing ran that could have told.

        Only where enough doubt would let it run: what needs less than 1/64 of the measured time is refused for good, so
        that no number of such requests makes anybody believe in an engine without end. Chunks stay as they were
        measured, and the next batch that is as slow as it ever was brings the whole line back.

        Args:
            share: of the time that is expected now, which the work was allowed; below 1.
        """
        measured = self._measured or (self.overhead, self.per_image)
        doubted = (self.overhead + self.per_image) / (measured[0] + measured[1])
        if doubted * min(share, DOUBT) < MOST_DOUBT:
            return
        self._measured = measured
        self._scale(DOUBT)
        self._restart()

    def _forget(self) -> None:
        """Begin again from the line as it is."""
        self._restart()
        self._chunk()

    def _restart(self) -> None:
        self._shape = (self.overhead, self.per_image)
        self._ratio_sum, self._ratio_weight = 1.0, 1.0
        self._sums = [0.0] * 5  # weighted sums of 1, n, n^2, t and n t

    def _scale(self, by: float) -> None:
        self.overhead *= by
        self.per_image *= by

    def _fit(self) -> None:
        one, n, nn, t, nt = self._sums
        scale = self._ratio_sum / self._ratio_weight
        for images in ANCHORS:
            usual = self._shape[0] + self._shape[1] * images
            seconds, weight = scale * usual, ANCHOR_WEIGHT / (usual * usual)
            one, n, nn = one + weight, n + weight * images, nn + weight * images * images
            t, nt = t + weight * seconds, nt + weight * images * seconds
        per_image = (one * nt - n * t) / (one * nn - n * n)  # the anchors keep the divisor away from 0
        overhead = (t - per_image * n) / one
        if overhead < 0:
            overhead, per_image = 0.0, nt / nn
        least = FLATTEST * t / one
        if per_image < least:
            overhead, per_image = t / one, least
        self.overhead, self.per_image = overhead, per_image
        self._chunk()

    def _chunk(self) -> None:
        self.chunk, self.most = self._within(CHUNK_SECONDS), self._within(BATCH_SECONDS)

    def _within(self, seconds: float) -> int:
        """Images of a batch of so many seconds, or of two single images' time, whichever is more."""
        bound = max(CHUNK_SINGLES * self.seconds(1), seconds)
        return max(1, math.floor((bound - self.overhead) / self.per_image + 1e-9))
