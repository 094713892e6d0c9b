"""The job service: accepts jobs from callers, assigns them to workers, keeps results until their retention ends.

server     all parts wired together, on a port
http       the routes, requests and replies
queue      jobs in memory: each decision about a job
journal    makes the decisions durable and brings them back
webhooks   delivers the ends of jobs to their callers' URLs
files      output files in a folder
keys       accounts, their endpoints and API keys
settings   the settings
"""
