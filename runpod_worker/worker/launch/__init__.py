"""Where a worker runs.

modes, flags      behind a job service, behind a local API, or once
launch, malloc    agent and executor, either way round
init              process 1 of a container
once              one job in this process, for `run_once` and local
local, shortened  `python handler.py` without a service, and what a person sees of it
"""
