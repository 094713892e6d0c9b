"""The service over HTTP. Nothing else renders JSON.

app                         finds the route of a request, and checks its source and its key
guard                       refuses what a page in a browser may send unasked
requests, replies, sockets  requests; replies as values; the adapter to aiohttp's server
wire                        RunPod's JSON
clients, workers, openai    the routes
openai_replies              OpenAI's JSON
"""
