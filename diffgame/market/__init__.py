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
from ._best_conversation import best_conversation as best_conversation
from ._best_response import (
    BestResponse as BestResponse,
    Exploitability as Exploitability,
    Meeting as Meeting,
    Outside as Outside,
    best_response as best_response,
    exploitability as exploitability,
    meet as meet,
    outside_options as outside_options,
    persuade as persuade,
)
from ._checks import MarketFileError as MarketFileError
from ._conversation import (
    Conversation as Conversation,
    ConversationUser as ConversationUser,
)
from ._conversation_policy import (
    ConversationNetwork as ConversationNetwork,
    ConversationTable as ConversationTable,
    babbling_conversation as babbling_conversation,
    network_conversation as network_conversation,
    random_conversation as random_conversation,
    revealing_conversation as revealing_conversation,
)
from ._conversation_value import provider_values as provider_values
from ._degree import (
    all_partitions as all_partitions,
    information_bits as information_bits,
    merge_by_distance as merge_by_distance,
    noisy_labels as noisy_labels,
    noisy_market as noisy_market,
    threshold_labels as threshold_labels,
)
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
from ._menu import (
    MenuResponse as MenuResponse,
    menu_best_response as menu_best_response,
)
from ._menu_extremes import (
    CommonMenu as CommonMenu,
    MenuExtremes as MenuExtremes,
    find_menu_extremes as find_menu_extremes,
)
from ._menu_meeting import (
    MenuMeeting as MenuMeeting,
    menu_exploitability as menu_exploitability,
    recommend_branches as recommend_branches,
)
from ._monopoly import (
    MonopolyValues as MonopolyValues,
    monopoly_values as monopoly_values,
    persuade_by_menu as persuade_by_menu,
)
from ._personalization import (
    PersonalizationCurve as PersonalizationCurve,
    personalization_curve as personalization_curve,
)
from ._private import PrivateInformation as PrivateInformation
from ._protocol_gains import (
    ProtocolExploitability as ProtocolExploitability,
    protocol_exploitability as protocol_exploitability,
)
from ._protocol_response import (
    ProtocolResponse as ProtocolResponse,
    protocol_best_response as protocol_best_response,
)
from ._quantal import (
    QuantalEquilibrium as QuantalEquilibrium,
    QuantalOutcome as QuantalOutcome,
    certify_quantal as certify_quantal,
    quantal_outcome as quantal_outcome,
)
from ._quantal_bound import (
    lambert_w as lambert_w,
    market_regret_bound as market_regret_bound,
    regret_bound as regret_bound,
)
from ._quantal_persuasion import (
    QuantalPersuasion as QuantalPersuasion,
    grid_bracket as grid_bracket,
    persuade_quantal as persuade_quantal,
)
from ._quantal_response import (
    QuantalResponse as QuantalResponse,
    Rivals as Rivals,
    respond_quantal as respond_quantal,
)
from ._quantal_search import (
    find_quantal_equilibria as find_quantal_equilibria,
    temperature_table as temperature_table,
)
from ._quantal_split import Split as Split, optimal_split as optimal_split
from ._report import print_report as print_report
from ._rule import Rule as Rule, RuleStatus as RuleStatus, cheapest_rule as cheapest_rule
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
from ._segment_bounds import (
    InformationCertificates as InformationCertificates,
    information_certificates as information_certificates,
)
from ._segmentation import (
    Segmentation as Segmentation,
    SegmentationStatus as SegmentationStatus,
    coarsest_segmentation as coarsest_segmentation,
    merge_by_certificate as merge_by_certificate,
)
from ._tree import Protocol as Protocol
from ._typed_tables import conversation_of as conversation_of
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
