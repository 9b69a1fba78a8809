"""Textbook games with known equilibria, to learn from and to test against."""

from ._adoption import Adoption as Adoption
from ._bertrand import LinearBertrand as LinearBertrand, LogitBertrand as LogitBertrand
from ._congestion import Congestion as Congestion
from ._pricing import (
    Buyers as Buyers,
    MarkupIteration as MarkupIteration,
    MultiProductBertrand as MultiProductBertrand,
)
from ._quantity import Cournot as Cournot, StackelbergDuopoly as StackelbergDuopoly
