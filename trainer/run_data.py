"""The data of a configuration or of a run, checked against both. Knows no networks."""

from models.datasets import Dataset, load_dataset
from models.errors import DataError
from trainer.config import Config
from trainer.run_dir import Run


def load_data(config: Config) -> Dataset:
    """What a configuration names, read as it says.

    Raises:
        DataError: there is no such data, or it is images for mlp or vectors for another preset.
        Unavailable: it is neither here nor to be downloaded.
    """
    data = load_dataset(config.data, resolution=config.resolution, max_skipped=config.max_skipped)
    if data.kind == "vector" and config.preset != "mlp":
        raise DataError(f"{config.data}: holds vectors, and {config.preset} makes images: --preset mlp", field="preset")
    if data.kind == "image" and config.preset == "mlp":
        raise DataError(f"{config.data}: holds images, and mlp makes vectors: choose another preset", field="preset")
    return data


def load_run_data(run: Run) -> Dataset:
    """The data that a run was begun on.

    Raises:
        DataError: it is not there, or is no longer what it was.
        Unavailable: it is neither here nor to be downloaded.
    """
    data = load_data(run.config)
    if data.content_hash != run.data_hash:
        raise DataError(f"{run.config.data} has changed since this run began: its content hash differs", field="data")
    return data
