"""The process that runs the handler. It does no HTTP, except to download the files that jobs name.

main, reader       the process; reads its channel
job_loop           the process without its channel
runners, invoke    slots in threads or on an event loop; calls of the handler
attempt, results   one run of a job; what its handler's values mean
interrupt          stops a handler, at its deadline too
sender, window     messages in order; how many bytes may be in flight
device             which device
files              input files and saved files
"""
