"""Tables of numbers: CSV files, and vectors on one scale."""

from pathlib import Path

import numpy as np
import pytest

from models.datasets import Dataset, load_dataset
from models.errors import DataError
from models.standardising import standardisation


def load(folder: Path, text: str, name: str = "d.csv") -> Dataset:
    (folder / name).write_text(text, encoding="utf-8")
    return load_dataset(str(folder / name))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_with_a_header(tmp_path: Path, delimiter: str) -> None:
    """A first row without numbers names the columns, whichever delimiter it has; every other row is a sample."""
    data = load(tmp_path, "\ufeffheight,weight\n1.5,2e1\n\n -3, 4 \n".replace(",", delimiter))
    assert (data.kind, data.shape, data.samples.dtype) == ("vector", (2,), np.float32)
    np.testing.assert_array_equal(data.samples, [[1.5, 20], [-3, 4]])
    assert data.inventory.lines()[0] == "2 samples of 2 from a CSV file"
    assert data.inventory.lines()[-1] == "columns: height, weight"


def test_a_csv_without_a_header(tmp_path: Path) -> None:
    """A first row with numbers is a sample, and the inventory says that columns have no names."""
    data = load(tmp_path, "1,2,3\r\n4,5,6\r\n", "d.CSV")
    assert data.samples.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert data.inventory.lines()[-1] == "columns: 3, without names"


def test_quoted_cells(tmp_path: Path) -> None:
    """A name may hold the delimiter."""
    data = load(tmp_path, '"a, in m",b\n"1",2\n')
    assert data.inventory.lines()[-1] == "columns: a, in m, b"
    assert data.samples.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b,c\n1,red,2020-01-01\n2,blue,x\n", r"not numbers: b \(line 2: 'red'\); c \(line 2: '2020-01-01'\)$"),
        ("a,b\n1,2\n3,\n4,NA\n", r"2 values are missing: line 3, b; line 4, b; fill"),
        ("1,2\n3,inf\n", r"not numbers: column 2 \(line 2: 'inf'\)"),
        ("a,b\n1,2\n3\n", "2 cells, but line 3 has 1"),
        ("a,b\n", "a header and no rows"),
        ("\n \n", "holds no rows"),
        ('a,b\n"1,2\n', "not a readable CSV"),
        ("a\n1e39\n", "not finite"),
        ("a\n" + "x\n" * 30, r"not numbers: a \(line 2"),
        ("a\n" + "?\n" * 30, "30 values are missing: .*line 11, a; and 20 more"),
    ],
)
def test_a_wrong_csv_names_columns_and_rows(tmp_path: Path, text: str, complaint: str) -> None:
    """Text by its column, what is missing by its row, rows of another length by their line."""
    with pytest.raises(DataError, match=complaint) as caught:
        load(tmp_path, text)
    assert "d.csv" in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are named."""
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"d\.csv: not a readable CSV"):
        load_dataset(str(tmp_path / "d.csv"))


def test_rows_fall_into_splits_by_their_content(tmp_path: Path) -> None:
    """Equal rows are in one split, and each split has its share within 4 standard deviations."""
    values = np.random.RandomState(0).randint(0, 1000, (1000, 2))
    data = load(tmp_path, "\n".join(f"{a},{b}" for a, b in np.concatenate([values, values])))
    for indices in data.indices.values():
        np.testing.assert_array_equal(np.unique(indices % 1000, return_counts=True)[1], 2)
    assert abs(len(data.indices["gate"]) - 200) < 4 * 2 * np.sqrt(1000 * 0.1 * 0.9)


# One scale.


def test_standardised_vectors_have_mean_0_and_deviation_1_and_go_back() -> None:
    """Whatever their units; and back within float32's rounding."""
    x = (np.random.RandomState(0).randn(1000, 3) * [1e-4, 1, 1e5] + [5, 0, -1e6]).astype(np.float32)
    found = standardisation(x)
    z = found.apply(x)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z.mean(0, np.float64), 0, atol=0.02)
    np.testing.assert_allclose(z.std(0, dtype=np.float64), 1, rtol=1e-3)
    np.testing.assert_allclose(found.undo(z), x, rtol=3e-7, atol=0.1)


def test_a_constant_column_keeps_scale_1() -> None:
    """Whatever its value, and though sums of float32 values round."""
    for value in (0.0, 0.1, -1e6):
        x = np.full((999, 1), value, np.float32)
        found = standardisation(x)
        assert found.scale.tolist() == [1]
        assert found.apply(x).tolist() == [[0]] * 999
