"""The experiments, tables, quizzes, sentences and exercises of notebook 12."""

from kit.labs.modules.claims import claims
from kit.labs.modules.converters import (
    changed,
    changed_told,
    converted,
    converted_table,
    converted_told,
    modes_agree,
    modes_told,
    networks,
    stepped_as_is,
    steps_told,
)
from kit.labs.modules.exercises import check_pool, check_states
from kit.labs.modules.explorers import explorer
from kit.labs.modules.gallery import Agreement, Row, gallery
from kit.labs.modules.names import exported, others
from kit.labs.modules.quizzes import (
    QUIZZES,
    converter_answer,
    modes_answer,
    outputs_answer,
    quiz,
    state_answer,
)
from kit.labs.modules.specimens import Specimen, specimens
from kit.labs.modules.state import (
    Kept,
    excited,
    excited_told,
    in_turns,
    kept,
    kept_table,
    kept_told,
    put,
    switched,
    switched_told,
    take,
    turns_agree,
    turns_told,
)
from kit.labs.modules.table import Gallery, gallery_told

__all__ = [
    "QUIZZES",
    "Agreement",
    "Gallery",
    "Kept",
    "Row",
    "Specimen",
    "changed",
    "changed_told",
    "check_pool",
    "check_states",
    "claims",
    "converted",
    "converted_table",
    "converted_told",
    "converter_answer",
    "excited",
    "excited_told",
    "explorer",
    "exported",
    "gallery",
    "gallery_told",
    "in_turns",
    "kept",
    "kept_table",
    "kept_told",
    "modes_agree",
    "modes_answer",
    "modes_told",
    "networks",
    "others",
    "outputs_answer",
    "put",
    "quiz",
    "specimens",
    "state_answer",
    "stepped_as_is",
    "steps_told",
    "switched",
    "switched_told",
    "take",
    "turns_agree",
    "turns_told",
]
