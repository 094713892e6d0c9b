"""Programs for people who work on runpod_worker: `make docs`, `make image`."""
