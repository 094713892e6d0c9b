"""Traces one job through service, agent and executor. `python -m tools.trace_job` runs it.

sitecustomize  records calls inside each traced process
"""
