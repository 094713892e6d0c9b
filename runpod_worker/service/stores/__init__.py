"""The stores behind the port of `runpod_worker.service.store`."""
