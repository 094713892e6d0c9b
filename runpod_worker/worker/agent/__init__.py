"""The network side of a worker: a shell around core/dispatch. It never imports torch or user code.

agent, performer      events in, effects out, and the shutdown; timer: the one timer
taker, releaser       takes, and what goes back to the service
heartbeats            heartbeats, and polls for stops
outbox, delivery      the reports of all jobs, and how they are sent
reports, outcome      the reports of one job; the body of its outcome
executors, process    the agent's side of an executor
spool, breaker        reports on disk; circuit breaker; health: the health file
"""
