"""Notebook 01: its quizzes and their answers, its sentences and charts, its exercises."""

from kit.labs.two_stream.answers import (
    QUIZZES,
    cost_answer,
    knows_answer,
    parallel_answer,
    quiz,
    side_answer,
    toy_answer,
)
from kit.labs.two_stream.charts import about_crossing, calls_chart, confusion_charts, crossing, toy_timeline
from kit.labs.two_stream.exercises import ThreeHeads, check_bound, check_wrapped
from kit.labs.two_stream.sentences import (
    about_bound,
    about_cost,
    about_first_call,
    about_flow,
    about_knowledge,
    about_parallel,
    about_recognition,
    about_side,
    about_toy,
    conclusion,
)

__all__ = [
    "QUIZZES",
    "ThreeHeads",
    "about_bound",
    "about_cost",
    "about_crossing",
    "about_first_call",
    "about_flow",
    "about_knowledge",
    "about_parallel",
    "about_recognition",
    "about_side",
    "about_toy",
    "calls_chart",
    "check_bound",
    "check_wrapped",
    "conclusion",
    "confusion_charts",
    "cost_answer",
    "crossing",
    "knows_answer",
    "parallel_answer",
    "quiz",
    "side_answer",
    "toy_answer",
    "toy_timeline",
]
