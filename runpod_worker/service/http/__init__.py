"""The service over HTTP. Nothing else renders JSON.

app, routing, auth                      which route answers a request, and who may send it
requests, replies, sockets              both as values; how aiohttp's server carries them
wire                                    RunPod's JSON
clients, workers, openai, file_routes   the routes
openai_replies, views                   OpenAI's JSON; what callers see of a job
"""
