"""The kit's own approaches: which executor or transform a name stands for, and with which options."""

from __future__ import annotations

import socket
from collections import Counter

from torch import nn

from kit.approaches.registry import Entry, Rewrites, Runs, build_in
from kit.errors import KitError
from kit.executors import Sequential
from kit.executors.cluster import Cluster, given_client
from kit.executors.cluster import unavailable_because as cluster_unavailable
from kit.executors.cuda_streams import CudaStreams
from kit.executors.cuda_streams import unavailable_because as cuda_streams_unavailable
from kit.executors.cuda_streams_threads import CudaStreamsThreads
from kit.executors.devices import Devices
from kit.executors.devices import unavailable_because as devices_unavailable
from kit.executors.group_ranks import GroupRanks
from kit.executors.processes import Processes
from kit.executors.processes_cold import ProcessesCold
from kit.executors.ranks import Ranks
from kit.executors.ranks import unavailable_because as ranks_unavailable
from kit.executors.threads import Threads
from kit.executors.workers.dask_workers import DaskWorkers
from kit.executors.workers.group import joined_group
from kit.executors.workers.membership import membership
from kit.graphs.scheduled import Scheduled
from kit.machine.hardware import Hardware
from kit.regions import some_regions
from kit.scheduling import PolicyName
from kit.transforms import Transform
from kit.transforms.channels_last import ChannelsLast
from kit.transforms.compiled import Compiled
from kit.transforms.folded import Folded
from kit.transforms.graphed import Graphed, GraphedStreams
from kit.transforms.merged import Merged
from kit.transforms.onnx_runtime import OnnxRuntime
from kit.transforms.openvino import OpenVino
from kit.transforms.packed import Packed
from kit.transforms.replicated import Replicated
from kit.transforms.scripted_fork import ScriptedFork


def sequential(cores: int, *, threads: int | None = None) -> Sequential:
    """One branch after the other in the calling thread, each operator on all cores (or on ``threads`` of them)."""
    return Sequential(threads or cores)


def threads(model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None) -> Threads:
    """A persistent thread per branch, at most one per core; their operators share the cores equally."""
    workers = workers or min(_widest(model), cores)
    return Threads(workers, threads or max(1, cores // workers))


def processes(
    model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None, timeout: int = 60
) -> Processes:
    """A persistent process per branch, at most one per core, pinned to its share of them; tensors in shared memory."""
    workers = workers or min(_widest(model), cores)
    return Processes(workers, threads or max(1, cores // workers), timeout)


def ranks(
    model: nn.Module, cores: int, *, workers: int | None = None, threads: int | None = None, timeout: int = 60
) -> Ranks | GroupRanks:
    """A rank of torch.distributed per branch, at most one per core; or the ranks that torchrun or Slurm has started."""
    if (group := joined_group()) is not None:
        if workers not in (None, group.size):
            raise KitError(f"ranks(workers={workers}): the group that was started has {group.size} ranks.")
        group.check()
        return GroupRanks(group, threads or max(1, cores // group.on_this_host), timeout)
    workers = workers or min(_widest(model), cores)
    return Ranks(workers, threads or max(1, cores // workers), timeout)


def cluster(model: nn.Module, *, workers: int | None = None, threads: int | None = None, timeout: int = 60) -> Cluster:
    """A worker of a Dask cluster per branch, as far as there are so many; kit.use_cluster names the cluster."""
    found = DaskWorkers(given_client(), workers or _widest(model), workers or 1, timeout)
    on_its_host = Counter(worker.host for worker in found.all)
    shares = [of.cores // on_its_host[worker.host] for worker, of in zip(found.all, found.facts, strict=True)]
    return Cluster(found, threads or max(1, min(shares)), timeout)


def processes_cold(model: nn.Module, *, timeout: int = 120) -> ProcessesCold:
    """A new process per branch and per call, with a queue each: the published recipe."""
    some_regions(model)
    return ProcessesCold(timeout)


def cuda_streams(model: nn.Module, *, policy: PolicyName = "one_per_branch", streams: int | None = None) -> CudaStreams:
    """A CUDA stream per branch, launched from the calling thread."""
    some_regions(model)
    return CudaStreams(policy, streams)


def cuda_streams_threads(model: nn.Module) -> CudaStreamsThreads:
    """A CUDA stream per branch, and a thread for each that launches onto it."""
    return CudaStreamsThreads(_widest(model))


def one_device_each(model: nn.Module) -> Devices:
    """A device per branch: all GPUs in turn, or the one GPU and the CPU; inputs are moved without waiting."""
    some_regions(model)
    return Devices()


def _widest(model: nn.Module) -> int:
    """The most branches that a region of the model has."""
    return max(len(region.branches) for region in some_regions(model).values())


def _needs_descriptors(machine: Hardware) -> str | None:
    if hasattr(socket, "AF_UNIX") and hasattr(socket.socket, "sendmsg"):
        return None
    return "this system cannot pass memory between processes without naming it. On Windows, use WSL."


def _ranks_unavailable(machine: Hardware) -> str | None:
    if joined_group() is None and membership() is not None:  # ranks of its own would pass for those of the group
        return (
            "this process has not joined the group of its RANK: start the ranks as `torchrun ... -m kit compare ...`."
        )
    return ranks_unavailable(machine) or _needs_descriptors(machine)


def _rewrites(transform: type[Transform], seconds: float = 0.0, each_layer: float = 0.0) -> Entry:
    return Rewrites(transform, transform.unavailable_because, lambda model: seconds + each_layer * _layers(model))


def _layers(model: nn.Module) -> int:
    """How many of its modules have weights of their own."""
    return sum(1 for module in model.modules() if next(module.parameters(recurse=False), None) is not None)


def _branches(model: nn.Module) -> int:
    return sum(len(region.branches) for region in some_regions(model).values())


build_in(
    {
        "sequential": Runs(sequential),
        "threads": Runs(threads),
        "channels_last": _rewrites(ChannelsLast),
        "folded": _rewrites(Folded),
        "merged": _rewrites(Merged),
        "packed": _rewrites(Packed),
        "scripted_fork": _rewrites(ScriptedFork, each_layer=0.05),
        "replicated": _rewrites(Replicated),
        "scheduled": _rewrites(Scheduled, 1.0, 0.02),
        "cuda_streams": Runs(cuda_streams, cuda_streams_unavailable),
        "cuda_streams_threads": Runs(cuda_streams_threads, cuda_streams_unavailable),
        "devices": Runs(one_device_each, devices_unavailable, sends=True),
        "graphed": _rewrites(Graphed),
        "graphed_streams": _rewrites(GraphedStreams),
        "processes": Runs(processes, _needs_descriptors, lambda model: 3.0, sends=True),
        "ranks": Runs(ranks, _ranks_unavailable, lambda model: 4.0, sends=True),
        "cluster": Runs(cluster, cluster_unavailable, lambda model: 4.0, sends=True),
        "openvino": _rewrites(OpenVino, 1.0, 0.03),
        "onnxruntime": _rewrites(OnnxRuntime, 2.0, 0.05),
        "compiled": _rewrites(Compiled, 3.0, 0.4),
        "processes_cold": Runs(processes_cold, seconds=lambda model: 2.0 * _branches(model), sends=True),
    }
)
