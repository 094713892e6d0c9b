"""The service over HTTP. Nothing else renders JSON.

app, requests, disconnect            the server, one request, a caller that hangs up
wire                                 RunPod's JSON
clients, workers, openai, file_routes the routes
openai_replies, auth                 OpenAI's JSON; keys
"""
