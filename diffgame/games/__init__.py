"""Textbook games with known equilibria, to learn from and to test against."""

from ._bertrand import LinearBertrand as LinearBertrand, LogitBertrand as LogitBertrand
from ._quantity import Cournot as Cournot, StackelbergDuopoly as StackelbergDuopoly
