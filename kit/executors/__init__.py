"""Executors: each runs a list of independent tasks, and does nothing else."""

from kit.executors.base import Executor, Task, current, use
from kit.executors.sequential import Sequential
from kit.executors.threads import Threads

__all__ = ["Executor", "Sequential", "Task", "Threads", "current", "use"]
