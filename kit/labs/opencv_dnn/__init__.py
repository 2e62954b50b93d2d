"""Notebook 07: its quizzes and their answers, its sentences and tables, its exercises."""

from kit.labs.opencv_dnn.answers import (
    QUIZZES,
    batch_answer,
    control_answer,
    fix_answer,
    forked_answer,
    net_answer,
    pool_answer,
    quiz,
)
from kit.labs.opencv_dnn.exercises import check_pool_pays, check_threads_per_worker
from kit.labs.opencv_dnn.sentences import (
    about_batch,
    about_control,
    about_fixes,
    about_forked,
    about_grid,
    about_net,
    about_pool,
    about_refusal,
    bound_per_second,
    break_even,
)
from kit.labs.opencv_dnn.settled import conclusion, theirs_and_ours

__all__ = [
    "QUIZZES",
    "about_batch",
    "about_control",
    "about_fixes",
    "about_forked",
    "about_grid",
    "about_net",
    "about_pool",
    "about_refusal",
    "batch_answer",
    "bound_per_second",
    "break_even",
    "check_pool_pays",
    "check_threads_per_worker",
    "conclusion",
    "control_answer",
    "fix_answer",
    "forked_answer",
    "net_answer",
    "pool_answer",
    "quiz",
    "theirs_and_ours",
]
