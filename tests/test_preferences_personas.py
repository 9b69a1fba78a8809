"""Personas, and the predecessor's experiment with them on real ratings."""

import numpy as np
import pytest

from diffgame.preferences import (
    AlignSettings,
    PersonaSettings,
    Ratings,
    RatingsError,
    load_movielens,
    load_wvs,
    make_personas,
    persona_experiment,
    personas_of,
)

METHODS = ("cone", "hull", "single", "mean")


def errors(rows, field: str) -> dict[str, np.ndarray]:
    """Errors [targets, counts] by method."""
    targets = sorted({row["target"] for row in rows})
    counts = sorted({row["providers"] for row in rows})
    found = {(row["target"], row["providers"], row["method"]): row[field] for row in rows}
    assert len(found) == len(rows) == len(targets) * len(counts) * len(METHODS)
    return {m: np.array([[found[t, c, m] for c in counts] for t in targets]) for m in METHODS}


def test_personas_have_the_stated_mean_and_spread():
    settings = PersonaSettings(count=4000, fidelity=(0.2, 0.6), noise=0.02)
    personas = make_personas(np.array([[2.0, 3.0, 4.5]]), (1.0, 5.0), settings)
    # Fidelity has mean .4 and variance .16 / 12; the scale is 4 long, its middle 3.
    np.testing.assert_allclose(personas.mean(axis=0), [2.6, 3.0, 3.6], atol=0.02)
    spread = np.sqrt(0.16 / 12 * np.array([1.0, 0, 2.25]) + 0.08**2)
    np.testing.assert_allclose(personas.std(axis=0), spread, rtol=0.05)


def test_personas_stay_on_the_scale_and_repeat_by_seed():
    target = np.array([[1.0, 5.0], [5.0, 1.0]])
    settings = PersonaSettings(count=50, noise=1.0)
    personas = make_personas(target, (1.0, 5.0), settings)
    assert personas.min() == 1
    assert personas.max() == 5
    np.testing.assert_array_equal(personas, make_personas(target, (1.0, 5.0), settings))
    other = make_personas(target, (1.0, 5.0), PersonaSettings(count=50, noise=1.0, seed=1))
    assert (personas != other).any()
    faithful = make_personas(target, (1.0, 5.0), PersonaSettings(5, (1.0, 1.0), 0.0))
    np.testing.assert_array_equal(faithful, target[[0, 1, 0, 1, 0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "--personas is 0; choose at least 1"),
        ({"fidelity": (0.5, 0.1)}, "fidelity is 0.5 to 0.1"),
        ({"fidelity": (0.5, 1.1)}, "fidelity is 0.5 to 1.1"),
        ({"noise": -1.0}, "noise is -1"),
        ({"noise": np.nan}, "noise is nan"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_personas_out_of_range_are_refused(changes, message):
    with pytest.raises(RatingsError, match=message):
        PersonaSettings(**changes)


def test_an_item_that_a_group_never_rated_counts_as_everybodys_mean():
    values = np.array([[1.0, np.nan]] * 3 + [[3.0, 4.0]] * 3)
    people = tuple("abcdef")
    ratings = Ratings("t", people, ("x", "y"), (1.0, 5.0), values, ("g",) * 3 + ("h",) * 3)
    names, utilities = personas_of(ratings, PersonaSettings(2, (1.0, 1.0), 0.0))
    assert names == ["1 g", "2 h"]
    assert utilities.tolist() == [[1, 4], [3, 4]]


@pytest.fixture(scope="module")
def films():
    """100 personas of each of seven groups of MovieLens, by the 800 films most rated."""
    return persona_experiment(load_movielens(items=800))


def test_in_sample_the_cone_beats_the_hull_beats_mean_and_single(films):
    found = errors(films, "in_sample")
    assert found["cone"].shape == (7, 9)
    assert (found["cone"] <= found["hull"] + 1e-9).all()
    assert (found["hull"] <= np.minimum(found["mean"], found["single"]) + 1e-9).all()
    for method in ("cone", "hull", "single"):
        assert (np.diff(found[method], axis=1) <= 1e-9).all()


def test_held_out_the_same_order_holds_for_100_personas(films):
    found = {method: error[:, -1] for method, error in errors(films, "held_out").items()}
    assert (found["cone"] < found["hull"]).all()
    assert (found["hull"] < np.minimum(found["mean"], found["single"])).all()


def test_held_out_error_falls_with_the_number_of_personas(films):
    found = errors(films, "held_out")
    for method in ("cone", "hull"):
        assert (np.diff(found[method].mean(axis=0)) < 0).all()
    # The hull's falls to less than a third of one persona's; the best single one hardly improves.
    assert (found["hull"][:, -1] < found["hull"][:, 0] / 3).all()
    assert (found["single"][:, -1] > found["single"][:, 0] / 2).all()


def test_survey_answers_too_keep_the_order_in_sample():
    survey = load_wvs()
    rows = persona_experiment(survey, PersonaSettings(count=10), AlignSettings(folds=3))
    found = errors(rows, "in_sample")
    assert (found["cone"] <= found["hull"] + 1e-9).all()
    assert (found["hull"] <= np.minimum(found["mean"], found["single"]) + 1e-9).all()


def test_personas_that_only_noise_tells_apart_are_best_averaged():
    # The other side of the experiment: without differences in fidelity, weights only fit noise.
    rows = persona_experiment(load_movielens(items=800), PersonaSettings(fidelity=(0.7, 0.7)))
    found = errors(rows, "held_out")
    assert (found["mean"][:, -1] < found["hull"][:, -1]).all()
    # Only the cone, which may scale the mean up, is nearer.
    assert (found["cone"][:, -1] < found["mean"][:, -1]).all()


def test_too_few_items_to_hold_out_are_refused():
    values = np.array([[1.0, np.nan, np.nan]] * 3 + [[3.0, 4.0, 2.0]] * 3)
    people = tuple("abcdef")
    ratings = Ratings("t", people, ("x", "y", "z"), (1.0, 5.0), values, ("g",) * 3 + ("h",) * 3)
    with pytest.raises(RatingsError, match="group 'g' rated 1 items, fewer than the 2 folds"):
        persona_experiment(ratings, PersonaSettings(2), AlignSettings(folds=2))
