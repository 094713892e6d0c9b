"""The network, for URLs that callers name; and the event loops of our processes.

connector    a connector of aiohttp that connects to public addresses only, for downloads and webhooks
download     one file by its URL
loop         a new event loop; one in a thread, for code that has none
"""
