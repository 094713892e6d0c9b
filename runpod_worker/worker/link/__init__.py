"""The wire to the job service.

port        the contract between a worker and a job service
http        RunPod's protocol over HTTP
urls        the URLs of that protocol
decode      the jobs in a reply
transport   the HTTP/1.1 client
"""
