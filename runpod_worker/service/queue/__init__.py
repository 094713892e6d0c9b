"""Decides about jobs, without HTTP: decide in memory, commit to the journal, then notify.

queue                  the operations of callers
transaction, jobs      the only way to change jobs; the jobs in memory
index, heap            all reads, in the orders that the rules need
assign, polls          assigns jobs to workers; open takes
reports                the reports of workers
streams, bodies        chunks; requests and outputs
deliveries, workers    webhooks to send; workers in touch
sweep, waiters         applies everything that is due; requests that wait
"""
