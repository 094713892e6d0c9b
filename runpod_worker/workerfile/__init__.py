"""worker.yaml, the one optional file beside a handler, and RunPod's Hub files.

model    the keys of worker.yaml and their types
loading  finds worker.yaml
reader   parses it; each error names file, line and key
schema   its JSON Schema, for editors
hub      reads `.runpod/hub.json` and `.runpod/tests.json`
"""

from runpod_worker.workerfile.loading import FILE_NAME, load_beside, load_folder
from runpod_worker.workerfile.model import Case, Model, Spool, Timeouts, WorkerFile, is_secret

__all__ = ["FILE_NAME", "Case", "Model", "Spool", "Timeouts", "WorkerFile", "is_secret", "load_beside", "load_folder"]
