"""Every decision of a worker about its jobs. Synchronous, deterministic, without I/O.

dispatcher   events in, effects out: takes, executors, the drain, time
job_rules    what happens to each job
demand       how many jobs to take, and when one must not wait
events       what happened
effects      what to do
values       an assignment, an attempt, a take, an outcome
state        what the worker holds: jobs and executors
deadlines    when something is due
"""
