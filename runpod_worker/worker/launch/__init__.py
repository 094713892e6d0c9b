"""Where a worker runs.

modes, flags      behind a job service, behind a local API, or once
launch, malloc    agent and executor, either way round
init              process 1 of a container
local, shortened  once, in this process, and what a person sees of it
"""
