"""Jobs on their way, without HTTP.

queue              what callers can do
jobs, index        one way to change a job; the unfinished jobs
assign, polls      how a job gets to a worker
reports, streams   what workers say
sweep, waiters     what time does; who waits
workers            which workers there are
"""
