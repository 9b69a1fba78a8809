"""diffgame: differentiable leader-follower games, with certified equilibria."""

from ._certificate import (
    Welfare as Welfare,
    certify as certify,
    second_order as second_order,
    stationarity as stationarity,
    user_gap as user_gap,
    welfare as welfare,
)
from ._choice_set import (
    AbstractChoiceSet as AbstractChoiceSet,
    AbstractConvexSet as AbstractConvexSet,
    AbstractFiniteSet as AbstractFiniteSet,
    Box as Box,
    DecisionTree as DecisionTree,
    Simplex as Simplex,
)
from ._deviation import (
    Deviations as Deviations,
    deviation_gains as deviation_gains,
    find_deviations as find_deviations,
)
from ._equilibrium import (
    Certificate as Certificate,
    Equilibrium as Equilibrium,
    Status as Status,
)
from ._game import AbstractGame as AbstractGame
from ._implicit import implicit_root as implicit_root
from ._play import (
    Outcome as Outcome,
    play as play,
    provider_payoffs as provider_payoffs,
    pseudogradient as pseudogradient,
)
from ._policy import (
    AbstractPolicy as AbstractPolicy,
    Constant as Constant,
    Network as Network,
    ProbabilityTable as ProbabilityTable,
)
from ._response import (
    AbstractResponse as AbstractResponse,
    Argmax as Argmax,
    Concave as Concave,
    Logit as Logit,
)
from ._solve import solve as solve
from ._solver import (
    AbstractSolver as AbstractSolver,
    BestResponse as BestResponse,
    Extragradient as Extragradient,
    GradientPlay as GradientPlay,
    Newton as Newton,
    Problem as Problem,
)
