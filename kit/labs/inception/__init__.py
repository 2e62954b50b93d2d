"""Notebook 04: its quizzes and their answers, its tables, sentences and card, its control and its exercises."""

from kit.labs.inception.cores import Cores, cores_told
from kit.labs.inception.counting import (
    affordable,
    branches_table,
    macs_and_ms,
    network_told,
    networks_table,
    other_networks,
    regions_table,
)
from kit.labs.inception.exercises import check_balanced, check_parallelism
from kit.labs.inception.gpu import OnGpu, gpu_told, on_gpu
from kit.labs.inception.schedules import gantt_answer, gantt_told, more_cores
from kit.labs.inception.settled import (
    QUIZZES,
    approaches_table,
    conclusion,
    fastest_answer,
    free_answer,
    lane_answer,
    lane_told,
    network_against_block,
    quiz,
    side_answer,
    side_told,
)

__all__ = [
    "QUIZZES",
    "Cores",
    "OnGpu",
    "affordable",
    "approaches_table",
    "branches_table",
    "check_balanced",
    "check_parallelism",
    "conclusion",
    "cores_told",
    "fastest_answer",
    "free_answer",
    "gantt_answer",
    "gantt_told",
    "gpu_told",
    "lane_answer",
    "lane_told",
    "macs_and_ms",
    "more_cores",
    "network_against_block",
    "network_told",
    "networks_table",
    "on_gpu",
    "other_networks",
    "quiz",
    "regions_table",
    "side_answer",
    "side_told",
]
