"""Executors: each runs a list of independent tasks, and does nothing else.

Only what needs no torch is imported here: a worker process comes through this file, and the time that it spends on
importing torch is to be seen on its timeline.
"""

from kit.executors.base import Executor, Task, current, use
from kit.executors.sequential import Sequential

__all__ = ["Executor", "Sequential", "Task", "current", "use"]
