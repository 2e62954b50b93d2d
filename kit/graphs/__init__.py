"""Any model as a graph, and its independent parts as branches."""

from kit.graphs.any_model import Analysed, analysed, graph_of, measured
from kit.graphs.branched import Branched
from kit.graphs.operators import Branch, Graph, Operator, Region, Worth

__all__ = ["Analysed", "Branch", "Branched", "Graph", "Operator", "Region", "Worth", "analysed", "graph_of", "measured"]
