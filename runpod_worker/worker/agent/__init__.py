"""The network side of a worker: a shell around core/dispatch. It never imports torch or user code.

agent, performer      events in, effects out, and the shutdown; timer: the only timer
taker, releaser       takes, and releases
heartbeats            heartbeats, and polls for stops
outbox, delivery      the reports of all jobs; sends them; replay: sends what earlier processes spooled
reports, outcome      the reports of a job; the body of its outcome
executors, process    the agent's side of an executor
spool, breaker        reports on disk; circuit breaker; health: the health file
"""
