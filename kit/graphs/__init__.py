"""Any model as a graph, and its independent parts as branches."""

from kit.graphs.any_model import Analysed, analysed, graph_of, measured
from kit.graphs.operators import Branch, Graph, Operator, Region, Worth
from kit.graphs.rewriting import Branched

__all__ = ["Analysed", "Branch", "Branched", "Graph", "Operator", "Region", "Worth", "analysed", "graph_of", "measured"]
