"""The study: every result of the papers computed again, as a results file and a page."""

from ._page import print_claims as print_claims
from ._results import (
    StudyFileError as StudyFileError,
    read_results as read_results,
)
from ._run import (
    SECTIONS as SECTIONS,
    run_study as run_study,
)
from ._section import (
    Claim as Claim,
    Section as Section,
    StudySettings as StudySettings,
)
