"""Every decision of a worker about its jobs. Synchronous, deterministic, without I/O.

values   an assignment, an attempt, a take, an outcome
"""
