"""FD, KID, Inception Score, precision and recall agree with torch-fidelity's functions, given the same features."""

import importlib
import sys
import types

import numpy as np
import pytest
import torch

from models.frechet import frechet_distance, moments
from models.inception_score import inception_score
from models.kernel import kernel_distance
from models.neighbours import neighbour_scores
from tests.trainer import inception_kit as kit

pytestmark = pytest.mark.skipif(kit.there() is None, reason="torch-fidelity is not installed: see inception_kit.py")


@pytest.fixture
def fidelity(monkeypatch):
    """Its modules of measures, without what they import of the package: that wants torchvision."""
    package = types.ModuleType(kit.PACKAGE)
    package.__path__ = list(kit.there().submodule_search_locations)
    monkeypatch.setitem(sys.modules, kit.PACKAGE, package)
    for name in ("helpers", "utils"):
        stub = types.ModuleType(f"{kit.PACKAGE}.{name}")
        stub.__getattr__ = lambda _: lambda *args, **kwargs: None
        monkeypatch.setitem(sys.modules, stub.__name__, stub)
    tqdm = types.ModuleType("tqdm")
    tqdm.tqdm = iter
    monkeypatch.setitem(sys.modules, "tqdm", tqdm)

    def module(name):
        monkeypatch.delitem(sys.modules, f"{kit.PACKAGE}.{name}", raising=False)
        return importlib.import_module(f"{kit.PACKAGE}.{name}")

    return module


@pytest.fixture
def features():
    random = np.random.RandomState(0)
    mixing = random.standard_normal((12, 12))
    return random.standard_normal((400, 12)) @ mixing * 0.8 + 0.2, random.standard_normal((400, 12)) @ mixing


def test_fd(fidelity, features):
    """To 1e-9, by another eigenvalue problem."""
    metric = fidelity("metric_fid")
    theirs = metric.fid_statistics_to_metric(
        *({"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)} for x in features), verbose=False
    )
    (value,) = theirs.values()
    assert frechet_distance(*map(moments, features)) == pytest.approx(value, rel=1e-9)


def test_kid(fidelity, features):
    """To 1e-9, over all pairs in one subset."""
    metric = fidelity("metric_kid")
    fake, real = features

    def kernel(x, y):
        return (x @ y.T / 12 + 1) ** 3

    theirs = metric.mmd2(kernel(fake, fake), kernel(fake, real), kernel(real, real))
    assert kernel_distance(fake, real).kid == pytest.approx(theirs, rel=1e-9)


def test_inception_score(fidelity, features):
    """To 1e-9, in one split."""
    metric = fidelity("metric_isc")
    logits = torch.from_numpy(features[0])
    theirs = metric.isc_features_to_metric(logits, splits=1)
    value = next(value for key, value in theirs.items() if "mean" in key)
    assert inception_score(logits.softmax(1).numpy()).value == pytest.approx(value, rel=1e-9)


def test_precision_and_recall(fidelity, features):
    """The same balls round the same samples."""
    fake, real = map(torch.from_numpy, features)
    precision, recall = fidelity("metric_prc").calculate_precision_recall_full(fake, real)
    scores = neighbour_scores(*features)
    assert (scores.precision, scores.recall) == pytest.approx((precision, recall), abs=1e-6)
    assert 0 < precision < 1
