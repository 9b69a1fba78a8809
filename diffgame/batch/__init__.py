"""Large batches: any number of games, each to its own certified end, resumable."""

from ._checkpoint import BatchError as BatchError
from ._ladder import Rung as Rung, default_ladder as default_ladder
from ._processes import Processes as Processes
from ._progress import Progress as Progress
from ._solve_many import (
    BatchResult as BatchResult,
    CertificateSettings as CertificateSettings,
    solve_many as solve_many,
)
