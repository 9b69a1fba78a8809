"""Markets for advice: the model, exact certificates, the search for equilibria, files."""

from ._alignment import (
    Alignment as Alignment,
    StrongAlignment as StrongAlignment,
    alignment_distances as alignment_distances,
    strong_alignment_distances as strong_alignment_distances,
)
from ._audit import (
    AuditSettings as AuditSettings,
    audit_market as audit_market,
    market_of as market_of,
)
from ._best_response import (
    BestResponse as BestResponse,
    Exploitability as Exploitability,
    Meeting as Meeting,
    best_response as best_response,
    exploitability as exploitability,
    meet as meet,
    outside_options as outside_options,
    persuade as persuade,
)
from ._checks import MarketFileError as MarketFileError
from ._equilibrium_values import (
    EquilibriumValues as EquilibriumValues,
    equilibrium_values as equilibrium_values,
)
from ._extremes import (
    Extremes as Extremes,
    find_extremes as find_extremes,
)
from ._file import (
    MarketFile as MarketFile,
    read_market as read_market,
    write_market as write_market,
)
from ._market import (
    Market as Market,
    MarketUser as MarketUser,
    babbling as babbling,
    full_revelation as full_revelation,
    random_profile as random_profile,
)
from ._report import print_report as print_report
from ._search import (
    MarketEquilibrium as MarketEquilibrium,
    MarketStatus as MarketStatus,
    SearchResult as SearchResult,
    find_equilibria as find_equilibria,
)
from ._segment import (
    Segment as Segment,
    make_segment as make_segment,
    playable_profiles as playable_profiles,
)
from ._value import (
    full_information as full_information,
    outcome as outcome,
    uninformed as uninformed,
    user_value as user_value,
)
from ._worst_case import (
    WorstCase as WorstCase,
    WorstCases as WorstCases,
    worst_case_losses as worst_case_losses,
)
