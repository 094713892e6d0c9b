"""Rules without I/O: no clock, no event loop, no environment, no sockets.

Everything here is a plain function of its arguments.
"""
