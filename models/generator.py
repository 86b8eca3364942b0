"""Runs a published ONNX generator: z in, samples out. Knows nothing of requests, seeds, repositories or judging."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from models.binding import Bound
from models.errors import GenserveError, Invalid, LoadError
from models.graph import external_tensors
from models.latents import ClassIndices, Latents, draw
from models.lowering import REVISION
from models.lowering import lower as lowered
from models.manifest import Signature, read_signature
from models.runtime import CPU_PROVIDER, CUDA_PROVIDER, Precision, available_providers, check_runtime, make_session

log = logging.getLogger(__name__)

Samples = NDArray[Any]  # uint8 [N, H, W, C] or float32 [N, d]

DTYPES: dict[str, type] = {"image": np.uint8, "vector": np.float32}
ONNX_TYPES = {"image": "tensor(uint8)", "vector": "tensor(float)"}


class Generator:
    """One ONNX Runtime session over one model.onnx. `generate` may be called from several threads at once.

    Attributes:
        signature: what decides the samples besides the weights.
        digest: sha256 of the file, 64 hexadecimal digits.
        providers: what the session really runs on, first preferred.
        batch: None where samples do not depend on the batch they run in; else every run is padded to this many
            (set by whoever checked the golden samples on this machine).
        arithmetic: what decides the rounding besides the file: runtime, provider, and the form of the graph.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401 onnxruntime publishes no types
        signature: Signature,
        digest: str,
        as_published: Callable[[], Any] | None = None,
    ) -> None:
        self._session = session
        self._as_published = as_published
        self.signature = signature
        self.digest = digest
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self.batch: int | None = None
        self.arithmetic = _arithmetic(self.providers[0], lowered=as_published is not None)
        self._bound = bind(session, signature, device="cuda") if self.providers[0] == CUDA_PROVIDER else None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        digest: str | None = None,
        providers: Sequence[str] = (CPU_PROVIDER,),
        threads: int = 1,
        precision: Precision = "f32",
        lower: bool = True,
    ) -> "Generator":
        """Open a model.onnx that carries its signature.

        Args:
            path: of the file; it is read once, and what was hashed is what runs.
            digest: sha256 that the file must have; None to accept any.
            providers: preference; see models.runtime.make_session.
            threads: intra-op threads.
            precision: of the computation; see models.runtime.make_session.
            lower: whether the processor may run the graph in a faster form; see models.lowering.

        Raises:
            LoadError: unreadable, another digest, external data, no signature, or inputs and outputs that differ from
                the signature's.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LoadError(f"cannot read {path}: {error.strerror}") from error
        return cls.from_bytes(
            data, digest=digest, providers=providers, threads=threads, precision=precision, lower=lower
        )

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        digest: str | None = None,
        providers: Sequence[str] = (CPU_PROVIDER,),
        threads: int = 1,
        precision: Precision = "f32",
        lower: bool = True,
    ) -> "Generator":
        """Like `open`, for the file's content."""
        actual = sha256(data)
        if digest is not None and actual != digest:
            raise LoadError(f"the file's sha256 is {actual[:12]}..., expected {digest[:12]}...")
        model, signature = _parsed(data)
        session = partial(make_session, providers=providers, threads=threads, precision=precision)
        preferred = next((name for name in providers if name in available_providers()), None)
        lower = lower and precision == "f32"
        fast = _fast_form(model) if lower and preferred == CPU_PROVIDER else None
        del model  # a large one
        opened = None if fast is None else _attempt(session, fast)
        as_published = None if opened is None else partial(session, data)
        if opened is None:
            try:
                opened = session(data)
            except GenserveError:
                raise
            except Exception as error:  # ONNX Runtime raises a dozen classes of its own, with no common base
                raise LoadError(f"ONNX Runtime refuses the file: {error}") from error
        if lower and preferred != CPU_PROVIDER == opened.get_providers()[0]:  # it stands in for what is missing here
            return cls.from_bytes(data, providers=(CPU_PROVIDER,), threads=threads)
        _check_ports(opened, signature)
        return cls(opened, signature, actual, as_published)

    def fall_back(self) -> bool:
        """Run the graph as it was published from now on; False where that is what runs."""
        if self._as_published is None:
            return False
        self._session, self._as_published = self._as_published(), None
        self.arithmetic = _arithmetic(self.providers[0], lowered=False)
        return True

    def settle(self) -> None:
        """Stay with the form that runs; let go of the file as it was published, and of memory for larger batches."""
        self._as_published = None
        if self.providers[0] == CPU_PROVIDER:
            import onnxruntime

            options = onnxruntime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            self._session.run([self.signature.output_name], self._feed(*draw(self.signature, [0])), options)

    def generate(self, z: Latents, class_idx: ClassIndices | None = None) -> Samples:
        """Run the network.

        Args:
            z: [N, z_dim] float32.
            class_idx: [N] int64 for a conditional generator, None for an unconditional one.

        Returns:
            uint8 [N, H, W, C] for images, float32 [N, d] for vectors.

        Raises:
            LoadError: the network's output is not what its signature promises.
        """
        count = len(z)
        if self.batch is None or count == 0:
            return self._run(z, class_idx)
        parts = []
        for start in range(0, count, self.batch):  # always the same shape: pad the last with its own repeats
            rows = np.minimum(np.arange(start, start + self.batch), count - 1)
            part = self._run(z[rows], None if class_idx is None else class_idx[rows])
            parts.append(part[: count - start])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, z: Latents, class_idx: ClassIndices | None) -> Samples:
        feed = self._feed(z, class_idx)
        if self._bound is not None and len(z):
            samples: Samples = self._bound.run(feed)
        else:
            samples = self._session.run([self.signature.output_name], feed)[0]
        expected = (len(z), *self.signature.shape)
        if samples.shape != expected:
            raise LoadError(f"the network answered shape {samples.shape}, its signature promises {expected}")
        return samples

    def _feed(self, z: Latents, class_idx: ClassIndices | None) -> dict[str, NDArray[Any]]:
        feed: dict[str, NDArray[Any]] = {"z": np.ascontiguousarray(z, np.float32)}
        if self.signature.classes is not None:
            if class_idx is None:
                raise Invalid("a conditional generator needs one class for each latent", field="class_idx")
            feed["class_idx"] = np.ascontiguousarray(class_idx, np.int64)
        return feed


