"""The experiments, drawings, quizzes, sentences and exercises of notebook 09."""

from kit.labs.continual.claims import conclusion, states
from kit.labs.continual.diagram import Diagram
from kit.labs.continual.exercises import check_partial_sums, check_reach
from kit.labs.continual.experiments import (
    agreement_told,
    block,
    clip_of_noise,
    encoder_by_steps,
    encoder_told,
    i3d_told,
    network_told,
    padding_told,
    turns_told,
    two_blocks,
)
from kit.labs.continual.explorer import Explorer
from kit.labs.continual.figures import influence_figure, influence_table, ratios_chart
from kit.labs.continual.quizzes import QUIZZES, cost_answer, quiz, reach_answer, share_answer, side_answer
from kit.labs.continual.recorded import KINDS, Recorded, gap_told, kinds_table, ms_by_kind, recorded
from kit.labs.continual.sentences import (
    against_table,
    against_told,
    kernels_in_words,
    kernels_table,
    macs_told,
    parts_table,
    parts_told,
    prepared_told,
    realised_told,
    share_told,
    side_told,
    speed_told,
)
from kit.labs.continual.steps import FrameByFrame, Stepped, by_kit, by_library, frame_by_frame, influence, stepped

__all__ = [
    "KINDS",
    "QUIZZES",
    "Diagram",
    "Explorer",
    "FrameByFrame",
    "Recorded",
    "Stepped",
    "against_table",
    "against_told",
    "agreement_told",
    "block",
    "by_kit",
    "by_library",
    "check_partial_sums",
    "check_reach",
    "clip_of_noise",
    "conclusion",
    "cost_answer",
    "encoder_by_steps",
    "encoder_told",
    "frame_by_frame",
    "gap_told",
    "i3d_told",
    "influence",
    "influence_figure",
    "influence_table",
    "kernels_in_words",
    "kernels_table",
    "kinds_table",
    "macs_told",
    "ms_by_kind",
    "network_told",
    "padding_told",
    "parts_table",
    "parts_told",
    "prepared_told",
    "quiz",
    "ratios_chart",
    "reach_answer",
    "realised_told",
    "recorded",
    "share_answer",
    "share_told",
    "side_answer",
    "side_told",
    "speed_told",
    "states",
    "stepped",
    "turns_told",
    "two_blocks",
]
