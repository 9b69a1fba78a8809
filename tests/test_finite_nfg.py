"""Gambit's `.nfg`: what is read is written again word for word, and bad files are named."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from diffgame.finite import (
    NfgError,
    NfgGame,
    NfgOutcome,
    NormalForm,
    format_nfg,
    nfg_of,
    parse_nfg,
    read_nfg,
    write_nfg,
)

BY_PAYOFFS = """NFG 1 R "Selten (IJGT, 75), Figure 2" { "Player 1" "Player 2" }
{ { "U" "D" } { "l" "m" "r" } }
"with a \\"comment\\"
over two lines"

1 1/3
0.10 -2
3 +4e-1
.5 6.
7 8
9 10
"""
BY_OUTCOMES = """NFG 1 D "" { "A" "B" } { 2 2 }
{
{ "" 1, 2 }
{ "same" 1/2 3 }
}
2 0 1 2
"""


def test_payoffs_are_read_with_the_first_player_fastest():
    game = parse_nfg(BY_PAYOFFS)
    assert game.title == "Selten (IJGT, 75), Figure 2"
    assert game.comment == 'with a "comment"\nover two lines'
    assert game.payoffs[:4] == ("1", "1/3", "0.10", "-2")
    np.testing.assert_array_equal(
        game.normal_form().payoffs, [[[1, 3, 7], [0.1, 0.5, 9]], [[1 / 3, 0.4, 8], [-2, 6, 10]]]
    )


def test_outcomes_are_kept_apart_although_they_pay_alike():
    game = parse_nfg(BY_OUTCOMES)
    assert game.outcomes == (NfgOutcome("", ("1", "2")), NfgOutcome("same", ("1/2", "3")))
    assert game.contingencies == (2, 0, 1, 2)
    np.testing.assert_array_equal(
        game.normal_form().payoffs, [[[0.5, 1], [0, 0.5]], [[3, 2], [0, 3]]]
    )


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(
    lambda text: '\\"' not in text and not text.endswith("\\")
)
numbers = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.fractions().map(lambda f: f"{f.numerator}/{f.denominator}"),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


@st.composite
def files(draw):
    """The arguments of a game: made in the test, as checked signatures draw random numbers."""
    players = draw(st.integers(1, 3))
    counts = draw(st.lists(st.integers(1, 3), min_size=players, max_size=players))
    actions = tuple(draw(st.one_of(st.just(n), st.tuples(*[names] * n))) for n in counts)
    payoffs = st.tuples(*[numbers] * players)
    cells = int(np.prod(counts))
    shared = {"comment": draw(st.none() | names), "number_type": draw(st.sampled_from("RD"))}
    title, who = draw(names), tuple(draw(names) for _ in counts)
    if draw(st.booleans()):
        flat = [text for _ in range(cells) for text in draw(payoffs)]
        return (title, who, actions, tuple(flat)), shared
    outcomes = draw(st.lists(st.tuples(names, payoffs), max_size=3))
    which = draw(st.lists(st.integers(0, len(outcomes)), min_size=cells, max_size=cells))
    return (title, who, actions, (), tuple(outcomes), tuple(which)), shared


@hypothesis.given(files())
@hypothesis.settings(max_examples=150)
def test_writing_and_reading_gives_back_every_word(contents):
    parts, named = contents
    outcomes = tuple(NfgOutcome(*outcome) for outcome in (parts[4] if len(parts) > 4 else ()))
    game = NfgGame(*parts[:4], outcomes, *parts[5:], **named)
    assert parse_nfg(format_nfg(game)) == game


@pytest.mark.parametrize("text", [BY_PAYOFFS, BY_OUTCOMES])
def test_files_are_written_as_they_were_read(text, tmp_path):
    path = tmp_path / "game.nfg"
    write_nfg(path, parse_nfg(text))
    assert read_nfg(path) == parse_nfg(text)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("shape", [(1, 2), (2, 2, 3), (3, 2, 1, 3)], ids=str)
def test_tables_survive_the_file_bit_for_bit(shape):
    tables = np.random.default_rng(0).normal(size=shape) * 10.0 ** np.arange(shape[-1])
    back = parse_nfg(format_nfg(nfg_of(NormalForm(tables), "random"))).normal_form()
    np.testing.assert_array_equal(back.payoffs, tables)


BAD = [
    ("", "line 1: header: found nothing; begin with NFG 1 R"),
    ('EFG 2 R "" { "A" }', "line 1: header: found 'EFG'; begin with NFG 1 R"),
    ('NFG 1 X "" { "A" } { 1 } 1', "line 1: header: number type 'X'; write R or D"),
    ('NFG 1 R\n{ "A" } { 1 } 1', "line 2: title: found '{'; write it in quotes"),
    ('NFG 1 R ""\n\n{ A } { 1 } 1', "line 3: players: found 'A'; write names in quotes"),
    ('NFG 1 R "" { "A" } { 1 1 } 1', "line 1: actions: 2 entries for 1 players"),
    ('NFG 1 R "" { "A" } { 0 }', "line 1: actions: player 'A' has none"),
    ('NFG 1 R "" { "A" } { 1.5 } 1', "line 1: actions: '1.5' is no number of actions"),
    ('NFG 1 R "" { "A" } { 2 }\n1', "line 2: payoffs: 1 numbers of 2"),
    ('NFG 1 R "" { "A" } { 2 }\n1\nx', "line 3: payoffs: 'x' is no number"),
    ('NFG 1 R "" { "A" } { 2 } 1 1/0', "line 1: payoffs: '1/0' divides by zero"),
    ('NFG 1 R "" { "A" } { 2 } 1 nan', "line 1: payoffs: 'nan' is no number"),
    ('NFG 1 R "" { "A" } { 2 } 1 2 "x"', "line 1: payoffs: found 'x'; let only numbers"),
    ('NFG 1 R ""\n{ "A', "line 2: name: its closing quote is missing"),
    ('NFG 1 R "" { "A" } { 1 } { { "o" 1 2 } } 1', "line 1: outcomes: 'o' has 2 payoffs"),
    ('NFG 1 R "" { "A" } { 1 }\n{ { "o" 1 } }\n2', "line 3: contingencies: '2' is no outcome"),
    ('NFG 1 R "" { "A" } { 2 }\n{ { "o" 1 } }\n1', "line 3: contingencies: 1 of 2"),
    ('NFG 1 R "" { "A" } { 1 } { { "o" 1 } }', "line 1: contingencies: none"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_files_are_one_line_with_file_line_field_and_remedy(text, message, tmp_path):
    path = tmp_path / "bad.nfg"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NfgError) as refused:
        read_nfg(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refused.value)


def test_files_that_are_no_text_or_not_there_are_named(tmp_path):
    path = tmp_path / "binary.nfg"
    path.write_bytes(b"NFG 1 R \xff")
    with pytest.raises(NfgError, match="byte 8 is not UTF-8"):
        read_nfg(path)
    with pytest.raises(NfgError, match="no such file"):
        read_nfg(tmp_path / "absent.nfg")
    with pytest.raises(NfgError, match=str(tmp_path / "nowhere")):
        write_nfg(tmp_path / "nowhere" / "game.nfg", parse_nfg(BY_PAYOFFS))


@pytest.mark.parametrize("name", ["ends with \\", 'has \\" inside'])
def test_names_that_the_format_cannot_say_are_refused(name):
    with pytest.raises(NfgError, match="backslash"):
        NfgGame(name, ("A",), (1,), ("0",))


def test_numbers_beyond_float64_are_kept_as_text_and_refused_as_a_table():
    game = parse_nfg('NFG 1 R "" { "A" } { 1 } 1e400')
    assert parse_nfg(format_nfg(game)) == game
    with pytest.raises(NfgError, match="beyond float64"):
        game.normal_form()
