"""Bilevel problems of the literature with one best answer of the follower, as games of diffgame.

Their mathematics is that of the papers cited; best known values are those that the papers or the
collections of Zhou, Zemkoho, Tin (2020), BOLIB: Bilevel Optimization LIBrary of test problems, of
Paulavicius, Adjiman (2017), BASBLib, and of Leyffer (2000), MacMPEC, report.
"""

from ._bilevel_problems_bard_to_falk import BARD_TO_FALK
from ._bilevel_problems_tuy_to_colson import TUY_TO_COLSON

PROBLEMS = (*BARD_TO_FALK, *TUY_TO_COLSON)
