"""The network side of a worker. It never imports torch or user code.

agent               the loops, and the way out
taker               asks for jobs
holding, slots      every job that is held
executors, process  the executors as the agent sees them
outbox, reports     what is to be reported about jobs
outcome, spool      the body of a result; results on disk
breaker, health     a service that is away; the health file
"""
