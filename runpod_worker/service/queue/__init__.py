"""Jobs on their way, without HTTP: decide in memory, commit to the journal, then tell.

queue                  what callers can do
transaction, jobs      one way to change jobs; the jobs in memory, and who waits for them
index, heap            all reads, in the orders that rules ask for
assign, polls          how a job gets to a worker; open takes
reports                what workers report
streams, bodies        chunks; requests and outputs
deliveries, workers    webhooks that are owed; workers in touch
sweep, waiters         what is due; how requests wait
"""
