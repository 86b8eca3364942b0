"""Runs a session over buffers that are kept: nothing is allocated on the device while requests come.

Used on CUDA alone, where allocating and copying through pageable memory costs more than small networks do. A batch is
padded to the next of a few sizes, so that the device also sees no more than seven shapes. Knows nothing of latents.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Bound:
    """An InferenceSession with its inputs and output bound to buffers of each bucket's size.

    Args:
        session: an onnxruntime.InferenceSession.
        inputs: dtype and shape of one row of each input.
        output: name, dtype and shape of one row of the output.
        device: where the buffers lie: "cuda", or "cpu" to prove the same on a machine without one.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401 onnxruntime publishes no types
        inputs: Mapping[str, tuple[type, Sequence[int]]],
        output: tuple[str, type, Sequence[int]],
        *,
        device: str,
    ) -> None:
        self._session = session
        self._inputs = inputs
        self._output = output
        self._device = device
        self._buffers: dict[int, _Buffers] = {}
        self._lock = threading.Lock()  # one batch at a time: its buffers are everybody's

    def run(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The output for a feed of N rows; longer ones than the largest bucket go in parts.

        Args:
            feed: [N, ...] for each input, contiguous, N >= 1.

        Returns:
            [N, ...], the caller's own.
        """
        count = len(next(iter(feed.values())))
        largest = BUCKETS[-1]
        parts = [
            self._run({name: rows[start : start + largest] for name, rows in feed.items()}, min(largest, count - start))
            for start in range(0, count, largest)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, feed: Mapping[str, NDArray[Any]], count: int) -> NDArray[Any]:
        bucket = next(size for size in BUCKETS if size >= count)
        rows = np.minimum(np.arange(bucket), count - 1)  # padded with its own last row
        with self._lock:
            buffers = self._buffers.get(bucket)
            if buffers is None:
                buffers = self._buffers[bucket] = _Buffers(self, bucket)
            for name, value in buffers.inputs.items():
                value.update_inplace(feed[name] if bucket == count else feed[name][rows])
            self._session.run_with_iobinding(buffers.binding)
            samples: NDArray[Any] = buffers.output.numpy()
            return samples[:count].copy()  # on the CPU, numpy() is a view of the buffer


class _Buffers:
    """Of one bucket."""

    def __init__(self, bound: Bound, bucket: int) -> None:
        import onnxruntime

        def buffer(dtype: type, shape: Sequence[int]) -> Any:  # noqa: ANN401 as above
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type([bucket, *shape], dtype, bound._device)

        self.binding = bound._session.io_binding()
        self.inputs = {name: buffer(dtype, shape) for name, (dtype, shape) in bound._inputs.items()}
        for name, value in self.inputs.items():
            self.binding.bind_ortvalue_input(name, value)
        name, dtype, shape = bound._output
        self.output = buffer(dtype, shape)
        self.binding.bind_ortvalue_output(name, self.output)
