"""The process that runs the handler. It does no HTTP, except to download the files that jobs name.

main, job_loop         the process; the process without its channel
runners, invoke        slots in threads or on an event loop; calls of the handler
attempt, results       one run of a job; what its handler's values mean
interrupt, deadlines   stop a handler
sender, window         messages in order; how many bytes may be in flight
device, concurrency    which device; how many slots
files                  input files and saved files
"""
