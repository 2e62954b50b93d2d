"""Notebook 06: many devices and many machines."""

from kit.labs.devices.charts import break_even_chart
from kit.labs.devices.clusters import about_cluster, local_cluster
from kit.labs.devices.exercises import check_machines, check_seconds
from kit.labs.devices.experiments import copies_here, costs, two_streams
from kit.labs.devices.explorer import Explorer
from kit.labs.devices.failures import healthy, outcome, with_a_kill
from kit.labs.devices.hosts import declared, two_hosts
from kit.labs.devices.settled import conclusion
from kit.labs.devices.told import (
    about_break_even,
    about_copies,
    about_failure,
    about_over,
    about_parallel,
    about_places,
    about_scatter,
    copy_answer,
    how,
    killed_answer,
    parallel_answer,
    places_answer,
    quiz,
    ranks_answer,
    scatter_answer,
)

__all__ = [
    "Explorer",
    "about_break_even",
    "about_cluster",
    "about_copies",
    "about_failure",
    "about_over",
    "about_parallel",
    "about_places",
    "about_scatter",
    "break_even_chart",
    "check_machines",
    "check_seconds",
    "conclusion",
    "copies_here",
    "copy_answer",
    "costs",
    "declared",
    "healthy",
    "how",
    "killed_answer",
    "local_cluster",
    "outcome",
    "parallel_answer",
    "places_answer",
    "quiz",
    "ranks_answer",
    "scatter_answer",
    "two_hosts",
    "two_streams",
    "with_a_kill",
]
