"""Reading CSV files of ratings and providers."""

from pathlib import Path

import numpy as np
import pytest

from diffgame.preferences import RatingsError, read_providers, read_ratings

GOOD = "id,country,x,y\nann,fr,1,5\nbob,de, 4 ,\n"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_ratings_are_read_with_gaps_and_groups(tmp_path: Path):
    table = read_ratings(write(tmp_path, GOOD), (1.0, 5.0), "country")
    assert table.people == ("ann", "bob")
    assert table.items == ("x", "y")
    assert table.groups == ("fr", "de")
    np.testing.assert_array_equal(table.values, [[1, 5], [4, np.nan]])


def test_a_byte_order_mark_blank_lines_and_quotes_do_not_matter(tmp_path: Path):
    text = '\ufeffid,"a, b"\r\n\r\nann,2.5\r\n'
    table = read_ratings(write(tmp_path, text), (1.0, 5.0))
    assert table.items == ("a, b",)
    assert table.values.tolist() == [[2.5]]


def test_every_number_is_read_bit_for_bit(tmp_path: Path):
    values = np.random.default_rng(0).uniform(1, 5, 50).tolist()
    lines = "\n".join(f"p{k},{value!r}" for k, value in enumerate(values))
    table = read_ratings(write(tmp_path, f"id,x\n{lines}\n"), (1.0, 5.0))
    assert table.values[:, 0].tolist() == values


@pytest.mark.parametrize(
    ("text", "groups", "message"),
    [
        ("id,x\nann,6\n", None, "row 2 (person 'ann'), column 'x' is 6, outside the scale 1 to 5"),
        ("id,x\n\nann,0.5\n", None, "row 3 (person 'ann'), column 'x' is 0.5, outside"),
        ("id,x\nann,good\n", None, "row 2 (person 'ann'), column 'x' is 'good'; give a number"),
        ("id,x\nann,nan\n", None, "column 'x' is 'nan'; give a number"),
        ("id,x\nann,inf\n", None, "column 'x' is not finite"),
        ("id,x\nann,1\nann,2\n", None, "row 3 is the person 'ann' of row 2 again"),
        ("id,x\n,1\n", None, "row 2 holds an empty person name"),
        ("id,x,x\nann,1,2\n", None, "row 1: names the item 'x' twice"),
        ("id,x,\nann,1,2\n", None, "row 1: holds an empty item name"),
        ("id,x,y\nann,1\n", None, "row 2 has 2 cells, the header 3"),
        ("id,x\n", None, "holds no table"),
        ("", None, "holds no table"),
        (b"id,x\n\xff,1\n", None, "is not UTF-8"),
        ('id,x\nann,"1\n', None, "is not CSV"),
        (GOOD, "contry", "has no column 'contry' for the groups; did you mean 'country'?"),
        ("id,g,x\nann,,1\n", "g", "row 2 (person 'ann'), column 'g' is empty; name the group"),
    ],
)
def test_bad_ratings_are_refused_in_one_line(tmp_path: Path, text, groups, message):
    path = write(tmp_path, text)
    with pytest.raises(RatingsError) as caught:
        read_ratings(path, (1.0, 5.0), groups)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    with pytest.raises(RatingsError, match="no such file"):
        read_ratings(tmp_path / "none.csv", (1.0, 5.0))
    with pytest.raises(RatingsError, match="cannot be read"):
        read_ratings(tmp_path, (1.0, 5.0))


def test_providers_may_list_the_items_in_any_order(tmp_path: Path):
    names, utilities = read_providers(write(tmp_path, "model,y,x\nA,-1,2.5\nB,7,0\n"), ("x", "y"))
    assert names == ("A", "B")
    assert utilities.tolist() == [[2.5, -1], [0, 7]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,a,b\nA,1,2\n", "has no item in common with the ratings; name its columns as"),
        ("model,x,yy\nA,1,2\n", "column 'yy' is no item of the ratings; did you mean 'y'?"),
        ("model,x\nA,1\n", "has no column for the item 'y'; add it"),
        ("model,x,y\nA,1,\n", "row 2 (provider 'A'), column 'y' is empty; give the provider's"),
        ("model,x,y\nA,1,2\nA,1,2\n", "row 3 is the provider 'A' of row 2 again"),
        ("model,x,y\nA,1,inf\n", "column 'y' is not finite"),
    ],
)
def test_bad_providers_are_refused_in_one_line(tmp_path: Path, text, message):
    with pytest.raises(RatingsError) as caught:
        read_providers(write(tmp_path, text), ("x", "y"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
