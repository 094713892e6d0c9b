"""What callers and job services name on the network.

addresses   which addresses may be connected to: public ones
connector   the same check for aiohttp
download    a file by URL
cancel      cut a download from another thread
loop        the event loop of every process
"""
