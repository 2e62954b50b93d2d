"""Captures any model as a graph, and makes branches of its independent parts."""

from kit.graphs.any_model import Analysed, analysed, graph_of, measured
from kit.graphs.branched import Branched
from kit.graphs.operators import Branch, Cost, Graph, Operator, Region, Unit, Worth

__all__ = [
    "Analysed",
    "Branch",
    "Branched",
    "Cost",
    "Graph",
    "Operator",
    "Region",
    "Unit",
    "Worth",
    "analysed",
    "graph_of",
    "measured",
]
