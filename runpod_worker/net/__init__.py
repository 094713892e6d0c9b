"""The network, for URLs that callers name; and the event loops of our processes.

addresses    which addresses may be connected to: public ones
connector    that check as a connector of aiohttp, for downloads and webhooks
download     one file by its URL
background   an event loop in a thread, for code that has none
loop         a new event loop
"""
