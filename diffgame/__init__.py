"""diffgame: differentiable leader-follower games, with certified equilibria."""

from ._bilevel import (
    BilevelOptimum as BilevelOptimum,
    BilevelStatus as BilevelStatus,
    solve_bilevel as solve_bilevel,
)
from ._certificate import (
    Welfare as Welfare,
    certify as certify,
    user_gap as user_gap,
    welfare as welfare,
)
from ._choice_set import (
    AbstractChoiceSet as AbstractChoiceSet,
    AbstractConstrainedSet as AbstractConstrainedSet,
    AbstractConvexSet as AbstractConvexSet,
    AbstractFiniteSet as AbstractFiniteSet,
    Box as Box,
    Constrained as Constrained,
    DecisionTree as DecisionTree,
    Polytope as Polytope,
    Simplex as Simplex,
)
from ._constrained_response import (
    UserOptimum as UserOptimum,
    UserStatus as UserStatus,
    solve_user_problem as solve_user_problem,
)
from ._constraints import Constraints as Constraints
from ._crowd_equilibria import crowd_equilibria as crowd_equilibria
from ._crowd_game import AbstractCrowdGame as AbstractCrowdGame, Crowded as Crowded
from ._design import (
    Attempt as Attempt,
    Design as Design,
    DesignStatus as DesignStatus,
    DesignStep as DesignStep,
    Jump as Jump,
    design as design,
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
from ._interaction import CrowdEquilibrium as CrowdEquilibrium, CrowdStatus as CrowdStatus
from ._joint_response import Nash as Nash, Wardrop as Wardrop
from ._nash_game import AbstractNashGame as AbstractNashGame, Passive as Passive
from ._newton import (
    Automatic as Automatic,
    LevenbergMarquardt as LevenbergMarquardt,
    Newton as Newton,
)
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
from ._problem import (
    AbstractProblem as AbstractProblem,
    ConstrainedProblem as ConstrainedProblem,
    Joint as Joint,
    Multipliers as Multipliers,
    Problem as Problem,
)
from ._response import (
    AbstractResponse as AbstractResponse,
    Argmax as Argmax,
    Concave as Concave,
    Logit as Logit,
)
from ._segment_deviation import (
    SegmentDeviations as SegmentDeviations,
    segment_deviations as segment_deviations,
)
from ._shard import shard_users as shard_users, user_sharding as user_sharding
from ._solve import solve as solve
from ._solver import (
    AbstractSolver as AbstractSolver,
    BestResponse as BestResponse,
    Extragradient as Extragradient,
    GradientPlay as GradientPlay,
)
from ._stationarity import second_order as second_order, stationarity as stationarity
from ._train import Trained as Trained, train as train
