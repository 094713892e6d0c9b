"""The service over HTTP. Nothing else renders JSON.

app                         finds the route of a request, and checks its key
requests, replies, sockets  requests; replies as values; the adapter to aiohttp's server
wire                        RunPod's JSON
clients, workers, openai    the routes
openai_replies              OpenAI's JSON
"""
