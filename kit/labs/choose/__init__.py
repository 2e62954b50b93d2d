"""Notebook 11: its quizzes and their answers, its sentences, tables and card, its exercises.

Every sentence is computed from what was measured, and says so where nothing was: a model may have no branches.
"""

from kit.labs.choose.answers import (
    QUIZZES,
    cores_answer,
    costs_answer,
    gain_answer,
    quiz,
    requests_answer,
    threads_answer,
    trust_answer,
)
from kit.labs.choose.exercises import check_costliest, check_makespan
from kit.labs.choose.models import NoGraph, earlier, look, picture, requests
from kit.labs.choose.told import (
    about_cores,
    about_factors,
    conclusion,
    decision_table,
    doubts,
    open_questions,
    shortest_pair,
    snippet,
    waterfall,
    what_if_table,
)

__all__ = [
    "QUIZZES",
    "NoGraph",
    "about_cores",
    "about_factors",
    "check_costliest",
    "check_makespan",
    "conclusion",
    "cores_answer",
    "costs_answer",
    "decision_table",
    "doubts",
    "earlier",
    "gain_answer",
    "look",
    "open_questions",
    "picture",
    "quiz",
    "requests",
    "requests_answer",
    "shortest_pair",
    "snippet",
    "threads_answer",
    "trust_answer",
    "waterfall",
    "what_if_table",
]
