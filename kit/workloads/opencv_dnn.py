"""Many images through one classifier in OpenCV: one by one, on threads, in processes, as a batch.

The experiment of a forum thread of 2023, in which a pool of processes took twice as long as a loop: four images, the
DNN module, and a classifier exported to ONNX. The intra-op threads that an approach gives its lanes are OpenCV's too.
"""

from __future__ import annotations

import importlib.util
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kit import clips, executors
from kit.approaches import Calls, ModelRunner, Workload
from kit.errors import TaskError, UnavailableError, WorkerError
from kit.executors import Task
from kit.executors.processes_cold import ProcessesCold
from kit.models import trained_two_stream
from kit.regions import Branches, Concat
from kit.reprs import one_line
from kit.spans import span
from kit.transforms import onnx_runtime
from kit.workloads.cold_pool import POOL_COLD
from kit.workloads.opencv_threads import match_opencv_threads

HEIGHT, WIDTH = 480, 640  # of the images


def make(items: int = 8) -> Workload:
    """``items`` images ``(480, 640, 3)`` in OpenCV's BGR, one input each, and every approach to classify them.

    Raises:
        UnavailableError: onnx and onnxscript, which the export needs, are not installed.
    """
    graph, images = exported(), pictures(items)

    def of(network: Callable[[int], nn.Module]) -> Calls:
        """A network that is made for a number of threads, in the calling thread."""

        def make(cores: int, *, threads: int | None = None) -> ModelRunner:
            count = threads or cores
            return ModelRunner(network(count), images, executors.Sequential(count), count)

        # Another runtime, or a batch, is not limited by what the loop's own network could gain from more lanes.
        return Calls(make, rewrites=True)

    return Workload(
        "opencv-dnn",
        each(OpenCV(graph), items),
        images,
        items,
        "images",
        f"{items} images of {WIDTH}x{HEIGHT}, BGR",
        {
            "pool_cold": POOL_COLD,
            "batch": of(lambda threads: OpenCV(graph)),
            "onnxruntime": of(lambda threads: each(OnnxRuntime(graph, threads), items)),
            "torch": of(lambda threads: each(Torch(), items)),
        },
    )


def sleep_control(naps: int, seconds: float, network: nn.Module | None = None) -> Workload:
    """The control of the thread: each item sleeps, and then goes through the network if there is one.

    What sleeps needs no core. So here only starting and handing out can cost time, and with a network contention.
    """
    about = f"{naps} sleeps of {seconds:g} s" + " and an inference" * (network is not None)
    model, own = each(Nap(seconds, network), naps), {"pool_cold": POOL_COLD}
    return Workload("sleep-control", model, pictures(naps), naps, "sleeps", about, own)


def each(network: nn.Module, n: int) -> Branches:
    """A region that runs the same network on each of ``n`` images."""
    return Branches({f"image {i}": network for i in range(n)}, Concat(0)).eval()


def pictures(n: int) -> tuple[Tensor, ...]:
    """Generated photographs of an object each, ``(480, 640, 3)`` uint8, in the BGR order of OpenCV."""
    names = clips.TEXTURES
    painted = (clips.labelled(names[i % len(names)], "left", 1, HEIGHT, WIDTH, seed=i).frames[0] for i in range(n))
    return tuple(torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])) for frame in painted)


def classifier() -> nn.Module:
    """The spatial stream of the trained two-stream network, ``(N, 3, H, W) -> (N, 45)``."""
    stream: nn.Module = trained_two_stream().streams.branches["spatial"]
    return stream


@cache
def exported(batch: int | None = None) -> bytes:
    """The classifier as an ONNX file, for any batch or for a fixed one.

    Raises:
        UnavailableError: onnx or onnxscript is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        command = "pip install -c constraints.txt -e .[onnx]"
        raise UnavailableError(f"{' and '.join(missing)} not installed: run `{command}`.")
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch's exporter
        return onnx_runtime.exported(classifier(), (torch.randn(batch or 2, 3, clips.SIDE, clips.SIDE),), shapes)


def preprocess(images: tuple[Tensor, ...]) -> NDArray[np.float32]:
    """Images ``(H, W, 3)`` uint8 BGR as a blob ``(N, 3, 224, 224)``: the forum's steps, as their own span."""
    with span("preprocess", "part"):
        return clips.bgr_blob([image.numpy() for image in images])


