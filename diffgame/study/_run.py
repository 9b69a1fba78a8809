"""Run a study: section by section, each saved as it ends, so that a stopped run goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path

from . import (
    _degrees,
    _gap,
    _monopoly,
    _personas,
    _selection,
    _simplex,
    _temperature,
    _transition,
)
from ._page import write_page
from ._results import read_results, resume_results, write_results
from ._section import Claim, Section, StudySettings

SECTIONS: tuple[Section, ...] = (
    _gap.SECTION,
    _transition.SECTION,
    _degrees.SECTION,
    _selection.SECTION,
    _personas.SECTION,
    _monopoly.SECTION,
    _temperature.SECTION,
    _simplex.SECTION,
)


def run_study(
    results: Path,
    page: Path,
    settings: StudySettings | None = None,
    sections: Sequence[Section] = SECTIONS,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Claim]:
    """Compute the sections that `results` does not hold yet, save each, and draw the page.

    **Arguments:** `results`: netCDF file, continued if it is there with the same settings and
    version; `page`: HTML file, replaced.

    **Returns** the table of claims. **Errors:** StudyFileError for a results file that cannot be
    continued.
    """
    settings = StudySettings() if settings is None else settings
    done = resume_results(results, settings)
    for number, section in enumerate(sections, 1):
        where = f"{number} of {len(sections)}, {section.name}"
        if section.name in done:
            progress(f"{where}: done before")
            continue
        progress(where)
        done[section.name] = section.compute(
            settings, lambda text, where=where: progress(f"{where}: {text}")
        )
        write_results(results, settings, done)
    header, rows = read_results(results)
    return write_page(page, sections, rows, header)
