"""The service over HTTP. Nothing else renders JSON.

app, routing, auth                      find the route of a request, and check its key
requests, replies, sockets              both as values; aiohttp's server behind them
wire                                    RunPod's JSON
clients, workers, openai, file_routes   the routes
openai_replies, views                   OpenAI's JSON; the views of jobs
"""
