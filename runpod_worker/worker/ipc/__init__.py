"""The protocol between the agent and an executor. Its messages are in core/dispatch/messages.py.

channel    how messages travel: one Unix socket pair
"""
