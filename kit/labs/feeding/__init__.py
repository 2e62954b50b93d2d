"""Notebook 08: its quizzes and their answers, its sentences and tables, its exercises."""

from kit.labs.feeding.answers import (
    IN_PROCESSES,
    LOOP,
    ON_THREADS,
    QUIZZES,
    cross_answer,
    feed_answer,
    line_answer,
    lock_answer,
    quiz,
)
from kit.labs.feeding.exercises import check_throughput, check_worker
from kit.labs.feeding.pipelines import Runs, about_camera, about_line, latency_table, run_all, stages_table
from kit.labs.feeding.sentences import (
    about_feeding,
    about_first_epoch,
    about_lock,
    about_ranks,
    about_spawn,
    conclusion,
    lock_table,
    parts_table,
    snippet,
)

__all__ = [
    "IN_PROCESSES",
    "LOOP",
    "ON_THREADS",
    "QUIZZES",
    "Runs",
    "about_camera",
    "about_feeding",
    "about_first_epoch",
    "about_line",
    "about_lock",
    "about_ranks",
    "about_spawn",
    "check_throughput",
    "check_worker",
    "conclusion",
    "cross_answer",
    "feed_answer",
    "latency_table",
    "line_answer",
    "lock_answer",
    "lock_table",
    "parts_table",
    "quiz",
    "run_all",
    "snippet",
    "stages_table",
]
