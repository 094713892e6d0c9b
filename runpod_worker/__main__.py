"""`python -m runpod_worker` is the `runpod-worker` command."""

import sys

from runpod_worker.cli import main

sys.exit(main())
