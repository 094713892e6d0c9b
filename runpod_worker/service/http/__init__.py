"""The service over HTTP. Nothing else renders JSON.

app                         finds the route of a request, and checks its key
requests, replies, sockets  both as values; aiohttp's server behind them
wire                        RunPod's JSON
clients, workers, openai    the routes
openai_replies              OpenAI's JSON
"""
