"""Every decision of a worker about its jobs. Synchronous, deterministic, without I/O.

dispatcher   events in, effects out: takes, runs, time
job_rules    the rules about each job; executor_rules: about executors and the drain
demand       how many jobs to take, and when a job must not wait
events       everything that can happen
effects      the actions that the agent performs
messages     what the agent and an executor send each other
values       an assignment, an attempt, a take, an outcome
state        the jobs, executors and deadlines of the worker
"""
