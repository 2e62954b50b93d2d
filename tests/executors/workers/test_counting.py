"""What a call hands over to other processes, in bytes of tensors."""

from __future__ import annotations

import torch

from kit import spans
from kit.executors import Task
from kit.executors.processes import Processes
from kit.executors.ranks import Ranks
from kit.executors.workers.counting import tensor_bytes


def test_a_tensor_counts_once_wherever_it_is() -> None:
    x, y = torch.zeros(10, 3), torch.zeros(5, dtype=torch.float64)
    assert tensor_bytes((x, [x, {"y": y}], "text", None)) == 120 + 40
    assert tensor_bytes([]) == 0


def test_processes_and_ranks_count_what_they_send_and_get_back_also_in_later_calls() -> None:
    x = torch.rand(100)
    tasks = [Task("a", torch.neg, (x,)), Task("b", torch.stack, ([x, x],)), Task("c", abs, (-1,))]
    with Processes(2) as processes, Ranks(2) as ranks:
        for executor in (processes, ranks):
            for _ in range(2):
                with spans.collect() as log:
                    executor.run(tasks)
                assert (log.sent_bytes, log.received_bytes) == (400 + 400, 400 + 800)
            executor.run(tasks)  # without a log
