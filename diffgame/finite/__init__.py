"""Finite games in normal form: logit, Nash and correlated equilibria, commitment, Gambit's files.

Write for one game, batch with `jax.vmap`; every result carries its own independent check.
"""

from ._check import (
    LogitCheck as LogitCheck,
    NashCheck as NashCheck,
    check_logit as check_logit,
    check_nash as check_nash,
)
from ._lemke_howson import lemke_howson as lemke_howson
from ._logit import (
    LogitEquilibrium as LogitEquilibrium,
    LogitStatus as LogitStatus,
    logit_equilibrium as logit_equilibrium,
)
from ._nash import NashEquilibrium as NashEquilibrium, NashStatus as NashStatus
from ._nash_limit import nash_limit as nash_limit
from ._nfg import (
    format_nfg as format_nfg,
    nfg_of as nfg_of,
    parse_nfg as parse_nfg,
    read_nfg as read_nfg,
    write_nfg as write_nfg,
)
from ._nfg_game import (
    NfgError as NfgError,
    NfgGame as NfgGame,
    NfgOutcome as NfgOutcome,
)
from ._normal_form import (
    NormalForm as NormalForm,
    action_payoffs as action_payoffs,
    expected_payoffs as expected_payoffs,
    exploitability as exploitability,
    nash_conv as nash_conv,
    regrets as regrets,
)
from ._programs import (
    Commitment as Commitment,
    CorrelatedEquilibrium as CorrelatedEquilibrium,
    ZeroSumEquilibrium as ZeroSumEquilibrium,
    correlated_equilibrium as correlated_equilibrium,
    stackelberg_commitment as stackelberg_commitment,
    zero_sum_equilibrium as zero_sum_equilibrium,
)
