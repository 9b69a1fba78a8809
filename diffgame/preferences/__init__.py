"""Real preferences: how nearly mixes of providers agree with ratings and survey answers."""

from ._align import align_ratings as align_ratings
from ._data import load_movielens as load_movielens, load_wvs as load_wvs
from ._distance import strong_distance as strong_distance, sup_distances as sup_distances
from ._errors import AlignSettings as AlignSettings
from ._fit import (
    Mixes as Mixes,
    check_mix as check_mix,
    mix_weights as mix_weights,
    nonnegative_least_squares as nonnegative_least_squares,
)
from ._personas import (
    PersonaSettings as PersonaSettings,
    make_personas as make_personas,
    persona_experiment as persona_experiment,
    personas_of as personas_of,
)
from ._ratings import Ratings as Ratings, RatingsError as RatingsError
from ._report import print_alignment as print_alignment
from ._tables import read_providers as read_providers, read_ratings as read_ratings
from ._to_market import market_from_ratings as market_from_ratings
