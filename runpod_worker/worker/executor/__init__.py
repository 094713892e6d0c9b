"""The process that runs the handler. It does no HTTP for a job, except to download its input files.

main, job_loop       the process, and its inside without the channel
runners, invoke      slots in threads or on an event loop; invoker the handler
attempt, results     one run of one job, and what it came to
interrupt, deadlines stopping a handler
sender, window       what leaves, in order; how much may be in flight
device, concurrency  which device, how many slots
files                input files, saved files
"""