def softmax(scores: NDArray[np.float32]) -> Tensor:
    """Scores ``(N, classes)`` as probabilities, a tensor of their own."""
    return torch.from_numpy(scores).softmax(1)


class OpenCV(nn.Module):
    """A classifier in OpenCV, ``(H, W, 3) -> (1, classes)``, with a `Net` of its own for every thread.

    A Net keeps the activations of its last image, so two threads must not share one.
    """

    def __init__(self, graph: bytes) -> None:
        super().__init__()
        self.graph = graph
        self._own = threading.local()

    def forward(self, *images: Tensor) -> Tensor:
        net = self._net()
        match_opencv_threads()
        blob = preprocess(images)
        with span("forward", "part"):
            net.setInput(blob)
            return softmax(net.forward())

    def _net(self) -> Any:
        if not hasattr(self._own, "net"):
            with span("import OpenCV", "startup"):
                import cv2
            with span("load network", "startup"):
                self._own.net = cv2.dnn.readNetFromONNX(np.frombuffer(self.graph, np.uint8))
        return self._own.net

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_own"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._own = threading.local()


class Torch(nn.Module):
    """The same classifier in PyTorch, with OpenCV's preprocessing."""

    def __init__(self) -> None:
        super().__init__()
        self.network = classifier()

    def forward(self, *images: Tensor) -> Tensor:
        blob = torch.from_numpy(preprocess(images))
        with span("forward", "part"):
            scores: Tensor = self.network(blob)
            return scores.softmax(1)


class OnnxRuntime(nn.Module):
    """The same file in ONNX Runtime."""

    def __init__(self, graph: bytes, threads: int) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            command = "pip install -c constraints.txt -e .[onnx]"
            raise UnavailableError(f"ONNX Runtime cannot be imported ({error}): run `{command}`.") from error

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.force_spinning_stop", "1")  # else it takes the next one's cores
        self.session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def forward(self, image: Tensor) -> Tensor:
        blob = preprocess((image,))
        with span("forward", "part"):
            return softmax(self.session.run(None, {self.input: blob})[0])


class Nap(nn.Module):
    """Sleep, then run the network; without one, give the image's first pixel, ``(1, 3)``."""

    def __init__(self, seconds: float, network: nn.Module | None = None) -> None:
        super().__init__()
        self.seconds, self.network = seconds, network

    def forward(self, image: Tensor) -> Tensor:
        with span("sleep", "part"):
            time.sleep(self.seconds)
        found: Tensor = self.network(image) if self.network else image[:1, 0].float()
        return found


class Shared(nn.Module):
    """The documented mistake: two threads and one Net. Never call it in a process that you want to keep."""

    def __init__(self, graph: bytes, calls: int) -> None:
        super().__init__()
        self.graph, self.calls = graph, calls

    def forward(self, *images: Tensor) -> Tensor:
        """How many of all answers were wrong, and how many calls raised, ``(2,)``."""
        import cv2

        cv2.setNumThreads(1)
        blobs = [preprocess((image,)) for image in images]
        net = cv2.dnn.readNetFromONNX(np.frombuffer(self.graph, np.uint8))

        def classify(blob: NDArray[np.float32]) -> NDArray[np.float32]:
            net.setInput(blob)
            return np.array(net.forward())

        right = [classify(blob) for blob in blobs]

        def wrong(i: int) -> tuple[int, int]:
            try:
                return int(not np.allclose(classify(blobs[i]), right[i], rtol=1e-3, atol=1e-3)), 0
            except cv2.error:
                return 0, 1

        with ThreadPoolExecutor(2) as pool:
            return torch.tensor(list(pool.map(wrong, [i % len(blobs) for i in range(self.calls)]))).sum(0)


@one_line
class Misuse(NamedTuple):
    """The results of two threads that share a Net."""

    calls: int
    wrong: int = 0  # answers
    raised: int = 0  # calls
    died: str = ""  # how the process ended; nothing where it survived

    @property
    def harmless(self) -> bool:
        """Whether no error was seen; this proves nothing, since the errors happen at random."""
        return not (self.wrong or self.raised or self.died)


def share_one_net(calls: int = 200) -> Misuse:
    """Call one Net from two threads, in a separate process that may crash."""
    task = Task("one Net for two threads", Shared(exported(), calls), pictures(4))
    try:
        wrong, raised = ProcessesCold(60).run([task])[0].tolist()
    except (WorkerError, TaskError) as error:
        return Misuse(calls, died=str(error))
    return Misuse(calls, wrong, raised)
