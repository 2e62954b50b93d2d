"""A pipeline: stages with bounded queues between them, for concurrency other than fork and join."""

from kit.pipeline.pipeline import Pipeline
from kit.pipeline.stages import Stage
from kit.pipeline.statistics import Failure, RunStatistics, StageStatistics

__all__ = ["Failure", "Pipeline", "RunStatistics", "Stage", "StageStatistics"]
