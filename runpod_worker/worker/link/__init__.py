"""The wire to the job service.

port        the port
http        RunPod's protocol behind it
transport   the HTTP/1.1 client
"""
