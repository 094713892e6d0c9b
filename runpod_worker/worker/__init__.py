"""The worker: takes jobs, runs the user's handler, posts what comes of it. Where to look:

What a user writes      app (Worker and its decorators), handler (the four kinds), job, openai
Where it runs           modes, flags, local (once, here), launch (agent and executor, either way round), device
Handler side            executor (the process), engine (its inside), runner, running, calling, results, stopping,
                        deadlines, concurrency, outflow (what leaves it, in order), credit (how much may be on its way)
Files, handler side     files (saved ones), fetching, jobfiles, download, line, sources, scratch
Between the sides       frames (what is said), channel (how it travels)
Network side            agent (the loops, and the way out), taking, slots, holding, bench and process (the executors),
                        outbox, delivery, outcome, spool (results on disk), gate (a service that is away), health,
                        memory
The wire                link (the port), link_http, transport
For people              shortened

The handler side never does HTTP for a job; the network side never imports torch or user code.
"""
