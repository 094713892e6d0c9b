"""worker.yaml, the one optional file beside a handler, and the Hub's `.runpod/hub.json` and `tests.json`."""

from runpod_worker.workerfile.loading import FILE_NAME, beside, in_folder
from runpod_worker.workerfile.model import Case, Model, Spool, Timeouts, WorkerFile, is_secret

__all__ = ["FILE_NAME", "Case", "Model", "Spool", "Timeouts", "WorkerFile", "beside", "in_folder", "is_secret"]
