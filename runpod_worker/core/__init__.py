"""The rules, without I/O.

job, lifecycle        a job in the service, and every rule about its status
dispatch, prefetch    every decision about the jobs of one worker
schema                checks an input against the handler's type
backoff               waits between tries
nesting, text         how deep JSON is nested; text of a bounded length that every encoder accepts
filename              the rule for names of output files
errors, protocol      every error; the constants of the wire
testsignal            moments that tests wait for
"""
