"""Starts a worker where the command line and the environment ask for it.

modes     decides: behind a job service, or once
launch    agent and executor, started either way round
init      process 1 of a container
once      one job in this process, for tests and for local
local     prints one job: `python handler.py` without a job service
"""