def bind(session: Any, signature: Signature, *, device: str) -> Bound:  # noqa: ANN401 as above
    """A generator's session over buffers that are kept on a device."""
    inputs: dict[str, tuple[type, tuple[int, ...]]] = {"z": (np.float32, (signature.z_dim,))}
    if signature.classes is not None:
        inputs["class_idx"] = (np.int64, ())
    return Bound(session, inputs, (signature.output_name, DTYPES[signature.kind], signature.shape), device=device)


def sha256(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _arithmetic(provider: str, *, lowered: bool) -> str:
    """Where equal networks may round differently."""
    return f"{check_runtime()} {provider}" + (f" lowered {REVISION}" if lowered else "")


def _fast_form(model: onnx.ModelProto) -> bytes | None:
    """The graph in the form that is fastest on the processor; None where the file itself is, or has to be run."""
    try:
        faster = lowered(model)
    except Exception as error:  # whatever a rewriting stumbles over, the file can be served as it came
        log.warning("a generator runs in the form that it was published in: %r", error)
        return None
    return None if faster is model else bytes(faster.SerializeToString())


def _attempt(session: Callable[[bytes], Any], fast: bytes) -> Any | None:  # noqa: ANN401 onnxruntime publishes no types
    """A session over a faster form; None where ONNX Runtime refuses it."""
    try:
        return session(fast)
    except Exception as error:  # ONNX Runtime raises a dozen classes of its own, with no common base
        log.warning("a generator runs in the form that it was published in: %s", error)
        return None


def _parsed(data: bytes) -> tuple[onnx.ModelProto, Signature]:
    """An ONNX file and the signature in it, after the checks that must come before any runtime sees them."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError is no public name
        raise LoadError(f"not an ONNX file: {error}") from error
    if outside := external_tensors(model):
        raise LoadError(f"external data is refused (tensor {outside[0]!r}): store the weights inside the file")
    try:
        return model, read_signature({entry.key: entry.value for entry in model.metadata_props})
    except Invalid as error:
        raise LoadError(error.detail) from error


def _check_ports(session: Any, signature: Signature) -> None:  # noqa: ANN401 onnxruntime publishes no types
    """Compare the session's declared inputs and outputs with the signature."""
    wanted = {"z": ("tensor(float)", [signature.z_dim])}
    if signature.classes is not None:
        wanted["class_idx"] = ("tensor(int64)", [])
    declared = {port.name: (port.type, list(port.shape[1:])) for port in session.get_inputs()}
    if declared != wanted:
        raise LoadError(f"the file's inputs are {declared}, its signature promises {wanted}")
    if any(isinstance(port.shape[0], int) for port in session.get_inputs()):
        raise LoadError("the batch dimension is fixed: export with a dynamic batch")
    outputs = {port.name: port.type for port in session.get_outputs()}
    if outputs != {signature.output_name: ONNX_TYPES[signature.kind]}:
        raise LoadError(
            f"the file's outputs are {outputs}, its signature promises "
            f"{ {signature.output_name: ONNX_TYPES[signature.kind]} }"
        )
