"""What a Frechet distance is called: FID in the features of the 2015 Inception network, FD[extractor] in all others.

Knows no numbers. Distances in different features do not compare, so every name says which features they are.
"""

from typing import Literal

INCEPTION = "inception-2015"  # the name of the network, kept for the one that has the published weights
INCEPTION_WEIGHTS = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # sha256 of their file

Form = Literal["FD", "FD_inf", "FD/Tr", "FD_inf/Tr"]


def distance(form: Form, label: str) -> str:
    """A distance's name from its form and its extractor's label, name@digest: FID_inf, or FD_inf[fashion-cnn@a244]."""
    return form.replace("FD", "FID") if label.partition("@")[0] == INCEPTION else f"{form}[{label}]"


def is_distance(name: str, form: Form) -> bool:
    """Whether a number's name is that of a distance of this form, whatever the extractor."""
    return name == form.replace("FD", "FID") or (name.startswith(f"{form}[") and name.endswith("]"))
