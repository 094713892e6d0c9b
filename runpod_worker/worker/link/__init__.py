"""The wire to the job service.

http        RunPod's protocol over HTTP, as calls
urls        the URLs of that protocol
decode      the jobs in a reply
transport   the HTTP/1.1 client
"""
