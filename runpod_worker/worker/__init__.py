"""The worker: takes jobs, runs the user's handler, reports the outcomes.

worker      `Worker`, which users declare and start
handler     the user's function, and the job that it gets
launch      starts a worker: once in this process, or with an agent
agent       the network side, one process
executor    the handler side, one process a device
ipc         the messages and the channel between agent and executor
link        the calls to the job service, and the HTTP client beneath them
openai      an old path to `handler.chat`
"""
