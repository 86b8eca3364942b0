"""The Inception network that FID is defined by: that it is the published one, and how its weights come in."""

import hashlib
import http.server
import threading

import msgspec
import numpy as np
import pytest
import torch

from models.datasets import load_dataset
from models.errors import DataError, LoadError, Refused, Unavailable
from models.extractors import Extractor, make_extractor
from models.labels import INCEPTION, distance
from tests.models.realdata import write_blobs
from tests.trainer import inception_kit as kit
from trainer.inception import Inception, load_inception, resized
from trainer.inception_import import FILE, Published, import_inception


@pytest.fixture(scope="module")
def weights():
    shapes = {key: tuple(value.shape) for key, value in Inception().state_dict().items() if value.ndim}
    return kit.random_weights(shapes)


@pytest.fixture(scope="module")
def golden():
    with np.load(kit.GOLDEN) as archive:
        return archive["features"], archive["logits"]


@pytest.fixture(scope="module")
def weights_file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def imported(weights_file):
    return import_inception(weights_file, "random-inception")


def test_it_computes_what_torch_fidelity_computes(weights, golden):
    """Random weights give the features and logits that torch-fidelity made of them, to 2e-5, resizing included."""
    network = load_inception(weights)
    with torch.inference_mode():
        made = [network(torch.from_numpy(images)) for images in kit.images()]
    for ours, theirs in zip(zip(*made, strict=True), golden, strict=True):
        assert theirs.std() > 0.1
        assert torch.cat(ours).numpy() == pytest.approx(theirs, abs=2e-5)


@pytest.mark.skipif(kit.there() is None, reason="torch-fidelity is not installed: see inception_kit.py")
def test_the_golden_features_are_torch_fidelitys(weights, golden, tmp_path):
    """What torch-fidelity computes here is what is kept, to 2e-5."""
    for theirs, kept in zip(kit.theirs(weights, tmp_path / "weights.pth"), golden, strict=True):
        assert theirs == pytest.approx(kept, abs=2e-5)


def test_the_imported_file_computes_it_too(imported, golden):
    """The ONNX file on ONNX Runtime gives the same features and most probable classes, grey or coloured, any size."""
    extractor = make_extractor(*imported, threads=1)
    made = [extractor.extract(images) for images in kit.images()]
    assert np.concatenate([one.features for one in made]) == pytest.approx(golden[0], abs=2e-5)
    assert np.concatenate([one.class_idx for one in made]).tolist() == golden[1].argmax(1).tolist()


def test_resizing_is_tensorflow_ones():
    """Without centring: a 2 x 2 image's own pixels are at 0 and 149.5, and what lies beyond repeats the last."""
    x = torch.tensor([[0.0, 299.0], [0.0, 299.0]])[None, None]
    made = resized(x)[0, 0]
    assert made.shape == (299, 299)
    assert made[0, :150].numpy() == pytest.approx(np.arange(150) * 2.0, abs=1e-3)
    assert (made[:, 150:] == 299).all()


def test_other_weights_are_no_fid(imported, weights_file):
    """Only the published file may be called the 2015 Inception; other weights need another name, and are FD[name]."""
    model, manifest = imported
    assert manifest.weights == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    for name in (None, INCEPTION):
        with pytest.raises(Refused, match="not the published 6726825d0af5"):
            import_inception(weights_file, name)
    extractor = make_extractor(model, manifest, threads=1)
    data = model.SerializeToString(deterministic=True)
    for changed in ({"name": INCEPTION}, {"weights": None}, {"weights": "0" * 64}):
        with pytest.raises(LoadError, match=r"published weights|not those that its manifest names"):
            Extractor(data, msgspec.structs.replace(extractor.manifest, **changed))


def test_the_published_weights_make_fid(imported, weights_file, monkeypatch):
    """Were these weights the published ones, the extractor would be inception-2015 and its distance FID."""
    model, manifest = imported
    monkeypatch.setattr("models.extractors.INCEPTION_WEIGHTS", manifest.weights)
    with pytest.raises(LoadError, match="inception-2015 is what the published weights are called"):
        make_extractor(model, manifest, threads=1)
    extractor = make_extractor(model, msgspec.structs.replace(manifest, name=INCEPTION), threads=1)
    assert distance("FD_inf", extractor.label) == "FID_inf"


def test_a_file_without_these_weights_is_refused(tmp_path, weights):
    """Something that is no file of weights, not by name, or of another network: the error says so."""
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(DataError, match="holds no weights"):
        import_inception(path, "mine")
    torch.save([1, 2], path)
    with pytest.raises(DataError, match="by name, but a list"):
        import_inception(path, "mine")
    torch.save({key: value for key, value in weights.items() if key != "fc.weight"}, path)
    with pytest.raises(DataError, match=r"fc\.weight"):
        import_inception(path, "mine")


def test_weights_are_downloaded_once_and_checked(tmp_path, monkeypatch):
    """Without a path the file is fetched into the folder of data sets; other content than expected is refused."""
    content, asked = b"no weights, but these bytes", []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    monkeypatch.setenv("GENSERVE_DATA", str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{FILE}"
        try:
            with pytest.raises(Unavailable, match=r"no file with the expected sha256 .*name its path"):
                import_inception(None, published=Published(url=url))
            right = Published(url=url, sha256=hashlib.sha256(content).hexdigest())
            asked.clear()
            for _ in range(2):
                with pytest.raises(DataError, match="holds no weights"):
                    import_inception(None, "mine", right)
        finally:
            server.shutdown()
            thread.join()
    assert asked == [f"/{FILE}"]
    assert (tmp_path / "weights" / FILE).read_bytes() == content


def test_a_grey_data_set_can_be_judged_by_it(imported, tmp_path):
    """It takes images of any size and colour, in small batches, and says what its numbers are called."""
    extractor = make_extractor(*imported, threads=1)
    dataset = load_dataset(str(write_blobs(tmp_path / "blobs.npz")))
    extractor.check_shape(dataset.kind, dataset.shape)
    assert extractor.manifest.batch_size == 32
    assert extractor.label.startswith("random-inception@")
