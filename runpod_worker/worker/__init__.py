"""The worker: takes jobs, runs the user's handler, posts what comes of it.

Handler side (never does HTTP for a job): app, job, runner, results, device, executor.
Network side (never imports torch or user code): agent, link, spool.
Between them: frames (what is said) and channel (how it travels).
"""
