"""What a distance is called."""

import msgspec
import pytest

from models.gate import report_checks
from models.labels import INCEPTION, distance, is_distance
from tests.models.test_gate import FLOOR, GOOD


def test_only_the_inception_networks_distance_is_fid():
    """FID and FID_inf in its features; FD[name@digest] in any other's, also one whose name begins alike."""
    assert distance("FD", f"{INCEPTION}@1a2b") == "FID"
    assert distance("FD_inf", f"{INCEPTION}@1a2b") == "FID_inf"
    assert distance("FD_inf/Tr", f"{INCEPTION}@1a2b") == "FID_inf/Tr"
    assert distance("FD", f"{INCEPTION}-mine@1a2b") == f"FD[{INCEPTION}-mine@1a2b]"
    assert distance("FD_inf", "fashion-cnn@a244") == "FD_inf[fashion-cnn@a244]"


@pytest.mark.parametrize("label", [f"{INCEPTION}@1a2b", "fashion-cnn@a244"])
def test_a_distance_is_known_by_its_name(label):
    """A name made for one form is that form alone, and a share of the trace is no distance."""
    assert is_distance(distance("FD", label), "FD")
    assert is_distance(distance("FD_inf", label), "FD_inf")
    assert not is_distance(distance("FD_inf", label), "FD")
    assert not is_distance(distance("FD_inf/Tr", label), "FD_inf")
    assert not is_distance("KID[fashion-cnn@a244]", "FD")


def test_reports_name_distances_by_their_features():
    """An evaluation with the Inception network reports FID, FID_inf and FID_inf/Tr, and no FD."""
    names = [check.name for check in report_checks(msgspec.structs.replace(GOOD, extractor=f"{INCEPTION}@1a2b"), FLOOR)]
    assert {"FID", "FID_inf", "FID_inf/Tr"} <= set(names)
    assert not any(name.startswith("FD") for name in names)
