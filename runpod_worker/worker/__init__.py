"""The worker: takes jobs, runs the user's handler, reports what comes of it.

worker      `Worker`: what a user declares, and `start`
handler     what a user's function is and sees
launch      where it runs: once here, or with an agent, started either way round
agent       the network side, one process
executor    the handler side, one process a device
ipc         what agent and executor say to each other
link        the port to the job service, and the HTTP client behind it
openai      an old path to `handler.chat`
"""
